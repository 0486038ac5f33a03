//go:build retake

package main

import _ "unsafe"

// What the runtime's reader did (retakeCounts in ../runtime/retake.go).
//
//go:linkname retakeNowCounts runtime.retakeNowCounts
func retakeNowCounts() [8]uint64

func reader() map[string]uint64 {
	told := map[string]uint64{}
	for i, count := range retakeNowCounts() {
		told[[8]string{"wakeups", "told", "taken", "left", "stale", "unwatched", "preempted", "ran"}[i]] = count
	}
	return told
}
