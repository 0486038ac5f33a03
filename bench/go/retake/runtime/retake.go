// Retaking Ps when the kernel says that their thread blocked.
//
// This file is built into package runtime by `go build -overlay` (bench/go/retake/overlay.py); it is
// the idea at the end of Go issue 29734, "syscall: add SyscallBlock", which nobody had tried.
//
// # Concepts
//
// Each M that may hold a P has one perf event on its own thread: the software event "dummy" with
// context_switch, which needs no privilege up to kernel.perf_event_paranoid = 2. The kernel writes a
// record into the event's ring whenever the thread leaves its CPU or comes back; the record says
// whether it left because it blocked or because it was preempted. One reader thread, which has no P
// and is started as sysmon is, sleeps in epoll_wait on all those rings. Told that a thread blocked, it
// looks whether the thread's M is in a system call with its P, and if so takes the P and hands it
// off, by the same steps that sysmon's retake does for one P. sysmon stays, as a net, at a fixed period.
//
//	M      entersyscall ─ block ·············································· wake ─ exitsyscall
//	kernel                └ record SWITCH_OUT ─ wakes the reader
//	reader                     epoll_wait returns ─ take P ─ handoffp
//	P      |── held ────────────────────────────────────|── runs another goroutine
//
// GODEBUG=retake= chooses the way, so that one binary has all of them:
//
//	sysmon       as Go is (the default)
//	schedout     the above
//	threadstate  sysmon reads the thread's state from /proc when it first sees it in a call, and
//	             takes P at once if the thread sleeps: half the latency, by the same discussion
//
// # Who may touch what
//
//	slot.mp, slot.fd, slot.ring   written by the M's own thread with retake.lock held (minit,
//	                              unminit); read by the reader with the lock held. So an M that the
//	                              reader looks at is not freed meanwhile.
//	m.mOS.retakeSlot              only the M's own thread
//	the ring's data_head          the kernel; data_tail only the reader
//	a P                           as for sysmon: status is changed by compare-and-swap (to Go 1.25), or
//	                              with the goroutine's scan bit held (from Go 1.26)
//
// retake.lock is taken with no other runtime lock held; sched.lock and allpLock may be taken below it.
//
// # One wake-up a block, not two
//
// A thread's records alternate: out, in, out, in, and each has 8 bytes. With a watermark of 16 bytes
// the kernel wakes the reader at every second record, from the third one on: that is always an "out".
// A thread that parks without a P turns its event off meanwhile (two ioctls cost a tenth of a
// needless wake-up of the reader), on its CPU both times, so that records go on alternating.
//
// # Rejected designs
//
//   - One event for all threads (inherit, or PERF_EVENT_IOC_SET_OUTPUT into one ring): rings of events
//     that follow a task on every CPU can be shared by events of the same task only.
//   - The first block of a thread told, too: it would take a second record kind in the ring. sysmon
//     takes that one.
//   - A signal for each block (F_SETSIG): it interrupts the call that it tells of.
//   - Events on from entersyscall to exitsyscall only: two ioctls on the hottest path.
package runtime

import (
	"internal/runtime/atomic"
	"unsafe"
)

const (
	retakeBySysmon      = 1
	retakeBySchedOut    = 2
	retakeByThreadState = 3
)

const (
	retakeMaxMs     = 1 << 15
	retakePage      = 4096
	retakeRingBytes = 2 * retakePage // a page of the kernel's positions, a page of records
	retakeNetUs     = 10 * 1000      // sysmon's period beside the events: preemption needs it

	_PERF_TYPE_SOFTWARE       = 1
	_PERF_COUNT_SW_DUMMY      = 9
	_PERF_FLAG_FD_CLOEXEC     = 8
	_PERF_EVENT_IOC_ENABLE    = 0x2400
	_PERF_EVENT_IOC_DISABLE   = 0x2401
	_PERF_RECORD_LOST         = 2
	_PERF_RECORD_SWITCH       = 14
	_PERF_MISC_SWITCH_OUT     = 1 << 13
	_PERF_MISC_SWITCH_PREEMPT = 1 << 14

	// attr.flags: exclude_kernel, exclude_hv, watermark, context_switch.
	retakeEventFlags = 1<<5 | 1<<6 | 1<<14 | 1<<26

	retakeDataHead   = 1024 // struct perf_event_mmap_page
	retakeDataTail   = 1032
	retakeRecordSize = 8
)

