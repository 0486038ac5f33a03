// stwread: one goroutine is nearly always in a read that blocks for 3 ms, and another stops the
// world as often as it can. With two Ps nobody waits for the first one's, so sysmon leaves it
// alone, and stop-the-world takes it.
//
// Usage: stwread COUNT.
package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	go func() {
		var statistics runtime.MemStats
		for {
			runtime.ReadMemStats(&statistics) // stops the world
			for begin := time.Now(); time.Since(begin) < time.Millisecond; {
			}
		}
	}()
	timer := newTimer()
	for i := 0; i < count; i++ {
		timer.block()
	}
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
