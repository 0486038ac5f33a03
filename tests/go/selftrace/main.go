// selftrace: blocks in read like blockread, collects garbage now and then, and writes the
// runtime's own execution trace of itself.
//
// Usage: selftrace COUNT FILE.
package main

import (
	"os"
	"runtime"
	"runtime/trace"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	check(err)
	file, err := os.Create(os.Args[2])
	check(err)
	timer := newTimer()
	check(trace.Start(file))
	go func() {
		for n := 1; ; n++ {
			for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
			}
			if n%1000 == 0 {
				runtime.GC()
			}
			runtime.Gosched()
		}
	}()
	for i := 0; i < count; i++ {
		timer.block()
	}
	trace.Stop()
	check(file.Close())
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
