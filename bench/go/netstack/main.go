// netstack: the pattern of a network stack in user space, over loopback. Each of two stacks has a
// dispatcher, a goroutine that polls a socket until a packet comes and then wakes the goroutine
// that waits for it. One side asks, the other answers: a round trip has four goroutine switches
// and two blocking polls. How the poll is made is what is compared:
//
//	normal  entersyscall: the dispatcher keeps its P until sysmon takes it
//	block   entersyscallblock: it gives its P away before it polls
//	raw     no hooks: it keeps its P for as long as it polls, here 1 ms at most, since with few
//	        Ps nobody might be left to send what it waits for
//
// Usage: netstack HOW COUNT [BUSY]. Does COUNT round trips, beside BUSY goroutines that compute,
// and leaves its figures in the file that PRETAKE_RESULT names.
package main

import (
	"encoding/json"
	"os"
	"runtime"
	"sort"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

const pollIn = 1

type pollFd struct {
	fd      int32
	events  int16
	revents int16
}

func pollNormal(p *pollFd, _ *syscall.Timespec) {
	syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(p)), 1, 0, 0, 0, 0)
}

//go:nosplit
func pollBlock(p *pollFd, _ *syscall.Timespec) {
	entersyscallblock()
	syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(p)), 1, 0, 0, 0, 0)
	exitsyscall()
}

func pollRaw(p *pollFd, limit *syscall.Timespec) {
	*limit = syscall.NsecToTimespec(1e6) // the kernel writes back what is left
	syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(p)), 1,
		uintptr(unsafe.Pointer(limit)), 0, 0, 0)
	runtime.Gosched()
}

var polls = map[string]func(*pollFd, *syscall.Timespec){
	"normal": pollNormal, "block": pollBlock, "raw": pollRaw,
}

// stack is one side: a socket, and the packets that its dispatcher found there.
type stack struct {
	fd      int
	packets chan byte
}

func (s *stack) dispatch(poll func(*pollFd, *syscall.Timespec)) {
	var packet [1]byte
	var limit syscall.Timespec
	wanted := pollFd{fd: int32(s.fd), events: pollIn}
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(s.fd),
			uintptr(unsafe.Pointer(&packet)), 1, syscall.MSG_DONTWAIT, 0, 0)
		if errno == 0 && n == 1 {
			s.packets <- packet[0]
			continue
		}
		poll(&wanted, &limit)
	}
}

func (s *stack) send(packet byte) {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(s.fd),
		uintptr(unsafe.Pointer(&packet)), 1, 0, 0, 0)
	check(errno)
}

func check(errno syscall.Errno) {
	if errno != 0 {
		panic(errno)
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// pair is two UDP sockets on loopback, each connected to the other.
func pair() (*stack, *stack) {
	var stacks [2]*stack
	var names [2]syscall.Sockaddr
	for i := range stacks {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
		must(err)
		must(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		names[i], err = syscall.Getsockname(fd)
		must(err)
		stacks[i] = &stack{fd, make(chan byte)}
	}
	must(syscall.Connect(stacks[0].fd, names[1]))
	must(syscall.Connect(stacks[1].fd, names[0]))
	return stacks[0], stacks[1]
}

func main() {
	poll := polls[os.Args[1]]
	count, err := strconv.Atoi(os.Args[2])
	must(err)
	if len(os.Args) > 3 {
		busy, err := strconv.Atoi(os.Args[3])
		must(err)
		for i := 0; i < busy; i++ {
			go func() {
				for {
					for begin := time.Now(); time.Since(begin) < 20*time.Microsecond; {
					}
					runtime.Gosched()
				}
			}()
		}
	}
	asks, answers := pair()
	go asks.dispatch(poll)
	go answers.dispatch(poll)
	go func() {
		for packet := range answers.packets {
			answers.send(packet)
		}
	}()
	took := make([]int, count)
	for i := range took {
		begin := time.Now()
		asks.send(byte(i))
		<-asks.packets
		took[i] = int(time.Since(begin))
	}
	sort.Ints(took)
	told, err := json.Marshal(map[string]int{
		"round_trips": count,
		"p50_ns":      took[count/2],
		"p90_ns":      took[count*9/10],
		"p99_ns":      took[count*99/100],
	})
	must(err)
	must(os.WriteFile(os.Getenv("PRETAKE_RESULT"), told, 0o644))
}
