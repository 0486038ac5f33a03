//go:build cgo

package main

/*
#include <pthread.h>
extern void called(int);
static void *run(void *n) { for (int i = 0; i < 20; i++) called((int)(long)n); return 0; }
static int threads_of_c(int count) {
	pthread_t t[16];
	for (int i = 0; i < count; i++)
		if (pthread_create(&t[i], 0, run, (void *)(long)i)) return 1;
	for (int i = 0; i < count; i++)
		pthread_join(t[i], 0);
	return 0;
}
*/
import "C"

import (
	"sync/atomic"
	"time"
)

var calls atomic.Int64

//export called
func called(C.int) {
	pause(50 * time.Microsecond)
	calls.Add(1)
}

func init() {
	// Threads of C that come into Go, block there, and end.
	kinds["cgo"] = func(int) {
		if C.threads_of_c(4) != 0 {
			panic("pthread_create")
		}
	}
	checks = append(checks, func(rounds int) bool { return calls.Load() == int64(2*rounds*4*20) })
}
