// calls: one goroutine makes calls of a kind, over and over, and another one wants to run all the
// time. What is told is how long the other one waited whenever it gave way: that is the time for
// which a call kept its P.
//
//	fifo       read of a FIFO that another process fills every 300 µs
//	flock      flock of a file that another process holds and lets go every 300 µs
//	fsync      write of 512 bytes and fdatasync: a write-ahead log
//	warm       pread of 4 KiB that is in the page cache
//	cold       pread of 4 KiB that was thrown out of it
//	cgo        a call of C that waits in a futex for 300 µs (built with cgo only)
//	short      getppid: the price of the idea for calls that do not block
//	storm      write and read of FIFOs whose other end answers at once: each read is a switch
//	http       a server on the runtime's poller and its client, in one process
//
// Usage: calls KIND SECONDS [FOLDER]. Prints one JSON object. GOMAXPROCS decides the number of Ps.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const period = 300 * time.Microsecond

type kind func(folder string, stop *atomic.Bool) (calls int)

var kinds = map[string]kind{
	"fifo": fifo, "flock": flock, "fsync": fsync, "warm": warm, "cold": cold, "short": short,
	"storm": storm,
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// again makes a call until no signal interrupts it.
func again(call func() error) {
	for {
		if err := call(); err != syscall.EINTR {
			must(err)
			return
		}
	}
}

func partner(arguments ...string) *exec.Cmd {
	self, err := os.Executable()
	must(err)
	command := exec.Command(self, arguments...)
	command.Env = append(os.Environ(), "GODEBUG=retake=sysmon")
	command.Stderr = os.Stderr
	must(command.Start())
	return command
}

func fifo(folder string, stop *atomic.Bool) (calls int) {
	path := filepath.Join(folder, "fifo")
	must(syscall.Mkfifo(path, 0o600))
	fd, err := syscall.Open(path, syscall.O_RDWR, 0)
	must(err)
	feeder := partner("feed", path)
	defer feeder.Process.Kill()
	buffer := make([]byte, 1)
	for ; !stop.Load(); calls++ {
		again(func() error { _, err := syscall.Read(fd, buffer); return err })
	}
	return calls
}

func feed(path string) {
	fd, err := syscall.Open(path, syscall.O_RDWR, 0)
	must(err)
	for {
		time.Sleep(period)
		syscall.Write(fd, []byte{0})
	}
}

func fifos(folder string) (fds [2]int) {
	for i, name := range [2]string{"there", "back"} {
		path := filepath.Join(folder, name)
		if err := syscall.Mkfifo(path, 0o600); err != syscall.EEXIST {
			must(err)
		}
		var err error
		fds[i], err = syscall.Open(path, syscall.O_RDWR, 0)
		must(err)
	}
	return fds
}

func storm(folder string, stop *atomic.Bool) (calls int) {
	fds := fifos(folder)
	answerer := partner("answer", folder)
	defer answerer.Process.Kill()
	b := make([]byte, 1)
	for ; !stop.Load(); calls++ {
		again(func() error { _, err := syscall.Write(fds[0], b); return err })
		again(func() error { _, err := syscall.Read(fds[1], b); return err })
	}
	return calls
}

func answer(folder string) {
	fds := fifos(folder)
	b := make([]byte, 1)
	for {
		again(func() error { _, err := syscall.Read(fds[0], b); return err })
		again(func() error { _, err := syscall.Write(fds[1], b); return err })
	}
}

func flock(folder string, stop *atomic.Bool) (calls int) {
	path := filepath.Join(folder, "lock")
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT, 0o600)
	must(err)
	holder := partner("hold", path)
	defer holder.Process.Kill()
	for ; !stop.Load(); calls++ {
		again(func() error { return syscall.Flock(fd, syscall.LOCK_EX) })
		must(syscall.Flock(fd, syscall.LOCK_UN))
	}
	return calls
}

func hold(path string) {
	fd, err := syscall.Open(path, syscall.O_RDWR, 0)
	must(err)
	for {
		again(func() error { return syscall.Flock(fd, syscall.LOCK_EX) })
		time.Sleep(period)
		must(syscall.Flock(fd, syscall.LOCK_UN))
	}
}

func fsync(folder string, stop *atomic.Bool) (calls int) {
	fd, err := syscall.Open(filepath.Join(folder, "log"), syscall.O_RDWR|syscall.O_CREAT, 0o600)
	must(err)
	record := make([]byte, 512)
	for ; !stop.Load(); calls++ {
		_, err := syscall.Write(fd, record)
		must(err)
		again(func() error { return syscall.Fdatasync(fd) })
	}
	return calls
}

