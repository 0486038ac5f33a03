// blockread: one goroutine blocks in read, 3 ms each time, while another always has work. With
// GOMAXPROCS=1 the second waits for the P of the first until sysmon retakes it.
//
// Usage: blockread COUNT. Says how often the other had its turn meanwhile. With a COUNT of 0 it reads
// until there is something on its input, which it asks for without blocking.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"pretake.test/timer"
)

// told says whether there is something on the input; the scheduler does not know of the call.
func told() bool {
	const pollIn = 1
	asked := struct {
		fd              int32
		events, revents int16
	}{events: pollIn}
	n, _, _ := syscall.RawSyscall(syscall.SYS_POLL, uintptr(unsafe.Pointer(&asked)), 1, 0)
	return n == 1
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	var turns int64
	go func() {
		for {
			for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
			}
			atomic.AddInt64(&turns, 1)
			runtime.Gosched()
		}
	}()
	slow := timer.New()
	reads := 0
	for ; reads < count || count == 0 && !told(); reads++ {
		slow.Block()
	}
	fmt.Printf("reads=%d turns=%d\n", reads, atomic.LoadInt64(&turns))
}
