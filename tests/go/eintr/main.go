// eintr: blocks in raw calls, one kind after the other. The scheduler is told of none, so the
// goroutine counts as running; after 10 ms sysmon asks it to stop, and SIGURG ends the call. What
// comes of that hangs on the call (signal(7)): Go's handlers have SA_RESTART, and yet poll, ppoll,
// epoll_pwait and sleeps fail with EINTR; a read is begun again, and its caller sees nothing.
//
// Usage: eintr. Makes each call until it has failed so three times or come to its end, after
// 100 ms, and tells its number and how often it failed, one line each.
package main

import (
	"fmt"
	"syscall"
	"unsafe"
)

const (
	sysClockNanosleep = 230 // not in package syscall
	monotonic         = 1
	milliseconds      = 100
	enough            = 3
)

var (
	length = syscall.NsecToTimespec(milliseconds * 1e6)
	left   syscall.Timespec
	event  syscall.EpollEvent
	read   uint64
)

func main() {
	epoll := open(syscall.SYS_EPOLL_CREATE1, 0, 0)
	timer := open(syscall.SYS_TIMERFD_CREATE, monotonic, 0)
	repeat(syscall.SYS_POLL, 0, 0, milliseconds, 0)
	repeat(syscall.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&event)), 1, milliseconds)
	repeat(sysClockNanosleep, monotonic, 0, uintptr(unsafe.Pointer(&length)), 0)
	left = length // the kernel writes there
	repeat(syscall.SYS_PPOLL, 0, 0, uintptr(unsafe.Pointer(&left)), 0)
	spec := [2]syscall.Timespec{{}, length}
	must(syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, timer, 0,
		uintptr(unsafe.Pointer(&spec)), 0, 0, 0))
	repeat(syscall.SYS_READ, timer, uintptr(unsafe.Pointer(&read)), 8, 0)
}

func repeat(nr, a0, a1, a2, a3 uintptr) {
	interrupted := 0
	for interrupted < enough {
		_, _, errno := syscall.RawSyscall6(nr, a0, a1, a2, a3, 0, 0)
		if errno != syscall.EINTR {
			must(0, 0, errno)
			break
		}
		interrupted++
	}
	fmt.Println(nr, interrupted)
}

func open(nr, a0, a1 uintptr) uintptr {
	fd, _, errno := syscall.RawSyscall(nr, a0, a1, 0)
	must(fd, 0, errno)
	return fd
}

func must(_, _ uintptr, errno syscall.Errno) {
	if errno != 0 {
		panic(errno)
	}
}