const fileBytes = 64 << 20

func file(folder string) int {
	fd, err := syscall.Open(filepath.Join(folder, "file"), syscall.O_RDWR|syscall.O_CREAT, 0o600)
	must(err)
	block := make([]byte, 1<<20)
	for i := 0; i < fileBytes; i += len(block) {
		_, err := syscall.Write(fd, block)
		must(err)
	}
	must(syscall.Fsync(fd))
	return fd
}

func reads(folder string, stop *atomic.Bool, forget bool) (calls int) {
	fd := file(folder)
	page := make([]byte, 4096)
	const dontNeed = 4
	for at := int64(0); !stop.Load(); calls++ {
		if forget && calls%1024 == 0 {
			syscall.Syscall6(syscall.SYS_FADVISE64, uintptr(fd), 0, 0, dontNeed, 0, 0)
		}
		again(func() error { _, err := syscall.Pread(fd, page, at); return err })
		at = (at + 7919*4096) % fileBytes
	}
	return calls
}

func warm(folder string, stop *atomic.Bool) int { return reads(folder, stop, false) }
func cold(folder string, stop *atomic.Bool) int { return reads(folder, stop, true) }

func short(_ string, stop *atomic.Bool) (calls int) {
	for ; calls%1024 != 0 || !stop.Load(); calls++ {
		syscall.Getppid()
		if calls%1024 == 0 {
			runtime.Gosched()
		}
	}
	return calls
}

// serve is a server and eight clients; the waits are the clients' answers.
func serve(seconds float64) (waits []int64, calls int) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	body := make([]byte, 1024)
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
	const clients = 8
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	told := make(chan []int64)
	end := time.Now().Add(time.Duration(seconds * 1e9))
	for range [clients]int{} {
		go func() {
			var own []int64
			for begin := time.Now(); begin.Before(end); begin = time.Now() {
				answer, err := client.Get("http://" + listener.Addr().String() + "/")
				must(err)
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				own = append(own, int64(time.Since(begin)))
			}
			told <- own
		}()
	}
	for range [clients]int{} {
		waits = append(waits, <-told...)
	}
	return waits, len(waits)
}

// beside runs one kind of calls beside a goroutine that wants to run, and gives that one's waits.
func beside(calls kind, seconds float64, folder string) (waits []int64, made int) {
	var stop atomic.Bool
	done := make(chan int)
	go func() { done <- calls(folder, &stop) }()
	waits = make([]int64, 0, 1<<20)
	for end := time.Now().Add(time.Duration(seconds * 1e9)); time.Now().Before(end); {
		for begin := time.Now(); time.Since(begin) < 20*time.Microsecond; {
		}
		begin := time.Now()
		runtime.Gosched()
		// What a call did not make it wait is no wait.
		if wait := int64(time.Since(begin)); wait > 1000 && len(waits) < cap(waits) {
			waits = append(waits, wait)
		}
	}
	stop.Store(true)
	return waits, <-done
}

func cpu() int64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func main() {
	switch os.Args[1] {
	case "feed":
		feed(os.Args[2])
	case "hold":
		hold(os.Args[2])
	case "answer":
		answer(os.Args[2])
	}
	seconds, err := strconv.ParseFloat(os.Args[2], 64)
	must(err)
	folder := "."
	if len(os.Args) > 3 {
		folder = os.Args[3]
	}
	folder, err = os.MkdirTemp(folder, "calls")
	must(err)
	defer os.RemoveAll(folder)
	begin, spent := time.Now(), cpu()
	var waits []int64
	var calls int
	if os.Args[1] == "http" {
		waits, calls = serve(seconds)
	} else {
		waits, calls = beside(kinds[os.Args[1]], seconds, folder)
	}
	slices.Sort(waits)
	at := func(share float64) int64 {
		if len(waits) == 0 {
			return -1
		}
		return waits[int(share*float64(len(waits)-1))]
	}
	took := time.Since(begin).Seconds()
	told := map[string]any{
		"p50_ns": at(0.5), "p99_ns": at(0.99), "waits": len(waits),
		"ops_per_s": float64(calls) / took, "cpu_s": float64(cpu()-spent) / 1e9,
	}
	if counts := reader(); counts != nil {
		told["reader"] = counts
	}
	text, err := json.Marshal(told)
	must(err)
	fmt.Println(string(text))
}
