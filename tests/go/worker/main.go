// worker: has a thread of the kernel's (io_uring) read from an empty pipe, tells so, and when it gets a
// line has it read once more.
package main

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"
)

const (
	setup, enter     = 425, 426 // system calls
	read, async      = 22, 1 << 4
	queued           = 0x10000000 // IORING_OFF_SQES
	tail, mask, list = 11, 12, 16 // of the numbers that the kernel fills in: sq_off
)

type ring struct {
	fd      uintptr
	numbers [30]uint32
	sq      []byte
	sqes    []byte
}

func open() *ring {
	r := &ring{}
	fd, _, errno := syscall.Syscall(setup, 8, uintptr(unsafe.Pointer(&r.numbers)), 0)
	if errno != 0 {
		panic(errno)
	}
	r.fd = fd
	var err error
	if r.sq, err = syscall.Mmap(int(fd), 0, int(r.numbers[list])+8*4, 3, syscall.MAP_SHARED); err != nil {
		panic(err)
	}
	if r.sqes, err = syscall.Mmap(int(fd), queued, 8*64, 3, syscall.MAP_SHARED); err != nil {
		panic(err)
	}
	return r
}

// ask has the kernel's thread read 8 bytes.
func (r *ring) ask(from int, into *[8]byte) {
	at := (*uint32)(unsafe.Pointer(&r.sq[r.numbers[10+1]]))
	place := *at & 7
	s := r.sqes[place*64:]
	s[0], s[1] = read, async
	*(*int32)(unsafe.Pointer(&s[4])) = int32(from)
	*(*unsafe.Pointer)(unsafe.Pointer(&s[16])) = unsafe.Pointer(into)
	*(*uint32)(unsafe.Pointer(&s[24])) = 8
	*(*uint32)(unsafe.Pointer(&r.sq[r.numbers[list]+place*4])) = place
	atomic.AddUint32(at, 1)
	if _, _, errno := syscall.Syscall6(enter, r.fd, 1, 0, 0, 0, 0); errno != 0 {
		panic(errno)
	}
}

func main() {
	r := open()
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		panic(err)
	}
	var into [8]byte
	r.ask(pipe[0], &into)
	fmt.Println("asked")
	for line := ""; ; {
		if _, err := fmt.Scanln(&line); err != nil {
			return
		}
		syscall.Write(pipe[1], into[:])
		r.ask(pipe[0], &into)
		fmt.Println("asked")
	}
}
