// The plugin: it blocks.
package main

import "syscall"

//go:noinline
func Block() {
	wanted := syscall.NsecToTimespec(2e6)
	syscall.Nanosleep(&wanted, &wanted)
}
