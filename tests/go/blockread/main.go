// blockread: one goroutine blocks in read, 3 ms each time, while another always has work. With
// GOMAXPROCS=1 the second waits for the P of the first until sysmon retakes it.
//
// Usage: blockread COUNT. Says how often the other had its turn meanwhile.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"pretake.test/timer"
)

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	var turns int64
	go func() {
		for {
			for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
			}
			atomic.AddInt64(&turns, 1)
			runtime.Gosched()
		}
	}()
	slow := timer.New()
	for i := 0; i < count; i++ {
		slow.Block()
	}
	fmt.Printf("reads=%d turns=%d\n", count, atomic.LoadInt64(&turns))
}
