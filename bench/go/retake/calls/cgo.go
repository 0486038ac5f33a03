//go:build cgo

package main

/*
#include <time.h>
static void pause_for(long ns) { struct timespec ts = {0, ns}; while (clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &ts)) {} }
*/
import "C"

import "sync/atomic"

func init() {
	kinds["cgo"] = func(_ string, stop *atomic.Bool) (calls int) {
		for ; !stop.Load(); calls++ {
			C.pause_for(C.long(period))
		}
		return calls
	}
}
