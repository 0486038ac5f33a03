// handoff: gives P away before the call, by entersyscallblock (which the runtime itself uses for
// nothing but notetsleepg), and does a raw call, which no scheduler is told of.
//
// Usage: handoff COUNT. Blocks COUNT times in each of the two ways, 20 ms long: a call that is so long
// on its way to its block does not block.
package main

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

var nap = syscall.NsecToTimespec(20e6)

//go:nosplit
func sleepHandedOff() {
	entersyscallblock()
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
	exitsyscall()
}

//go:nosplit
func sleepRaw() {
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
}

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	for i := 0; i < count; i++ {
		sleepHandedOff()
		sleepRaw()
	}
}
