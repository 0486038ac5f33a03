// calls: system calls that do nothing, at a steady rate: each is one event of a full capture.
//
// Usage: calls RATE SECONDS. RATE 0: as fast as they go. Tells how many there were in how many ns.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

func main() {
	rate, seconds := number(os.Args[1]), number(os.Args[2])
	begin, calls := time.Now(), 0
	for end := begin.Add(time.Duration(seconds) * time.Second); ; {
		now := time.Now()
		if now.After(end) {
			break
		}
		// Spins until the next thousand is due: a sleep would be a call of its own.
		if rate != 0 && now.Sub(begin) < time.Duration(calls)*time.Second/time.Duration(rate) {
			continue
		}
		for range [1000]int{} {
			syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
		}
		calls += 1000
	}
	fmt.Println(calls, time.Since(begin).Nanoseconds())
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}
