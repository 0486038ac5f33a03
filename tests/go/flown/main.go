// flown: blocks in read like blockread, beside work, and serves the window of the runtime's own flight
// recorder (Go 1.25 and later).
//
// Usage: flown. Tells the port that it serves on. /flight gives the window, /hang never answers, /endless
// never ends.
package main

import (
	"fmt"
	"net"
	"net/http"
	"runtime"
	"runtime/trace"
	"time"

	"pretake.test/timer"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	recorder := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: 10 * time.Second})
	must(recorder.Start())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	slow := timer.New()
	go func() {
		for {
			for begin := time.Now(); time.Since(begin) < 50*time.Microsecond; {
			}
			runtime.Gosched()
		}
	}()
	go func() {
		for {
			slow.Block()
		}
	}()
	http.HandleFunc("/flight", func(w http.ResponseWriter, r *http.Request) {
		_, err := recorder.WriteTo(w)
		must(err)
	})
	http.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	})
	http.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	must(http.Serve(listener, nil))
}
