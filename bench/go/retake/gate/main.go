// gate: what is told of threads, and what is not. A thread of its own blocks in read, ROUNDS times; each
// time the main goroutine waits until the runtime's reader has been told, and only then lets it go on.
// Then two threads wake each other by a channel, ROUNDS times: they block in a futex, without a P, and
// nobody is to hear of that.
//
// Usage: gate ROUNDS. Prints {"rounds", "told", "preempted", "parks", "told_of_parks"}: records of blocks and
// of preemptions during the reads, switches of the two threads that gave up their CPU by themselves, and
// records of blocks meanwhile.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

//go:linkname retakeNowCounts runtime.retakeNowCounts
func retakeNowCounts() [8]uint64

const told, preempted = 1, 6

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func ownSwitches() int64 {
	var usage syscall.Rusage
	const thread = 1
	must(syscall.Getrusage(thread, &usage))
	return usage.Nvcsw
}

func reads(rounds int) (blocks, pushed uint64) {
	var pipe [2]int
	must(syscall.Pipe2(pipe[:], syscall.O_CLOEXEC))
	done := make(chan bool)
	first := retakeNowCounts()
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		b := make([]byte, 1)
		for i := 0; i < rounds; i++ {
			for {
				_, err := syscall.Read(pipe[0], b)
				if err != syscall.EINTR {
					must(err)
					break
				}
			}
			done <- true
		}
	}()
	for i := 0; i < rounds; i++ {
		for {
			now := retakeNowCounts()
			if now[told]+now[preempted]-first[told]-first[preempted] > uint64(i) {
				break
			}
			runtime.Gosched()
		}
		// Not a call to the runtime, so that nothing is told of this thread.
		zero := [1]byte{}
		_, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(pipe[1]), uintptr(unsafe.Pointer(&zero)), 1)
		if errno != 0 {
			panic(errno)
		}
		<-done
	}
	last := retakeNowCounts()
	return last[told] - first[told], last[preempted] - first[preempted]
}

func parks(rounds int) (switches int64, blocks uint64) {
	ping, pong, counted := make(chan bool), make(chan bool), make(chan int64)
	before := retakeNowCounts()
	for _, side := range [2][2]chan bool{{ping, pong}, {pong, ping}} {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			begin := ownSwitches()
			for i := 0; i < rounds; i++ {
				<-side[0]
				if i < rounds-1 || side[0] == ping {
					side[1] <- true
				}
			}
			counted <- ownSwitches() - begin
		}()
	}
	ping <- true
	switches = <-counted + <-counted
	return switches, retakeNowCounts()[told] - before[told]
}

func main() {
	rounds, err := strconv.Atoi(os.Args[1])
	must(err)
	blocks, pushed := reads(rounds)
	switches, blocksOfParks := parks(rounds)
	text, err := json.Marshal(map[string]any{
		"rounds": rounds, "told": blocks, "preempted": pushed,
		"parks": switches, "told_of_parks": blocksOfParks,
	})
	must(err)
	fmt.Println(string(text))
}