// struct perf_event_attr, version 5.
type retakeAttr struct {
	kind, size        uint32
	config            uint64
	samplePeriod      uint64
	sampleType        uint64
	readFormat        uint64
	flags             uint64
	wakeupWatermark   uint32
	bpType            uint32
	bpAddr, bpLen     uint64
	branchSampleType  uint64
	sampleRegsUser    uint64
	sampleStackUser   uint32
	clockid           int32
	sampleRegsIntr    uint64
	auxWatermark      uint32
	sampleMaxStack, _ uint16
}

// An M that is watched. In memory of its own, which the collector does not know: the M it names is on
// allm until its thread has given the slot back.
type retakeSlot struct {
	mp   uintptr
	ring uintptr
	fd   int32
	next int32 // free slots form a list; 0 ends it
}

type retakeEpollEvent struct {
	events uint32
	data   [8]byte // not aligned on amd64
}

// What the reader did.
type retakeCounts struct {
	wakeups   uint64 // returns of epoll_wait
	told      uint64 // blocks that were told
	taken     uint64 // Ps that were taken
	left      uint64 // Ps that were left: nothing waited, and another P was idle
	stale     uint64 // the M was in no call, or back from it
	unwatched uint64 // threads for which there was no event
	lost      uint64 // rings that overflowed
}

var retakeNow struct {
	mode   atomic.Int32
	errno  atomic.Int32 // of the first event that could not be had
	epfd   int32
	lock   mutex
	slots  uintptr // retakeMaxMs of them
	used   int32 // slots that were ever used; slot 0 is nobody's
	free   int32
	counts retakeCounts
	blind  atomic.Int32 // Ms without an event: sysmon must look for them as ever
}

//go:nosplit
func retakeSlotAt(slot int32) *retakeSlot {
	return (*retakeSlot)(unsafe.Pointer(retakeNow.slots + uintptr(slot)*unsafe.Sizeof(retakeSlot{})))
}

// retakeMode is what GODEBUG=retake= asks for.
func retakeMode() int32 {
	if mode := retakeNow.mode.Load(); mode != 0 {
		return mode
	}
	mode := int32(retakeBySysmon)
	switch retakeAsked(gogetenv("GODEBUG")) {
	case "schedout":
		mode = retakeBySchedOut
	case "threadstate":
		mode = retakeByThreadState
	}
	retakeNow.mode.Store(mode)
	return mode
}

// retakeAsked finds the last retake= in a GODEBUG text.
func retakeAsked(text string) string {
	const key = "retake="
	asked := ""
	for begin := 0; begin < len(text); {
		end := begin
		for end < len(text) && text[end] != ',' {
			end++
		}
		if field := text[begin:end]; len(field) > len(key) && field[:len(key)] == key {
			asked = field[len(key):]
		}
		begin = end + 1
	}
	return asked
}

// retakeMinit opens the event of the current M. Called at the end of minit, on the M's thread, where
// nothing can be allocated.
//
//go:nowritebarrierrec
func retakeMinit() {
	if retakeMode() != retakeBySchedOut {
		return
	}
	mp := getg().m
	if mp.retakeSlot != 0 {
		return
	}
	lock(&retakeNow.lock)
	slot := retakeTakeSlot()
	if slot == 0 {
		retakeNow.blind.Add(1)
		retakeNow.counts.unwatched++
		mp.retakeSlot = -1
	} else {
		mp.retakeSlot = slot
		retakeSlotAt(slot).mp = uintptr(unsafe.Pointer(mp))
	}
	unlock(&retakeNow.lock)
}

