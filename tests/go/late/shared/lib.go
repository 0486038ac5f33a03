// A Go library in a C program (-buildmode=c-shared or c-archive): it blocks until somebody writes.
package main

import "C"

import (
	"os"
	"sync/atomic"
	"syscall"
)

//export Work
func Work() {
	var ended atomic.Bool
	go func() {
		os.Stdin.Read(make([]byte, 1))
		ended.Store(true)
	}()
	for !ended.Load() {
		blocks()
	}
}

//go:noinline
func blocks() {
	wanted := syscall.NsecToTimespec(2e6)
	syscall.Nanosleep(&wanted, &wanted)
}

func main() {}
