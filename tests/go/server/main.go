// server: an HTTP server whose handler blocks in a system call, as one that reads files does;
// and a load for it.
//
// Usage: server serve          tells the port that it serves on, and serves until it is ended:
//
//	                      /echo?n=N blocks for 1 ms in read and answers N, /count answers how often
//	server load PORT      asks for ever on eight connections, and ends if an answer is wrong
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pretake.test/timer"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// timers stand for a file on a slow disk.
var timers = sync.Pool{New: func() any { return timer.New() }}

//go:noinline
func readSlowly(slow timer.Timer) {
	slow.Set(time.Millisecond)
	for {
		n, err := syscall.Read(int(slow), make([]byte, 8))
		if n == 8 {
			return
		}
		if err != syscall.EINTR {
			panic(err)
		}
	}
}

var count int64

func echo(w http.ResponseWriter, r *http.Request) {
	slow := timers.Get().(timer.Timer)
	readSlowly(slow)
	timers.Put(slow)
	atomic.AddInt64(&count, 1)
	io.WriteString(w, r.URL.Query().Get("n"))
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	http.HandleFunc("/echo", echo)
	http.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, atomic.LoadInt64(&count))
	})
	must(http.Serve(listener, nil))
}

func load(port string) {
	const connections = 8
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	for i := 0; i < connections; i++ {
		go func() {
			for n := 0; ; n++ {
				answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%s/echo?n=%d", port, n))
				must(err)
				body, err := io.ReadAll(answer.Body)
				must(err)
				must(answer.Body.Close())
				if string(body) != fmt.Sprint(n) {
					panic(string(body))
				}
			}
		}()
	}
	select {}
}

func main() {
	if os.Args[1] == "serve" {
		serve()
	} else {
		load(os.Args[2])
	}
}