// retakeTakeSlot opens an event and its ring; 0 where they are not to be had. The lock is held.
//
//go:nowritebarrierrec
func retakeTakeSlot() int32 {
	if retakeNow.slots == 0 {
		size := unsafe.Sizeof(retakeSlot{}) * retakeMaxMs
		p, errno := mmap(nil, size, _PROT_READ|_PROT_WRITE, _MAP_ANON|_MAP_PRIVATE, -1, 0)
		epfd, _, failed := retakeSyscall6(retakeSysEpollCreate1, retakeCloexec, 0, 0, 0, 0, 0)
		if errno != 0 || failed != 0 {
			return retakeNoEvent(int32(errno) + int32(failed))
		}
		retakeNow.slots = uintptr(p)
		retakeNow.epfd = int32(epfd)
	}
	attr := retakeAttr{
		kind:            _PERF_TYPE_SOFTWARE,
		size:            uint32(unsafe.Sizeof(retakeAttr{})),
		config:          _PERF_COUNT_SW_DUMMY,
		flags:           retakeEventFlags,
		wakeupWatermark: 2 * retakeRecordSize,
	}
	self, anyCPU, noGroup := uintptr(0), ^uintptr(0), ^uintptr(0)
	fd, _, errno := retakeSyscall6(retakeSysPerfEventOpen, uintptr(noescape(unsafe.Pointer(&attr))),
		self, anyCPU, noGroup, _PERF_FLAG_FD_CLOEXEC, 0)
	if errno != 0 {
		return retakeNoEvent(int32(errno))
	}
	ring, failed := mmap(nil, retakeRingBytes, _PROT_READ|_PROT_WRITE, _MAP_SHARED, int32(fd), 0)
	if failed != 0 {
		closefd(int32(fd))
		return retakeNoEvent(int32(failed))
	}
	slot := retakeNow.free
	if slot != 0 {
		retakeNow.free = retakeSlotAt(slot).next
	} else if retakeNow.used+1 < retakeMaxMs {
		retakeNow.used++
		slot = retakeNow.used
	} else {
		munmap(ring, retakeRingBytes)
		closefd(int32(fd))
		return retakeNoEvent(_ENOMEM)
	}
	*retakeSlotAt(slot) = retakeSlot{ring: uintptr(ring), fd: int32(fd)}
	event := retakeEpollEvent{events: retakeEpollIn}
	*(*int32)(unsafe.Pointer(&event.data)) = slot
	_, _, errno = retakeSyscall6(retakeSysEpollCtl, uintptr(retakeNow.epfd), retakeEpollAdd, fd,
		uintptr(noescape(unsafe.Pointer(&event))), 0, 0)
	if errno != 0 {
		retakeFree(slot)
		return retakeNoEvent(int32(errno))
	}
	return slot
}

//go:nowritebarrierrec
func retakeNoEvent(errno int32) int32 {
	retakeNow.errno.CompareAndSwap(0, errno)
	return 0
}

// retakeFree gives a slot back. The lock is held.
//
//go:nowritebarrierrec
func retakeFree(slot int32) {
	s := retakeSlotAt(slot)
	munmap(unsafe.Pointer(s.ring), retakeRingBytes)
	closefd(s.fd)
	*s = retakeSlot{next: retakeNow.free}
	retakeNow.free = slot
}

// retakeUnminit closes the event of the current M. Called by unminit on the M's thread, and by threads
// that never hold a P.
//
//go:nowritebarrierrec
func retakeUnminit() {
	mp := getg().m
	slot := mp.retakeSlot
	if slot == 0 {
		return
	}
	mp.retakeSlot = 0
	lock(&retakeNow.lock)
	if slot < 0 {
		retakeNow.blind.Add(-1)
	} else {
		retakeFree(slot)
	}
	unlock(&retakeNow.lock)
}

// retakePause and retakeResume turn the current M's event off while it waits without a P.
//
//go:nowritebarrierrec
func retakePause() {
	retakeIoctl(_PERF_EVENT_IOC_DISABLE)
}

//go:nowritebarrierrec
func retakeResume() {
	retakeIoctl(_PERF_EVENT_IOC_ENABLE)
}

//go:nowritebarrierrec
func retakeIoctl(request uintptr) {
	if slot := getg().m.retakeSlot; slot > 0 {
		fd := uintptr(retakeSlotAt(slot).fd)
		retakeSyscall6(retakeSysIoctl, fd, request, 0, 0, 0, 0)
	}
}

// retakeStart starts the reader. Called where sysmon is started.
func retakeStart() {
	if retakeMode() != retakeBySchedOut {
		return
	}
	if retakeNow.slots == 0 {
		if debug.schedtrace > 0 {
			print("SCHED retake=schedout: no perf events (errno ", retakeNow.errno.Load(),
				"), sysmon polls as ever; see kernel.perf_event_paranoid\n")
		}
		return
	}
	newm(retakeReader, nil, -1)
}

