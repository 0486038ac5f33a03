// preempt: with one P, a goroutine that never calls anything keeps main from going on. Only a
// signal can stop it, and only where the runtime thinks it safe.
//
// Usage: preempt HOW. Ends when main had its turn again, and says so.
//
//	loop       an endless loop without a call, for which main waits in a sleep
//	nosplit    the same in a function that has no stack check (once no goroutine stopped there)
//	assembly   half a second of CPU time and more in assembly, where the runtime refuses to stop a
//	           goroutine
//	barrier    half a second of CPU time of pointer stores: the compiler marks the instructions of
//	           each write barrier unsafe
//	collect    two goroutines that never call anything, while main collects garbage: the
//	           collector suspends each to scan its stack
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

func spin(rounds uint64) // spin.s

//go:nosplit
func nosplit() {
	for {
		counter++
	}
}

var counter uint64

type node struct{ next *node }

var list *node

const half = 500 * time.Millisecond

// cpu is the time that the program had a CPU: without one it is not stopped, however often it is asked.
func cpu() time.Duration {
	const ofProcess = 2
	var ts syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, ofProcess, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}

// barrier stores pointers, while some fifty requests come.
func barrier() {
	a, b := &node{}, &node{}
	for begin := cpu(); cpu()-begin < half; {
		for i := 0; i < 1<<20; i++ {
			list = a
			a.next = b
			b.next = a
			list = b
		}
	}
}

func main() {
	switch os.Args[1] {
	case "loop":
		var began int32
		go func() {
			atomic.StoreInt32(&began, 1)
			for {
			}
		}()
		// On a busy machine the sleep may be over before the loop has its first turn.
		for atomic.LoadInt32(&began) == 0 {
			time.Sleep(time.Millisecond)
		}
	case "nosplit":
		go nosplit()
		time.Sleep(time.Millisecond)
	case "assembly":
		begin := cpu()
		for rounds := uint64(1 << 20); cpu()-begin < half; rounds *= 2 {
			spin(rounds)
		}
	case "barrier":
		barrier()
	case "collect":
		for i := 0; i < 2; i++ {
			go func() {
				for {
				}
			}()
		}
		// A goroutine that has no CPU yet when its stack is to be scanned is not suspended: so the
		// collector comes by for as long as it takes a busy machine to run both.
		for begin, i := cpu(), 0; i < 20 || cpu()-begin < 4*half; i++ {
			runtime.GC()
		}
	}
	fmt.Println("main goes on")
}
