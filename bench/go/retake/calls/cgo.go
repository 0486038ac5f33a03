//go:build cgo

package main

/*
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
// Nobody wakes it: it waits for as long as it may.
static void wait_for(long ns) {
	unsigned word = 0;
	struct timespec ts = {0, ns};
	syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &ts, 0, 0);
}
*/
import "C"

import "sync/atomic"

func init() {
	kinds["cgo"] = func(_ string, stop *atomic.Bool) (calls int) {
		for ; !stop.Load(); calls++ {
			C.wait_for(C.long(period))
		}
		return calls
	}
}
