// stwread: one goroutine is nearly always in a read that blocks for 3 ms, and another stops the
// world as often as it can. With two Ps nobody waits for the first one's, so sysmon leaves it
// alone, and stop-the-world takes it.
//
// Usage: stwread COUNT.
package main

import (
	"os"
	"runtime"
	"strconv"
	"time"

	"pretake.test/timer"
)

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	go func() {
		var statistics runtime.MemStats
		for {
			runtime.ReadMemStats(&statistics) // stops the world
			for begin := time.Now(); time.Since(begin) < time.Millisecond; {
			}
		}
	}()
	slow := timer.New()
	for i := 0; i < count; i++ {
		slow.Block()
	}
}
