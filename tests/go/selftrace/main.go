// selftrace: blocks in read like blockread, collects garbage now and then, and writes the
// runtime's own execution trace of itself.
//
// Usage: selftrace MILLISECONDS FILE.
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

const period = 3 * time.Millisecond

func main() {
	duration, err := strconv.Atoi(os.Args[1])
	check(err)
	file, err := os.Create(os.Args[2])
	check(err)
	fd := timer()
	check(trace.Start(file))
	end := time.Now().Add(time.Duration(duration) * time.Millisecond)

	done := make(chan bool)
	go func() {
		for n := 0; time.Now().Before(end); n++ {
			for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
			}
			if n%1000 == 999 {
				runtime.GC()
			}
			runtime.Gosched()
		}
		done <- true
	}()

	for expirations := make([]byte, 8); time.Now().Before(end); {
		if n, err := syscall.Read(fd, expirations); n != 8 {
			check(err)
		}
	}
	<-done
	trace.Stop()
	check(file.Close())
}

func check(err error) {
	if err != nil {
		panic(err)
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
