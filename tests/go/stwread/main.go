// stwread: one goroutine is always in a read that blocks for 3 ms, and another stops the world
// as often as it can. With two Ps nobody waits for the first one's, so sysmon leaves it alone,
// and stop-the-world takes it.
//
// Usage: stwread MILLISECONDS.
package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const period = 3 * time.Millisecond

func main() {
	duration, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	end := time.Now().Add(time.Duration(duration) * time.Millisecond)
	go func() {
		var statistics runtime.MemStats
		for {
			runtime.ReadMemStats(&statistics) // stops the world
			for begin := time.Now(); time.Since(begin) < time.Millisecond; {
			}
		}
	}()
	fd := timer()
	for expirations := make([]byte, 8); time.Now().Before(end); {
		if n, err := syscall.Read(fd, expirations); n != 8 {
			panic(err)
		}
	}
}

// timer gives a descriptor that is readable every 3 ms.
func timer() int {
	const monotonic = 1
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	every := syscall.NsecToTimespec(int64(period))
	spec := [2]syscall.Timespec{every, every}
	_, _, errno = syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0,
		uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	return int(fd)
}
