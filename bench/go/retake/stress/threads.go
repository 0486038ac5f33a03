package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
)

// threads makes count goroutines, each on a thread of its own, all blocked in read at one time, and lets
// them go: each has to read its byte.
func threads(count int) {
	debug.SetMaxThreads(count + 100)
	var pipe [2]int
	must(syscall.Pipe2(pipe[:], syscall.O_CLOEXEC))
	var ready, done sync.WaitGroup
	for i := 0; i < count; i++ {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			b := make([]byte, 1)
			ready.Done()
			for {
				n, err := syscall.Read(pipe[0], b)
				if err != syscall.EINTR {
					must(err)
					if n != 1 {
						panic("no byte")
					}
					return
				}
			}
		}()
	}
	ready.Wait()
	bytes := make([]byte, count)
	for len(bytes) > 0 {
		n, err := syscall.Write(pipe[1], bytes)
		must(err)
		bytes = bytes[n:]
	}
	done.Wait()
	fmt.Println("ok", count)
}
