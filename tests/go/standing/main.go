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

func main() {
	count, err := strconv.Atoi(os.Args[1])
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
		time.AfterFunc(soon, func() {})
		atomic.StoreInt32(&begun, 1)
		for atomic.LoadInt32(&ended) == 0 {
		}
	}()
	for atomic.LoadInt32(&begun) == 0 {
	}
	for i := 0; i < 5; i++ {
		go made.Done()
	}
	for due := now() + int64(soon); now() < due; {
	}
	for end := switches() + int64(count); switches() < end; {
	}
	atomic.StoreInt32(&ended, 1)
	made.Wait()
	fmt.Printf("due=%d\n", due)
}
