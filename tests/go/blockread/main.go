// blockread: one goroutine blocks in read, every 3 ms, while another always has work. With
// GOMAXPROCS=1 the second waits for the P of the first until sysmon retakes it.
//
// Usage: blockread [milliseconds]. Says how often the read returned.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const period = 3 * time.Millisecond

func main() {
	duration := 1000
	if len(os.Args) > 1 {
		var err error
		if duration, err = strconv.Atoi(os.Args[1]); err != nil {
			panic(err)
		}
	}
	fd := timer()
	end := time.Now().Add(time.Duration(duration) * time.Millisecond)

	turns := make(chan int)
	go func() {
		n := 0
		for ; time.Now().Before(end); n++ {
			for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
			}
			runtime.Gosched()
		}
		turns <- n
	}()

	reads := 0
	for expirations := make([]byte, 8); time.Now().Before(end); reads++ {
		if n, err := syscall.Read(fd, expirations); n != 8 {
			panic(err)
		}
	}
	fmt.Printf("reads=%d turns=%d\n", reads, <-turns)
}

// timer gives a descriptor that is readable every 3 ms. It blocks like a pipe, and nobody has to
// write to it.
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
