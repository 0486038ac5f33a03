// faults: a goroutine touches pages that are not there, one after the other, and blocks at each
// until another one has them made (userfaultfd). With GOMAXPROCS=1 it has the only P all that time.
//
// Usage: faults PAGES. Says where the pages are.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	sysUserfaultfd = 323
	closeOnExec    = 0x80000
	api            = 0xc018aa3f // UFFDIO_API
	register       = 0xc020aa00 // UFFDIO_REGISTER
	zeroPage       = 0xc020aa04 // UFFDIO_ZEROPAGE
	page           = 4096
)

func must(value uintptr, errno syscall.Errno) uintptr {
	if errno != 0 {
		panic(errno)
	}
	return value
}

func ioctl(fd, request uintptr, argument *[4]uint64) {
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(argument)))
	must(0, errno)
}

//go:noinline
func touch(memory []byte) byte {
	return memory[0]
}

func main() {
	pages, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	memory, err := syscall.Mmap(-1, 0, pages*page, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		panic(err)
	}
	fd, _, errno := syscall.RawSyscall(sysUserfaultfd, closeOnExec, 0, 0)
	must(fd, errno)
	ioctl(fd, api, &[4]uint64{0xaa})
	base := uint64(uintptr(unsafe.Pointer(&memory[0])))
	ioctl(fd, register, &[4]uint64{base, uint64(pages * page), 1})
	go func() {
		message := make([]byte, 32)
		for i := 0; i < pages; i++ {
			if _, err := syscall.Read(int(fd), message); err != nil {
				panic(err)
			}
			time.Sleep(2 * time.Millisecond)
			at := *(*uint64)(unsafe.Pointer(&message[16])) &^ (page - 1)
			ioctl(fd, zeroPage, &[4]uint64{at, page})
		}
	}()
	for i := 0; i < pages; i++ {
		touch(memory[i*page:])
	}
	fmt.Printf("base=%d\n", base)
}
