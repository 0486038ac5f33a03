// The thread that is told of a block runs the P itself: GODEBUG=retake=schedrun.
//
// Under schedout two threads wake one after the other: the reader, and the M that it hands P to. Here
// an M that has nothing to do does not park: it stands at the readers' epoll. The one that is told takes
// the P and goes on with it, as if it had been parked and given that P. One M stands at a time; the
// reader, which never runs a P, has what is told while none does.
//
//	M1      blocks ································ returns, finds no P, stands
//	kernel      └ wakes the M that stands
//	M2               epoll_wait returns ─ takes P ─ schedule
//
// # Who is told
//
// The kernel wakes the thread that came to the epoll last. So the M that stands has to come after the
// reader: a reader that comes back while an M stands sleeps until that one is told, and is woken by it.
//
//	retakeStanding.stands   1 while an M stands: by compare-and-swap by the M, 0 by the same M as it leaves
//	retakeStanding.waits    1 while the reader sleeps on its note: 1 by the reader, 0 by who wakes it
//
// To checkdead an M that stands is a thread of the runtime's own, as the reader is. It is an M again
// from the moment at which it has a P.
package runtime

import "internal/runtime/atomic"

var retakeStanding struct {
	stands atomic.Uint32
	waits  atomic.Uint32
	note   note
}

// retakeStand is where an M waits that has nothing to do; false where it has to park. On return
// m.nextp is a P. Called by stopm.
//
//go:nowritebarrierrec
func retakeStand(mp *m) bool {
	if retakeMode() != retakeBySchedRun || retakeNow.slots == 0 || !retakeStanding.stands.CompareAndSwap(0, 1) {
		return false
	}
	retakeIsOwn()
	for mp.nextp == 0 {
		retakeRead()
	}
	return true
}

// retakeGive gives a P that was taken to whoever runs it: to this thread, if it stands and has none,
// in the cases in which handoffp starts an M for what P or the scheduler has to run.
//
//go:nowritebarrierrec
func retakeGive(pp *p) {
	mp := getg().m
	// The reader has no event any more.
	if mp.retakeSlot == 0 || mp.nextp != 0 {
		handoffp(pp)
		return
	}
	if runqempty(pp) && sched.runq.empty() {
		if sched.nmspinning.Load()+sched.npidle.Load() != 0 || !sched.nmspinning.CompareAndSwap(0, 1) {
			handoffp(pp)
			return
		}
		sched.needspinning.Store(0)
		mp.spinning = true
	}
	retakeNow.counts.ran++
	mp.nextp.set(pp)
	lock(&sched.lock)
	sched.nmsys--
	unlock(&sched.lock)
	retakeStanding.stands.Store(0)
	if retakeStanding.waits.CompareAndSwap(1, 0) {
		notewakeup(&retakeStanding.note)
	}
}

// retakeGiveWay lets the reader sleep while an M stands.
//
//go:nowritebarrierrec
func retakeGiveWay() {
	if retakeStanding.stands.Load() == 0 {
		return
	}
	noteclear(&retakeStanding.note)
	retakeStanding.waits.Store(1)
	// If the M has left meanwhile, either it sees that somebody waits, or nobody has to.
	if retakeStanding.stands.Load() != 0 || !retakeStanding.waits.CompareAndSwap(1, 0) {
		notesleep(&retakeStanding.note)
	}
}
