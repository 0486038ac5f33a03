// spawn: runs a program, and is told by its return that it did. Go makes a child that shares its memory
// until the exec (CLONE_VFORK|CLONE_VM), so the child of a slow exec has the parent's M in its
// thread-local storage.
//
// Usage: spawn PROGRAM.
package main

import (
	"os"
	"os/exec"
)

func main() {
	if err := exec.Command(os.Args[1]).Run(); err != nil {
		panic(err)
	}
}
