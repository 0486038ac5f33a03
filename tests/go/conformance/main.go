// conformance: small programs that exist twice, here and in tests/unit/runtime/scenes.py. Each tells
// the order in which its goroutines did things on one P. Each is run many times, since a thread that
// loses its CPU for long is asked to stop, and then another order comes about.
//
// Usage: conformance ROUNDS. It prints one JSON object: for each program its orders, one a round.
package main

import (
	"encoding/json"
	"os"
	"runtime"
	"strconv"
	"sync"
)

type log struct{ told []string }

func (l *log) tell(word string, number int) { l.told = append(l.told, word+strconv.Itoa(number)) }

// startOrder: which of those that were started runs first.
func startOrder(l *log) {
	var done sync.WaitGroup
	done.Add(5)
	for i := 1; i <= 5; i++ {
		go func(i int) { l.tell("run ", i); done.Done() }(i)
	}
	done.Wait()
}

// gosched: who runs after a goroutine has let others run.
func gosched(l *log) {
	var done sync.WaitGroup
	done.Add(3)
	for i := 1; i <= 3; i++ {
		go func(i int) {
			for turn := 0; turn < 3; turn++ {
				l.tell("turn ", i)
				runtime.Gosched()
			}
			done.Done()
		}(i)
	}
	done.Wait()
}

// closed: in which order those wake that waited for a channel.
func closed(l *log) {
	ready, gone := make(chan int), make(chan bool)
	var done sync.WaitGroup
	done.Add(4)
	for i := 1; i <= 4; i++ {
		go func(i int) { ready <- i; <-gone; l.tell("woke ", i); done.Done() }(i)
	}
	for i := 1; i <= 4; i++ {
		l.tell("ready ", <-ready)
	}
	close(gone)
	done.Wait()
}

// pingPong: who runs when a value is handed over without a buffer.
func pingPong(l *log) {
	values := make(chan int)
	go func() {
		for i := 1; i <= 5; i++ {
			l.tell("send ", i)
			values <- i
		}
		close(values)
	}()
	for value := range values {
		l.tell("recv ", value)
	}
}

// buffered: the same with room for two.
func buffered(l *log) {
	values := make(chan int, 2)
	go func() {
		for i := 1; i <= 6; i++ {
			l.tell("send ", i)
			values <- i
		}
		close(values)
	}()
	for value := range values {
		l.tell("recv ", value)
	}
}

// family: each starts two more, down to the third generation.
func family(l *log) {
	var done sync.WaitGroup
	var born func(name int)
	born = func(name int) {
		l.tell("born ", name)
		if name < 100 {
			done.Add(2)
			go born(10*name + 1)
			go born(10*name + 2)
		}
		done.Done()
	}
	done.Add(1)
	go born(1)
	done.Wait()
}

// waiters: in which order a wait group's waiters wake, and that the last who is done runs on.
func waiters(l *log) {
	var work, done sync.WaitGroup
	there := make(chan bool)
	work.Add(1)
	done.Add(3)
	for i := 1; i <= 3; i++ {
		go func(i int) { there <- true; work.Wait(); l.tell("woke ", i); done.Done() }(i)
	}
	for i := 1; i <= 3; i++ {
		<-there
	}
	runtime.Gosched() // each waits by now
	l.tell("done ", 0)
	work.Done()
	l.tell("went on ", 0)
	done.Wait()
}

// gather: answers that are gathered: a worker for each question, all on one channel.
func gather(l *log) {
	answers := make(chan int)
	for i := 1; i <= 4; i++ {
		go func(i int) { l.tell("work ", i); answers <- i; l.tell("told ", i) }(i)
	}
	for i := 1; i <= 4; i++ {
		l.tell("answer ", <-answers)
	}
	runtime.Gosched()
}

// locked: who has the mutex when it is given up by one who wants it again at once.
func locked(l *log) {
	var mutex sync.Mutex
	var done sync.WaitGroup
	done.Add(1)
	mutex.Lock()
	go func() { mutex.Lock(); l.tell("got ", 2); mutex.Unlock(); done.Done() }()
	runtime.Gosched() // it waits by now
	mutex.Unlock()
	mutex.Lock()
	l.tell("got ", 1)
	mutex.Unlock()
	done.Wait()
}

func main() {
	rounds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	runtime.GOMAXPROCS(1)
	programs := map[string]func(*log){
		"start_order": startOrder, "gosched": gosched, "closed": closed, "ping_pong": pingPong,
		"buffered": buffered, "family": family, "waiters": waiters, "gather": gather,
		"locked": locked,
	}
	told := map[string][][]string{}
	for name, program := range programs {
		for round := 0; round < rounds; round++ {
			l := &log{}
			program(l)
			told[name] = append(told[name], l.told)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		panic(err)
	}
}
