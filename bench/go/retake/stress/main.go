// stress: what a runtime that takes Ps by events of threads could get wrong, all at once: threads that
// end while they are watched, children that are forked, GOMAXPROCS that changes, the collector
// stopping the world, blocking calls, goroutines that are bound to their thread, and threads of C.
//
// Usage: stress ROUNDS. Prints "ok" and the calls that were made: two times ROUNDS of each kind.
// Usage: stress threads COUNT. Prints "ok" and COUNT: as many threads were blocked at one time.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func pause(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&ts, &ts) == syscall.EINTR {
	}
}

var checks []func(rounds int) bool

var kinds = map[string]func(int){
	"pipe": func(i int) {
		var p [2]int
		must(syscall.Pipe2(p[:], syscall.O_CLOEXEC))
		go func() {
			pause(time.Millisecond)
			syscall.Write(p[1], []byte{byte(i)})
		}()
		b := make([]byte, 1)
		for {
			n, err := syscall.Read(p[0], b)
			if err == syscall.EINTR {
				continue
			}
			must(err)
			if n != 1 || b[0] != byte(i) {
				panic("wrong byte")
			}
			break
		}
		syscall.Close(p[0])
		syscall.Close(p[1])
	},
	"thread": func(int) {
		done := make(chan bool)
		go func() {
			runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
			pause(200 * time.Microsecond)
			close(done)
		}()
		<-done
	},
	"child": func(int) { must(exec.Command("/bin/true").Run()) },
	"procs": func(i int) {
		runtime.GOMAXPROCS(1 + i%5)
		pause(300 * time.Microsecond)
	},
	"gc": func(int) {
		keep := make([][]byte, 100)
		for i := range keep {
			keep[i] = make([]byte, 1000)
		}
		runtime.GC()
	},
	"sleep": func(int) { time.Sleep(100 * time.Microsecond) },
}

func main() {
	if os.Args[1] == "threads" {
		count, err := strconv.Atoi(os.Args[2])
		must(err)
		threads(count)
		return
	}
	rounds, err := strconv.Atoi(os.Args[1])
	must(err)
	var wg sync.WaitGroup
	var lock sync.Mutex
	counts := map[string]int{}
	for name, kind := range kinds {
		for range [2]int{} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 0; i < rounds; i++ {
					kind(i)
					lock.Lock()
					counts[name]++
					lock.Unlock()
				}
			}()
		}
	}
	wg.Wait()
	for name, count := range counts {
		if count != 2*rounds {
			panic(name)
		}
	}
	for _, check := range checks {
		if !check(rounds) {
			panic("a call of a thread of C is missing")
		}
	}
	fmt.Println("ok", len(counts)*2*rounds)
}
