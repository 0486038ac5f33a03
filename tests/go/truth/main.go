// truth: situations in which P time is lost, each with the program's own clock as the witness.
//
// Usage: truth CASE FILE. FILE gets a line for each thing that the program knows: "wait BEGIN END"
// (a goroutine was ready and did not run), "call BEGIN END" (a call, or a stop, took so long), or a
// figure. Times are of CLOCK_MONOTONIC, as pretake's are.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"pretake.test/timer"
)

type span struct{ begin, end int64 }

// Only one P's goroutines write a list at a time, or they hold mu.
var (
	mu           sync.Mutex
	waits, calls []span
	figures      = map[string]int64{}
	timeOfStart  = now()
	stop         atomic.Bool
)

func clock(which uintptr) int64 {
	var ts syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, which, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}

func now() int64 { return clock(1) }

func add(list *[]span, begin, end int64) {
	mu.Lock()
	*list = append(*list, span{begin, end})
	mu.Unlock()
}

func compute(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

// yield lets others run: then this one waits.
func yield() {
	begin := now()
	runtime.Gosched()
	add(&waits, begin, now())
}

// yields runs for a while, over and over, and lets others run in between; it is ready since then.
func yields(ready int64, d time.Duration, times int) {
	add(&waits, ready, now())
	for i := 0; i < times && !stop.Load(); i++ {
		compute(d)
		yield()
	}
}

// call does something that takes a while, and tells so.
func call(do func()) {
	begin := now()
	do()
	add(&calls, begin, now())
}

// otherQueue: one goroutine blocks in read; what is ready lies in the queue of the other P.
func otherQueue() {
	runtime.GOMAXPROCS(2)
	t := timer.New()
	var reader sync.WaitGroup
	reader.Add(1)
	go func() {
		defer reader.Done()
		for !stop.Load() {
			call(t.Block)
		}
	}()
	for round := 0; round < 60; round++ {
		var all sync.WaitGroup
		for i := 0; i < 20; i++ {
			all.Add(1)
			ready := now()
			go func() {
				add(&waits, ready, now())
				compute(200 * time.Microsecond)
				all.Done()
			}()
		}
		all.Wait()
	}
	stop.Store(true)
	reader.Wait()
}

// dueTimers: the only P is held in read while timers are due.
func dueTimers() {
	runtime.GOMAXPROCS(1)
	var all sync.WaitGroup
	for i := 0; i < 4; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for !stop.Load() {
				due := now() + int64(time.Millisecond)
				time.Sleep(time.Millisecond)
				add(&waits, due, now())
			}
		}()
	}
	t := timer.New()
	for i := 0; i < 150; i++ {
		call(t.RawBlock)
		yield()
	}
	stop.Store(true)
	all.Wait()
}

// lateWork: main blocks while the other P is idle; 3 ms later there is work for more than both.
func lateWork() {
	runtime.GOMAXPROCS(2)
	t := timer.New()
	for i := 0; i < 8; i++ {
		var all sync.WaitGroup
		all.Add(3)
		time.AfterFunc(3*time.Millisecond, func() {
			for j := 0; j < 3; j++ {
				ready := now()
				go func() {
					defer all.Done()
					yields(ready, time.Millisecond, 25)
				}()
			}
		})
		t.Set(60 * time.Millisecond)
		call(func() {
			var expired [8]byte
			syscall.RawSyscall(syscall.SYS_READ, uintptr(t), uintptr(unsafe.Pointer(&expired)), 8)
		})
		all.Wait()
	}
}

// readers: eight Ps, eight goroutines that keep theirs in raw reads, and two that want to run.
func readers(procs, number int) {
	runtime.GOMAXPROCS(procs)
	var all sync.WaitGroup
	for i := 0; i < number; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			t := timer.New()
			for j := 0; j < 60; j++ {
				call(t.RawBlock)
				yield()
			}
		}()
	}
	var others sync.WaitGroup
	for i := 0; i < 2; i++ {
		others.Add(1)
		ready := now()
		go func() {
			defer others.Done()
			yields(ready, 300*time.Microsecond, 1<<30)
		}()
	}
	all.Wait()
	stop.Store(true)
	others.Wait()
}

// withoutCPU: one goroutine computes until it has had so much of a CPU.
func withoutCPU() {
	const threadCPU = 3
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	begin, cpu := now(), clock(threadCPU)
	for clock(threadCPU)-cpu < 150_000_000 {
		compute(100 * time.Microsecond)
	}
	figures["without_cpu"] = now() - begin - (clock(threadCPU) - cpu)
	figures["wall"] = now() - begin
}

// stopped: somebody stops the program, and lets it go on: the script in STOPS, which gets its pid.
func stopped() {
	runtime.GOMAXPROCS(1)
	who := exec.Command("sh", "-c", os.Getenv("STOPS"), "sh", fmt.Sprint(os.Getpid()))
	if err := who.Start(); err != nil {
		panic(err)
	}
	for last := now(); figures["gap"] < 500_000_000; {
		at := now()
		if at-last > figures["gap"] {
			figures["gap"] = at - last
		}
		last = at
	}
	if err := who.Wait(); err != nil {
		panic(err)
	}
}

