// prime: 23 reads from standard input, a byte each. Whoever feeds it waits until the read
// blocks before he writes, so there are exactly 23 blocking reads.
package main

import (
	"fmt"
	"syscall"
)

const calls = 23

func main() {
	for i := 0; i < calls; i++ {
		if n, err := syscall.Read(0, make([]byte, 1)); n != 1 {
			panic(err)
		}
	}
	fmt.Printf("calls=%d\n", calls)
}
