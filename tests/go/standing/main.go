// standing: two Ps that run without a pause, and what waits for them meanwhile, known to the last
// goroutine: 5 in the queue of P 0, 3 in that of P 1, one timer that is due and one that is not.
//
// Run it with GOMAXPROCS=2 and GODEBUG=asyncpreemptoff=1: then nothing stops a loop without calls.
// Usage: standing TURNS. Says how long the later timer had to go when it was made, and when that
// was (CLOCK_MONOTONIC).
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const hour = 3600 * 1000 * 1000 * 1000

func now() int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

func main() {
	turns, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	debug.SetGCPercent(-1)
	var begun, ended int32
	var made sync.WaitGroup
	made.Add(8)
	due := now() + hour
	time.AfterFunc(hour, func() {})
	go func() {
		for i := 0; i < 3; i++ {
			go made.Done()
		}
		time.AfterFunc(time.Millisecond, func() {})
		atomic.StoreInt32(&begun, 1)
		for atomic.LoadInt32(&ended) == 0 {
		}
	}()
	for atomic.LoadInt32(&begun) == 0 {
	}
	for i := 0; i < 5; i++ {
		go made.Done()
	}
	for i := 0; i < turns; i++ {
		atomic.AddInt32(&begun, 1)
	}
	atomic.StoreInt32(&ended, 1)
	made.Wait()
	fmt.Printf("due=%d\n", due)
}
