// How a P stands in a system call from Go 1.26: it stays _Prunning and m.p stays; only the goroutine's
// status tells. Whoever holds its scan bit keeps it in the call.
package runtime

// retakeOf takes the P of an M that has blocked in a system call, as retake does.
//
//go:nowritebarrierrec
func retakeOf(mp *m) {
	pp := mp.p.ptr()
	if pp == nil || !retakeWanted(pp) {
		if pp == nil {
			retakeNow.counts.stale++
		}
		return
	}
	incidlelocked(-1)
	thread, ok := setBlockOnExitSyscall(pp)
	switch {
	case !ok:
		retakeNow.counts.stale++
	case thread.mp != mp:
		thread.resume()
		retakeNow.counts.stale++
	default:
		thread.takeP()
		thread.resume()
		retakeNow.counts.taken++
		retakeGive(pp)
	}
	incidlelocked(1)
}

// retakeBlocked tells, for threadstate, whether the thread that is in a call with P sleeps.
//
//go:nowritebarrierrec
func retakeBlocked(pp *p) bool {
	if retakeMode() != retakeByThreadState {
		return false
	}
	mp := pp.m.ptr()
	return mp != nil && retakeSleeps(mp.procid)
}