// retakeReader waits for blocks, on a thread without a P.
//
//go:nowritebarrierrec
func retakeReader() {
	lock(&sched.lock)
	sched.nmsys++
	checkdead()
	unlock(&sched.lock)
	// Its own switches would wake it.
	retakeUnminit()
	var events [64]retakeEpollEvent
	for {
		n, _, errno := retakeSyscall6(retakeSysEpollPwait, uintptr(retakeNow.epfd),
			uintptr(noescape(unsafe.Pointer(&events))), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno != 0 {
			if errno == _EINTR {
				continue
			}
			throw("retake: epoll_wait failed")
		}
		lock(&retakeNow.lock)
		retakeNow.counts.wakeups++
		for i := 0; i < int(n); i++ {
			retakeLook(*(*int32)(unsafe.Pointer(&events[i].data)))
		}
		unlock(&retakeNow.lock)
	}
}

// retakeLook reads what the kernel told of one M. The lock is held.
//
//go:nowritebarrierrec
func retakeLook(slot int32) {
	s := retakeSlotAt(slot)
	if s.mp == 0 {
		return // it has gone since
	}
	head := atomic.Load64((*uint64)(unsafe.Pointer(s.ring + retakeDataHead)))
	tail := *(*uint64)(unsafe.Pointer(s.ring + retakeDataTail))
	blocked := false
	for tail < head {
		at := s.ring + retakePage + uintptr(tail%retakePage)
		kind := *(*uint32)(unsafe.Pointer(at))
		misc := *(*uint16)(unsafe.Pointer(at + 4))
		size := *(*uint16)(unsafe.Pointer(at + 6))
		switch kind {
		case _PERF_RECORD_SWITCH:
			blocked = misc&(_PERF_MISC_SWITCH_OUT|_PERF_MISC_SWITCH_PREEMPT) == _PERF_MISC_SWITCH_OUT
		case _PERF_RECORD_LOST:
			retakeNow.counts.lost++
		}
		if size == 0 {
			break
		}
		tail += uint64(size)
	}
	atomic.Store64((*uint64)(unsafe.Pointer(s.ring+retakeDataTail)), head)
	if !blocked {
		return
	}
	retakeNow.counts.told++
	retakeOf((*m)(unsafe.Pointer(s.mp)))
}

// retakeWanted is sysmon's rule: with nothing in P's queue, and somebody idle who would take what
// comes, P stays where it is, and sysmon looks again after 10 ms.
//
//go:nowritebarrierrec
func retakeWanted(pp *p) bool {
	if runqempty(pp) && sched.nmspinning.Load()+sched.npidle.Load() > 0 {
		retakeNow.counts.left++
		return false
	}
	return true
}

// retakeDelay is sysmon's period, in µs.
func retakeDelay(delay uint32) uint32 {
	if retakeMode() == retakeBySchedOut && retakeNow.slots != 0 && retakeNow.blind.Load() == 0 {
		return retakeNetUs
	}
	return delay
}

// retakeSleeps tells, for threadstate, whether a thread sleeps in the kernel, by its state in /proc.
//
//go:nowritebarrierrec
func retakeSleeps(tid uint64) bool {
	if tid == 0 {
		return false
	}
	var path [40]byte
	const begin, end = "/proc/self/task/", "/stat"
	n := copy(path[:], begin)
	var digits [20]byte
	d := len(digits)
	for ; tid > 0; tid /= 10 {
		d--
		digits[d] = byte('0' + tid%10)
	}
	n += copy(path[n:], digits[d:])
	copy(path[n:], end) // and a zero behind it
	fd := open((*byte)(noescape(unsafe.Pointer(&path))), _O_RDONLY|_O_CLOEXEC, 0)
	if fd < 0 {
		return false
	}
	var text [128]byte
	size := read(fd, noescape(unsafe.Pointer(&text)), int32(len(text)))
	closefd(fd)
	// The state is behind the name, which stands in brackets and may have brackets in it.
	for i := int(size) - 1; i >= 0; i-- {
		if text[i] == ')' && i+2 < int(size) {
			return text[i+2] == 'S' || text[i+2] == 'D'
		}
	}
	return false
}

// retakeNowCounts is what the reader did so far, for benchmarks (reached by go:linkname).
func retakeNowCounts() [7]uint64 {
	return *(*[7]uint64)(unsafe.Pointer(&retakeNow.counts))
}
