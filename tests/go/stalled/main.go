// stalled: an HTTP server that works, until somebody asks it for a stall: then one goroutine reads from a
// FIFO by a raw system call, as a driver or a library does that knows nothing of the scheduler. It keeps
// its P until there is something to read.
//
// Usage: stalled FIFO. Tells the port that it serves on. /stall reads from the FIFO, /count tells how many
// turns the work had.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

//go:noinline
func readRaw(fd int) {
	var one [1]byte
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&one[0])), 1)
		if errno != syscall.EINTR {
			if n != 1 {
				panic(errno)
			}
			return
		}
	}
}

func main() {
	// For both, so that the open waits for nobody.
	fifo, err := syscall.Open(os.Args[1], syscall.O_RDWR, 0)
	must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	var turns int64
	go func() {
		for {
			for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
			}
			atomic.AddInt64(&turns, 1)
			runtime.Gosched()
			time.Sleep(time.Millisecond)
		}
	}()
	http.HandleFunc("/stall", func(w http.ResponseWriter, r *http.Request) {
		readRaw(fifo)
		fmt.Fprint(w, "done")
	})
	http.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, atomic.LoadInt64(&turns))
	})
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	must(http.Serve(listener, nil))
}
