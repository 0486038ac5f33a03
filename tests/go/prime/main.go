// prime: 23 reads from a pipe, a byte each, on one locked thread. Before each it says its thread
// on a second pipe; whoever feeds it waits until that thread is blocked in read, and only then
// writes the byte. So there are exactly 23 blocking reads, however slow anything is.
//
// Usage: prime IN OUT (two named pipes).
package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
)

const calls = 23

func open(path string) int {
	fd, err := syscall.Open(path, syscall.O_RDWR, 0) // both ends: does not wait for the other
	if err != nil {
		panic(err)
	}
	return fd
}

func main() {
	runtime.LockOSThread()
	in, out := open(os.Args[1]), open(os.Args[2])
	for i := 0; i < calls; i++ {
		if _, err := syscall.Write(out, []byte(strconv.Itoa(syscall.Gettid())+"\n")); err != nil {
			panic(err)
		}
		if n, err := syscall.Read(in, make([]byte, 1)); n != 1 {
			panic(err)
		}
	}
}
