// copying: goroutines whose calls never block but last long in the kernel (64 MiB of zeros), more of
// them than CPUs. So a thread loses its CPU in its call, and then its P.
//
// Usage: copying COUNT, of calls by each.
package main

import (
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	zeros, err := syscall.Open("/dev/zero", syscall.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	var all sync.WaitGroup
	for i := 0; i < 6; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			room := make([]byte, 64<<20)
			for j := 0; j < count; j++ {
				if _, err := syscall.Read(zeros, room); err != nil {
					panic(err)
				}
				for begin := time.Now(); time.Since(begin) < 300*time.Microsecond; {
				}
			}
		}()
	}
	all.Wait()
}
