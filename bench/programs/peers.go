// The same measurements as in bench/peers.py, by Go: switch, spawn, ping_pong, in ns.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

const (
	tasks  = 100
	turns  = 20000
	spawns = 100000
	pings  = 200000
)

func each(count int, body func()) float64 {
	var done sync.WaitGroup
	begin := time.Now()
	for i := 0; i < count; i++ {
		done.Add(1)
		go func() {
			body()
			done.Done()
		}()
	}
	done.Wait()
	return float64(time.Since(begin).Nanoseconds())
}

func pingPong() float64 {
	there, back := make(chan int), make(chan int)
	go func() {
		for value := range there {
			back <- value
		}
	}()
	begin := time.Now()
	for i := 0; i < pings; i++ {
		there <- i
		<-back
	}
	close(there)
	return float64(time.Since(begin).Nanoseconds()) / pings
}

func main() {
	runtime.GOMAXPROCS(1)
	switch os.Args[1] {
	case "switch":
		fmt.Println(each(tasks, func() {
			for i := 0; i < turns; i++ {
				runtime.Gosched()
			}
		}) / (tasks * turns))
	case "spawn":
		fmt.Println(each(spawns, func() {}) / spawns)
	case "ping_pong":
		fmt.Println(pingPong())
	}
}
