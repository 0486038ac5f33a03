// sleeps: 23 blocking calls of nanosleep beside a goroutine that always wants to run. It prints how
// many calls it really made: one that a signal ended early is made again.
//
// Usage: sleeps [WAIT]. With an argument it waits for a byte on its input first.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

const wanted = 23

func main() {
	runtime.GOMAXPROCS(1)
	var stop atomic.Bool
	go func() {
		for !stop.Load() {
			runtime.Gosched()
		}
	}()
	if len(os.Args) > 1 {
		if n, err := syscall.Read(0, make([]byte, 1)); n != 1 {
			panic(err)
		}
	}
	calls := 0
	for done := 0; done < wanted; calls++ {
		ts := syscall.NsecToTimespec(int64(20 * time.Millisecond))
		if syscall.Nanosleep(&ts, nil) == nil {
			done++
		}
	}
	stop.Store(true)
	fmt.Println(calls)
}
