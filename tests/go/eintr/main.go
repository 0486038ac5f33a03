// eintr: blocks in raw calls, one kind after the other. The scheduler is told of none, so the
// goroutine counts as running; after 10 ms sysmon asks it to stop, and SIGURG ends the call. What
// comes of that hangs on the call (signal(7)): Go's handlers have SA_RESTART, and yet poll, ppoll,
// epoll_pwait and sleeps fail with EINTR; a read is begun again, and its caller sees nothing.
//
// Usage: eintr. Makes each call until it has failed so three times or come to its end, after
// 10 s (the read's is after half a second), and tells its number and how often it failed, one line each.
package main

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"pretake.test/timer"
)

const (
	sysClockNanosleep = 230 // not in package syscall
	monotonic         = 1
	milliseconds      = 10_000
	enough            = 3
)

var (
	length = syscall.NsecToTimespec(milliseconds * 1e6)
	left   syscall.Timespec
	event  syscall.EpollEvent
	read   uint64
)

func main() {
	epoll, err := syscall.EpollCreate1(0)
	if err != nil {
		panic(err)
	}
	repeat(syscall.SYS_POLL, 0, 0, milliseconds, 0)
	repeat(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&event)), 1, milliseconds)
	repeat(sysClockNanosleep, monotonic, 0, uintptr(unsafe.Pointer(&length)), 0)
	left = length // the kernel writes there
	repeat(syscall.SYS_PPOLL, 0, 0, uintptr(unsafe.Pointer(&left)), 0)
	slow := timer.New()
	slow.Set(500 * time.Millisecond)
	repeat(syscall.SYS_READ, uintptr(slow), uintptr(unsafe.Pointer(&read)), 8, 0)
}

func repeat(nr, a0, a1, a2, a3 uintptr) {
	interrupted := 0
	for interrupted < enough {
		_, _, errno := syscall.RawSyscall6(nr, a0, a1, a2, a3, 0, 0)
		if errno == 0 {
			break
		}
		if errno != syscall.EINTR {
			panic(errno)
		}
		interrupted++
	}
	fmt.Println(nr, interrupted)
}
