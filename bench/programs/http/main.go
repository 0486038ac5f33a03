// http: a server, or its load.
//
// Usage: http serve            serves on a loopback port that it tells, until it is ended.
//
//	http load ADDRESS     asks over and over on eight connections; tells every 50 ms, one line
//	                      each: begin and end (CLOCK_MONOTONIC, ns) and the answers between.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	slice       = 50 * time.Millisecond
	connections = 8
)

func main() {
	if os.Args[1] == "serve" {
		serve()
	} else {
		load("http://" + os.Args[2] + "/")
	}
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	body := make([]byte, 1024)
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(body)
	})))
}

func load(url string) {
	var answers atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	for range [connections]int{} {
		go func() {
			for {
				answer, err := client.Get(url)
				if err != nil {
					panic(err)
				}
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				answers.Add(1)
			}
		}()
	}
	for begin, before := now(), int64(0); ; {
		time.Sleep(slice)
		end, count := now(), answers.Load()
		fmt.Println(begin, end, count-before)
		begin, before = end, count
	}
}

func now() int64 {
	var t syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}
