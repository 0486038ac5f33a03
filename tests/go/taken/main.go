// taken: one goroutine blocks in read, for 3 ms and for 30 us in turn, while another counts its own turns.
// With GOMAXPROCS=1 a turn of the other during a read says that the read lost its P, and no turn that it
// kept it. Where a long read kept its P, for want of a CPU for sysmon, the next one is twice as long.
//
// Then a timer of an hour is moved to half an hour, and nothing runs that would sort the timers.
// Usage: taken COUNT. Says when each read began, whether it lost its P (1) or not (0), and in the end
// when the timer is due (ns of CLOCK_MONOTONIC).
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

	slow "pretake.test/timer"
)

func now() int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

func block(file slow.Timer, lasts time.Duration) {
	file.Set(lasts)
	if n, err := syscall.Read(int(file), make([]byte, 8)); n != 8 {
		panic(err)
	}
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	// One M makes all the reads. With a wrong tick each looks like the one before, and is not told again.
	runtime.LockOSThread()
	var turns, done int64
	go func() {
		for atomic.LoadInt64(&done) == 0 {
			atomic.AddInt64(&turns, 1)
			runtime.Gosched()
		}
	}()
	runtime.Gosched()
	file, begin, taken := slow.New(), make([]int64, count), make([]int, count)
	long := 3 * time.Millisecond
	for i := range taken {
		before := atomic.LoadInt64(&turns)
		begin[i] = now()
		block(file, [2]time.Duration{long, 30 * time.Microsecond}[i%2])
		if atomic.LoadInt64(&turns) != before {
			taken[i] = 1
		} else if i%2 == 0 {
			long *= 2
		}
	}
	atomic.StoreInt64(&done, 1)
	runtime.Gosched()
	later := time.AfterFunc(time.Hour, func() {})
	due := now() + int64(30*time.Minute)
	later.Reset(30 * time.Minute)
	for end := time.Now(); time.Since(end) < 60*time.Millisecond; {
	}
	for i := range taken {
		fmt.Println(begin[i], taken[i])
	}
	fmt.Println(due)
}
