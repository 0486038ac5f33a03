// stopped: stops the world while another goroutine loops without a point where it can be stopped
// (with GODEBUG=asyncpreemptoff=1). So each stop lasts until the loop has ended, and who stops
// waits for it.
//
// Usage: stopped COUNT, how often.
package main

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
)

// loop calls nothing, so nothing in it asks whether it should stop.
func loop(rounds int) (sum int) {
	for i := 0; i < rounds; i++ {
		sum += i * sum
	}
	return sum
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	var statistics runtime.MemStats
	var sum int64
	for i := 0; i < count; i++ {
		var begun, ended int32
		go func() {
			atomic.StoreInt32(&begun, 1)
			atomic.AddInt64(&sum, int64(loop(30_000_000)))
			atomic.StoreInt32(&ended, 1)
		}()
		for atomic.LoadInt32(&begun) == 0 {
			runtime.Gosched()
		}
		runtime.ReadMemStats(&statistics) // stops the world
		for atomic.LoadInt32(&ended) == 0 {
			runtime.Gosched()
		}
	}
}
