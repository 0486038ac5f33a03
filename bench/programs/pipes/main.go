// pipes: the worst case for a tracer. Two goroutines pass a byte to and fro over two blocking
// pipes: a round trip is four system calls, and both reads block.
//
// Usage: pipes. Runs until it is ended, and tells every 50 ms, one line each:
// begin and end (CLOCK_MONOTONIC, ns), the round trips between, and the CPU time they took, ns.
package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	slice     = 50_000_000
	monotonic = 1
	process   = 2 // CLOCK_PROCESS_CPUTIME_ID
)

func main() {
	there, back := pipe(), pipe()
	go func() {
		for b := make([]byte, 1); ; {
			read(there[0], b)
			write(back[1], b)
		}
	}()
	b := make([]byte, 1)
	for begin, cpu, rounds := clock(monotonic), clock(process), 0; ; {
		for range [64]int{} {
			write(there[1], b)
			read(back[0], b)
		}
		rounds += 64
		if end := clock(monotonic); end-begin >= slice {
			fmt.Fprintln(os.Stdout, begin, end, rounds, clock(process)-cpu)
			begin, cpu, rounds = clock(monotonic), clock(process), 0
		}
	}
}

func pipe() (fds [2]int) {
	if err := syscall.Pipe(fds[:]); err != nil {
		panic(err)
	}
	return
}

func read(fd int, b []byte) {
	if n, err := syscall.Read(fd, b); n != 1 {
		panic(err)
	}
}

func write(fd int, b []byte) {
	if n, err := syscall.Write(fd, b); n != 1 {
		panic(err)
	}
}

func clock(id uintptr) int64 {
	var t syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}