// longCalls: reads that are long and do not block: sysmon takes the P of each, all the same.
func longCalls() {
	runtime.GOMAXPROCS(1)
	var ran atomic.Int64
	go func() {
		for !stop.Load() {
			ran.Add(1)
			runtime.Gosched()
		}
	}()
	fd, err := syscall.Open("/dev/zero", syscall.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	memory := make([]byte, 256<<20)
	syscall.Read(fd, memory)
	for i := 0; i < 15; i++ {
		before := ran.Load()
		syscall.Read(fd, memory)
		if ran.Load() != before {
			figures["taken"]++
		}
		runtime.Gosched()
	}
	stop.Store(true)
}

// stops: the world is to stop, and waits for a goroutine that cannot be preempted.
func stops(hold func()) {
	runtime.GOMAXPROCS(2)
	// ReadMemStats would also wait for the collector while that runs beside the program.
	debug.SetGCPercent(-1)
	done := make(chan bool)
	go func() {
		for !stop.Load() {
			hold()
		}
		done <- true
	}()
	var stats runtime.MemStats
	for i := 0; i < 8; i++ {
		time.Sleep(7 * time.Millisecond)
		call(func() { runtime.ReadMemStats(&stats) })
	}
	stop.Store(true)
	<-done
}

// clears gives what clears 128 MiB, in one piece: long beside what a stop takes besides.
func clears() func() {
	memory := make([]byte, 128<<20)
	return func() {
		for i := range memory {
			memory[i] = 0
		}
	}
}

// rawReads gives what blocks in a call that the runtime is not told of: it cannot take P from it.
func rawReads() func() {
	t := timer.New()
	return func() {
		t.Set(20 * time.Millisecond)
		var expired [8]byte
		syscall.RawSyscall(syscall.SYS_READ, uintptr(t), uintptr(unsafe.Pointer(&expired)), 8)
	}
}

// takebacks: returning threads take Ps from each other's calls.
func takebacks() {
	runtime.GOMAXPROCS(2)
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			t := timer.New()
			for j := 0; j < 60; j++ {
				call(t.Block)
				compute(200 * time.Microsecond)
			}
		}()
	}
	all.Wait()
}

// procs: GOMAXPROCS changes while the program runs. When in a change nobody knows but the runtime, and a
// thread may lose its CPU on either side of it.
func procs() {
	runtime.GOMAXPROCS(1)
	last, procs := now(), 1
	for _, n := range []int{4, 2, 200, 1, 600, 3} {
		begin := now()
		runtime.GOMAXPROCS(n)
		end := now()
		least, most := procs, n
		if n < procs {
			least, most = n, procs
		}
		figures["least_p_ns"] += int64(procs)*(begin-last) + int64(least)*(end-begin)
		figures["most_p_ns"] += int64(procs)*(begin-last) + int64(most)*(end-begin)
		last, procs = end, n
		compute(60 * time.Millisecond)
	}
	end := now()
	figures["least_p_ns"] += int64(procs) * (end - last)
	figures["most_p_ns"] += int64(procs) * (end - last)
}

// fewerProcs: of two Ps one stays, and goes to Ms that may have had the other.
func fewerProcs() {
	runtime.GOMAXPROCS(2)
	for i := 0; i < 2; i++ {
		go func() {
			for !stop.Load() {
				runtime.Gosched()
			}
		}()
	}
	compute(20 * time.Millisecond)
	begin := now()
	runtime.GOMAXPROCS(1)
	end := now()
	t := timer.New()
	for i := 0; i < 150; i++ {
		call(t.Block)
		runtime.Gosched()
	}
	stop.Store(true)
	last := now()
	figures["least_p_ns"] = last - begin
	figures["most_p_ns"] = last - end + 2*(end-timeOfStart)
}

// child: the program that matters is started by another, and later.
func child() {
	if len(os.Args) == 3 {
		time.Sleep(200 * time.Millisecond)
		begin := now()
		inner := exec.Command(os.Args[0], "child", os.Args[2]+".inner", "inner")
		inner.Env = []string{"GOMAXPROCS=2"}
		if err := inner.Run(); err != nil {
			panic(err)
		}
		figures["most_p_ns"], figures["inner"] = 2*(now()-begin), int64(inner.Process.Pid)
		time.Sleep(200 * time.Millisecond)
		return
	}
	begin := now()
	readers(2, 2)
	figures["p_ns"] = 2 * (now() - begin)
}

// stalls: with one P, how long nobody runs after a goroutine began to block.
func stalls() {
	runtime.GOMAXPROCS(1)
	var blocks atomic.Int64
	var over sync.WaitGroup
	over.Add(1)
	go func() {
		defer over.Done()
		for !stop.Load() {
			if begin := blocks.Swap(0); begin != 0 {
				add(&waits, begin, now())
			}
			runtime.Gosched()
		}
	}()
	t := timer.New()
	for i := 0; i < 150; i++ {
		blocks.Store(now())
		t.Block()
		compute(time.Millisecond)
	}
	stop.Store(true)
	over.Wait()
}

func main() {
	cases := map[string]func(){
		"other-queue": otherQueue, "due-timers": dueTimers, "late-work": lateWork,
		"eight-ps": func() { readers(8, 8) }, "one-p": func() { readers(1, 1) },
		"without-cpu": withoutCPU, "stopped": stopped, "long-calls": longCalls, "stops": func() { stops(clears()) },
		"raw-stops": func() { stops(rawReads()) },
		"takebacks": takebacks, "procs": procs, "fewer-procs": fewerProcs, "child": child, "stalls": stalls,
	}
	cases[os.Args[1]]()
	told, err := os.Create(os.Args[2])
	if err != nil {
		panic(err)
	}
	for _, s := range waits {
		fmt.Fprintln(told, "wait", s.begin, s.end)
	}
	for _, s := range calls {
		fmt.Fprintln(told, "call", s.begin, s.end)
	}
	for name, value := range figures {
		fmt.Fprintln(told, name, value)
	}
	told.Close()
}
