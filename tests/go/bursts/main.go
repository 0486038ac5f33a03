// bursts: hundreds of goroutines at once, and then none, over more Ps than one look reads.
//
// Usage: bursts COUNT. Run it with GOMAXPROCS=24.
package main

import (
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	for i := 0; i < count; i++ {
		var all sync.WaitGroup
		all.Add(200)
		for range [200]int{} {
			go func() {
				for begin := time.Now(); time.Since(begin) < 20*time.Microsecond; {
				}
				all.Done()
			}()
		}
		all.Wait()
		time.Sleep(2 * time.Millisecond)
	}
}
