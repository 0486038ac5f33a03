// twin_b: blocks in a function of its own name, and may then become another program. Its twin has
// the same layout to the byte, but that name.
//
// Usage: twin_b CALLS [PROGRAM ARGUMENT...]; or twin_b FIFO, which waits until somebody writes there.
package main

import (
	"os"
	"strconv"
	"syscall"
)

func main() {
	calls, err := strconv.Atoi(os.Args[1])
	if err != nil {
		if _, err := os.ReadFile(os.Args[1]); err != nil {
			panic(err)
		}
	}
	for i := 0; i < calls; i++ {
		blocksB()
	}
	if len(os.Args) > 2 {
		panic(syscall.Exec(os.Args[2], os.Args[2:], os.Environ()))
	}
}

//go:noinline
func blocksB() {
	wanted := syscall.NsecToTimespec(2e6)
	syscall.Nanosleep(&wanted, &wanted)
}
