// passing: Ps go from thread to thread, since more goroutines than Ps work for 0.5 ms and block for 3 ms.
// With two Ps and eight goroutines whoever comes back takes a P that another one's call has left.
//
// Usage: passing COUNT, of calls of each goroutine.
package main

import (
	"os"
	"strconv"
	"sync"
	"time"

	"pretake.test/timer"
)

const goroutines = 8

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	var all sync.WaitGroup
	all.Add(goroutines)
	for range [goroutines]int{} {
		go func() {
			defer all.Done()
			slow := timer.New()
			for i := 0; i < count; i++ {
				for begin := time.Now(); time.Since(begin) < 500*time.Microsecond; {
				}
				slow.Block()
			}
		}()
	}
	all.Wait()
}
