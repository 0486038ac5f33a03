// selftrace: blocks in read like blockread, collects garbage now and then, and writes the
// runtime's own execution trace of itself.
//
// Usage: selftrace COUNT FILE.
package main

import (
	"os"
	"runtime"
	"runtime/trace"
	"strconv"
	"time"

	"pretake.test/timer"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	check(err)
	file, err := os.Create(os.Args[2])
	check(err)
	slow := timer.New()
	check(trace.Start(file))
	go func() {
		for n := 1; ; n++ {
			for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
			}
			if n%1000 == 0 {
				runtime.GC()
			}
			runtime.Gosched()
		}
	}()
	for i := 0; i < count; i++ {
		slow.Block()
	}
	trace.Stop()
	check(file.Close())
}
