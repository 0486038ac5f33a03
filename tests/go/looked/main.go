// looked: blocks in calls after it looked at its own scheduler, with numbers that all differ. It is
// built with a file of its own in package runtime (tests/go/looking.py), so what it tells, one line of
// JSON for each call, was read by the compiler's own offsets.
//
// In its first calls no P is idle, and goroutines wait in the local queue and in the global one, often 171
// and 129. In the next ones, the first of which is on another P than the last was, two of four Ps are
// idle and nothing waits, in queues that are full of what waited before; the last of these is a raw call,
// which the scheduler does not know of.
// Then one P, and a write that blocks
// until another goroutine reads some: that one needs the P, so it is taken from the write at its first
// block, and at all others the write has none.
//
// Usage: looked COUNT.
package main

import (
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"pretake.test/timer"
)

const noP = -1

var (
	busy    int32 // how many goroutines shall keep a P busy
	started int32
)

func spin(number int32) {
	atomic.AddInt32(&started, 1)
	for number < atomic.LoadInt32(&busy) {
	}
}

// slept tells of this thread how often it has given its CPU away.
func slept() (tid int, times int64) {
	const thisThread = 1
	var used syscall.Rusage
	syscall.RawSyscall(syscall.SYS_GETRUSAGE, thisThread, uintptr(unsafe.Pointer(&used)), 0)
	return syscall.Gettid(), used.Nvcsw
}

// look waits until as many Ps are idle and no M looks for work, on another P than avoid, and blocks.
// Where the machine is so busy that the call has nothing to wait for by the time that it is made, it
// begins again. It tells which P it was.
func look(block func(), idle, avoid int64, out *json.Encoder) int64 {
	var seen [8]int64
	for blocked := false; !blocked; {
		wait(&seen, idle, avoid)
		runtime.Pretend(5)
		runtime.Look(&seen)
		tid, times := slept()
		block()
		after, more := slept()
		// One that has another thread now lost its P in the call.
		blocked = after != tid || more != times
		runtime.Pretend(-5)
	}
	out.Encode(seen)
	return seen[0]
}

func wait(seen *[8]int64, idle, avoid int64) {
	for filled := int64(-1); ; runtime.Look(seen) {
		if filled != seen[0] { // another P, or none yet
			runtime.Look(seen)
			filled = seen[0]
			for i := 0; i < 300; i++ {
				go nothing()
			}
		} else if idle > 0 && seen[4]+seen[7] > 0 {
			runtime.Gosched() // those that idle Ps did not take
		} else if idle == 0 && seen[4]*seen[7] == 0 {
			filled = -1
		} else if seen[0] == avoid {
			filled = -1 // one of the idle Ps takes this goroutine sooner or later, where it yields
		} else if seen[5] == idle && seen[6] == 0 {
			return
		}
	}
}

func nothing() {}

func main() {
	runtime.LockOSThread() // so that who looks is another M than the first
	debug.SetGCPercent(-1)
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	runtime.GOMAXPROCS(4)
	done := make(chan bool)
	go func() {
		out, slow := json.NewEncoder(os.Stdout), timer.New()
		atomic.StoreInt32(&busy, 3)
		for i := int32(0); i < 3; i++ {
			go spin(i)
		}
		// Not by runtime.Gosched alone: up to Go 1.21 it wakes no M for who yields. On a busy machine
		// a spin then stays in the queue of a P that spins, or this goroutine in the global one, and
		// an idle P beside it. A new goroutine has an M look for work.
		for atomic.LoadInt32(&started) < 3 {
			go nothing()
			for i := 0; i < 100000 && atomic.LoadInt32(&started) < 3; i++ {
			}
		}
		p := int64(noP)
		for i := 0; i < count; i++ {
			p = look(slow.Block, 0, noP, out)
		}
		atomic.StoreInt32(&busy, 1)
		for i := 0; i < count; i++ {
			look(slow.Block, 2, p, out)
			p = noP
		}
		look(slow.RawBlock, 2, noP, out)
		atomic.StoreInt32(&busy, 0)
		close(done)
	}()
	<-done

	runtime.GOMAXPROCS(1)
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		panic(err)
	}
	const size = 1 << 20
	go func() {
		slow, some := timer.New(), make([]byte, 1<<16)
		for read := 0; read < size; {
			slow.Block()
			n, _ := syscall.Read(pipe[0], some)
			read += n
		}
	}()
	if n, err := syscall.Write(pipe[1], make([]byte, size)); n != size || err != nil {
		panic(err)
	}
}
