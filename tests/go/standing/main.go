// standing: two Ps that run without a pause, and what waits for them meanwhile, known to the last
// goroutine: 5 in the queue of P 0, 3 in that of P 1, one timer that is due and one that is not.
//
// Run it with GOMAXPROCS=2 and GODEBUG=asyncpreemptoff=1: then nothing stops a loop without calls.
// It stands so until SWITCHES of its threads have given their CPU up on their own account, which is
// sysmon alone while both Ps are at work: so whoever looks where a thread leaves has looked.
// Usage: standing SWITCHES. Says when the later timer is due (CLOCK_MONOTONIC).
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
const soon = time.Millisecond

// A goroutine that sysmon wants off its P would leave it in the begin of any other function.
//
//go:nosplit
func now() int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&at)), 0)
	return at.Sec*1000*1000*1000 + at.Nsec
}

// switches says how often threads of this process have waited for something so far.
//
//go:nosplit
func switches() int64 {
	var used syscall.Rusage
	syscall.RawSyscall(syscall.SYS_GETRUSAGE, syscall.RUSAGE_SELF, uintptr(unsafe.Pointer(&used)), 0)
	return used.Nvcsw
}

// stand makes that state, and stays in it. It cannot where a goroutine was taken off its P before it
// had made all: then what it had made has run, and the answer is no.
func stand(count int64) bool {
	var begun, ended, ran int32
	var all sync.WaitGroup
	all.Add(5 + 3 + 2) // and the timer's, and who makes the three
	work := func() {
		atomic.AddInt32(&ran, 1)
		all.Done()
	}
	go func() {
		for i := 0; i < 3; i++ {
			go work()
		}
		time.AfterFunc(soon, work)
		atomic.StoreInt32(&begun, 1)
		for atomic.LoadInt32(&ended) == 0 {
		}
		all.Done()
	}()
	for atomic.LoadInt32(&begun) == 0 {
	}
	for i := 0; i < 5; i++ {
		go work()
	}
	stands := atomic.LoadInt32(&ran) == 0
	if stands {
		for due := now() + int64(soon); now() < due; {
		}
		for end := switches() + count; switches() < end; {
		}
	}
	atomic.StoreInt32(&ended, 1)
	all.Wait()
	return stands
}

func main() {
	count, err := strconv.ParseInt(os.Args[1], 10, 64)
	if err != nil {
		panic(err)
	}
	debug.SetGCPercent(-1)
	due := now() + hour
	time.AfterFunc(hour, func() {})
	for !stand(count) {
	}
	fmt.Printf("due=%d\n", due)
}
