// How a P stands in a system call to Go 1.25: its status is _Psyscall, m.p is nil and m.oldp is the P.
package runtime

import "internal/runtime/atomic"

// retakeOf takes the P of an M that has blocked in a system call, as retake does.
//
//go:nowritebarrierrec
func retakeOf(mp *m) {
	pp := mp.oldp.ptr()
	if pp == nil || atomic.Load(&pp.status) != _Psyscall || pp.syscalltick != mp.syscalltick {
		retakeNow.counts.stale++
		return
	}
	if !retakeWanted(pp) {
		return
	}
	incidlelocked(-1)
	trace := traceAcquire()
	if atomic.Cas(&pp.status, _Psyscall, _Pidle) {
		if trace.ok() {
			trace.ProcSteal(pp, false)
			traceRelease(trace)
		}
		retakeNow.counts.taken++
		pp.syscalltick++
		retakeGive(pp)
	} else {
		if trace.ok() {
			traceRelease(trace)
		}
		retakeNow.counts.stale++
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
	for mp := allm; mp != nil; mp = mp.alllink {
		if mp.oldp.ptr() == pp && mp.syscalltick == pp.syscalltick {
			return retakeSleeps(mp.procid)
		}
	}
	return false
}
