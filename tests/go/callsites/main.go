// callsites: calls that block and lose their P, made from many places. With GOMAXPROCS=1 another
// goroutine always has work, so sysmon retakes the P of each.
//
// Usage: callsites OFTEN SELDOM PATHS [FILE]. Function often blocks OFTEN times, and until FILE is
// there, seldom SELDOM times, and deep once for each of PATHS ways of getting there: as many different
// stacks.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// block is more than twice as long as sysmon ever sleeps, so that it sees each call at least twice.
const block = 25e6

func main() {
	var counts [3]int
	for i := range counts {
		count, err := strconv.Atoi(os.Args[i+1])
		if err != nil {
			panic(err)
		}
		counts[i] = count
	}
	go func() {
		for {
			for begin := time.Now(); time.Since(begin) < 20*time.Microsecond; {
			}
			runtime.Gosched()
		}
	}()
	for i := 0; i < counts[0] || !there(os.Args[4:]); i++ {
		often()
	}
	for i := 0; i < counts[1]; i++ {
		seldom()
	}
	for i := 0; i < counts[2]; i++ {
		left(12, i)
	}
	fmt.Printf("done=%d\n", counts[0]+counts[1]+counts[2])
}

func there(files []string) bool {
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return false
		}
	}
	return true
}

//go:noinline
func often() {
	wanted := syscall.NsecToTimespec(block)
	syscall.Nanosleep(&wanted, &wanted)
}

//go:noinline
func seldom() {
	wanted := syscall.NsecToTimespec(block)
	syscall.Nanosleep(&wanted, &wanted)
}

// left and right call each other by the bits of a number: each number is another stack.
//
//go:noinline
func left(depth, bits int) {
	if depth == 0 {
		deep()
	} else if bits&1 == 0 {
		left(depth-1, bits>>1)
	} else {
		right(depth-1, bits>>1)
	}
}

//go:noinline
func right(depth, bits int) {
	if depth == 0 {
		deep()
	} else if bits&1 == 0 {
		left(depth-1, bits>>1)
	} else {
		right(depth-1, bits>>1)
	}
}

//go:noinline
func deep() {
	wanted := syscall.NsecToTimespec(block)
	syscall.Nanosleep(&wanted, &wanted)
}
