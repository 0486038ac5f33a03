// blockread: one goroutine blocks in read, 3 ms each time, while another always has work. With
// GOMAXPROCS=1 the second waits for the P of the first until sysmon retakes it.
//
// Usage: blockread COUNT. Says how often the other had its turn meanwhile.
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
)

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
	timer := newTimer()
	for i := 0; i < count; i++ {
		timer.block()
	}
	fmt.Printf("reads=%d turns=%d\n", count, atomic.LoadInt64(&turns))
}

// timer is a descriptor that blocks whoever reads it for 3 ms, like a pipe that nobody has
// written to yet.
type timer int

func newTimer() timer {
	const monotonic = 1
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	return timer(fd)
}

func (t timer) block() {
	spec := [2]syscall.Timespec{{}, syscall.NsecToTimespec(3e6)}
	_, _, errno := syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(t), 0,
		uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	if n, err := syscall.Read(int(t), make([]byte, 8)); n != 8 {
		panic(err)
	}
}
