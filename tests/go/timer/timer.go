// Package timer has descriptors whose reader blocks for a known time, like a pipe that nobody has
// written to yet, or a file on a slow disk.
package timer

import (
	"syscall"
	"time"
	"unsafe"
)

// Timer is a timerfd(2).
type Timer int

// New makes a timer that is not set: its reader would block for ever.
func New() Timer {
	const monotonic = 1
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	return Timer(fd)
}

// Set lets the next read end so much later.
func (t Timer) Set(later time.Duration) {
	spec := [2]syscall.Timespec{{}, syscall.NsecToTimespec(int64(later))}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(t), 0,
		uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		panic(errno)
	}
}

// Block blocks in read(2), for 3 ms.
func (t Timer) Block() {
	t.Set(3 * time.Millisecond)
	if n, err := syscall.Read(int(t), make([]byte, 8)); n != 8 {
		panic(err)
	}
}

// RawBlock does so without telling the scheduler.
func (t Timer) RawBlock() {
	t.Set(3 * time.Millisecond)
	var expired [8]byte
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(t), uintptr(unsafe.Pointer(&expired)), 8)
	if n != 8 {
		panic(errno)
	}
}
