// Retaking Ps when the kernel says that their thread blocked.
//
// This file is built into package runtime by `go build -overlay` (bench/go/retake/overlay.py); it is
// the idea at the end of Go issue 29734, "syscall: add SyscallBlock", which nobody had tried.
//
// # Concepts
//
// Each M that may hold a P has one perf event on its own thread: the software event "dummy" with
// context_switch, which needs no privilege up to kernel.perf_event_paranoid = 2. When the thread
// leaves its CPU the kernel writes a record into the event's ring, which says whether it blocked or was
// preempted, and wakes whoever polls the ring. One reader thread, which has no P and is started as
// sysmon is, sleeps in epoll_wait on all those rings. Told that a thread blocked, it looks whether the
// thread's M is in a system call with its P, and if so takes the P and hands it off, by the same steps
// that sysmon's retake does for one P. sysmon stays: for preemption, and as a net.
//
//	M      entersyscall (arm) ─ block ········································· wake ─ exitsyscall (disarm)
//	kernel                      └ record SWITCH_OUT ─ wakes the reader
//	reader                           epoll_wait returns ─ take P ─ handoffp
//	P      |── held ──────────────────────────────────────────|── runs another goroutine
//
// GODEBUG=retake= chooses the way, so that one binary has all of them:
//
//	sysmon       as Go is (the default)
//	schedout     the above
//	schedrun     the same, but the thread that is told runs the P (stand.go)
//	threadstate  sysmon reads the thread's state from /proc when it first sees it in a call, and
//	             takes P at once if the thread sleeps: half the latency, by the same discussion
//
// # The gate: one word of memory
//
// Nobody wants to hear of an M that parks, polls the network or waits for a lock of the runtime. To turn
// an event off and on by ioctl costs 1.2 µs, more than the call of a short system call. But a ring that
// is full takes no record, wakes nobody, and costs nothing; and how full it is decides data_tail, a word
// that the M's own thread writes. So the ring is not used as a queue:
//
//	disarmed  data_tail says that no byte is free: what happens is only counted as lost
//	armed     data_tail says that 32 bytes are free: one record
//
// 32, since the first record after a loss has a record of that loss (24 bytes) in front of it, and a
// switch has 8. So the "out" of a blocked thread fits and its "in" does not, which is lost in its turn:
// from then on there always is a loss to tell, and each armed call tells its first "out" and no more.
// The first loss is made on purpose, in retakeMinit. entersyscall arms, exitsyscall disarms: two stores.
//
//	           out  in      arm       block        wake      exit
//	free       0    0       32        0 (told)     0 (lost)  0
//
// # Who may touch what
//
//	slot.mp, slot.fd, slot.ring   written by the M's own thread with retake.lock held (minit,
//	                              unminit); read by the reader with the lock held. So an M that the
//	                              reader looks at is not freed meanwhile.
//	slot.seen                     who reads (the reader, or an M that stands), with the lock held
//	m.mOS.retakeSlot, retakeRing  only the M's own thread
//	the ring's data_head          the kernel, on the M's own thread
//	the ring's data_tail          the M's own thread
//	a P                           as for sysmon: status is changed by compare-and-swap (to Go 1.25), or
//	                              with the goroutine's scan bit held (from Go 1.26)
//
// retake.lock is taken with no other runtime lock held; sched.lock and allpLock may be taken below it.
//
// # Rejected designs
//
//   - A ring as a queue with a watermark of two records, so that every second one ("out") wakes the
//     reader, and events turned off by ioctl while an M parks: 1.2 µs for each park; each further block of
//     one call (fdatasync has several) wakes the reader again; a thread's first block is not told.
//   - One event for all threads (inherit, or PERF_EVENT_IOC_SET_OUTPUT into one ring): rings of events
//     that follow a task on every CPU can be shared by events of the same task only.
//   - A P taken from every blocked call, wanted or not: with two Ps and one of them idle each read of a FIFO
//     took twice the CPU.
//   - EPOLLONESHOT as the gate: 0.6 µs for each call of epoll_ctl, and the kernel goes through its
//     wake-up all the same.
//   - A signal for each block (F_SETSIG): it interrupts the call that it tells of.
package runtime

import (
	"internal/runtime/atomic"
	"unsafe"
)

const (
	retakeBySysmon      = 1
	retakeBySchedOut    = 2
	retakeByThreadState = 3
	retakeBySchedRun    = 4
)

const (
	retakeMaxMs     = 1 << 15
	retakePage      = 4096
	retakeRingBytes = 2 * retakePage // a page of the kernel's positions, a page of records

	// sysmon's longest period beside the events. A goroutine is asked to stop when sysmon sees it twice,
	// 10 ms apart: after 10 to 12.5 ms. Where Go is left alone it is 10 to 20.
	retakeNetUs   = 2500
	retakeFirstUs = 20

	_PERF_TYPE_SOFTWARE       = 1
	_PERF_COUNT_SW_DUMMY      = 9
	_PERF_FLAG_FD_CLOEXEC     = 8
	_PERF_RECORD_SWITCH       = 14
	_PERF_MISC_SWITCH_OUT     = 1 << 13
	_PERF_MISC_SWITCH_PREEMPT = 1 << 14

	// attr.flags: exclude_kernel, exclude_hv, comm, watermark, context_switch.
	retakeEventFlags = 1<<5 | 1<<6 | 1<<9 | 1<<14 | 1<<26

	_PR_SET_NAME = 15
	_PR_GET_NAME = 16

	retakeDataHead   = 1024 // struct perf_event_mmap_page
	retakeDataTail   = 1032
	retakeRecordSize = 8
	retakeLossSize   = 24
	// The kernel keeps one byte free: tail - (head+1) is what it has room for.
	retakeDisarmed = 1
	retakeArmed    = 1 + retakeLossSize + retakeRecordSize
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
	seen uint64 // data_head when the reader last looked
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
	preempted uint64 // threads that were told and had not blocked
	ran       uint64 // Ps that the thread that took them ran itself
}

var retakeNow struct {
	mode   atomic.Int32
	errno  atomic.Int32 // of the first event that could not be had
	epfd   int32
	lock   mutex
	slots  uintptr // retakeMaxMs of them
	used   int32   // slots that were ever used; slot 0 is nobody's
	free   int32
	counts retakeCounts
	blind  atomic.Int32 // Ms without an event: sysmon must look for them as ever
	left   atomic.Bool  // a P was left, or is not watched to the end of its call, since sysmon looked
	delay  uint32       // sysmon's period, only sysmon's
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
	case "schedrun":
		mode = retakeBySchedRun
	case "threadstate":
		mode = retakeByThreadState
	}
	retakeNow.mode.Store(mode)
	return mode
}

// retakeByEvents tells whether threads are watched by perf events.
func retakeByEvents() bool {
	mode := retakeMode()
	return mode == retakeBySchedOut || mode == retakeBySchedRun
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
	if !retakeByEvents() {
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
		s := retakeSlotAt(slot)
		mp.retakeRing = s.ring
		// The first write to the ring's page is a fault, in which the thread may block: the position that
		// it read before is old then, and the ring stands open. What it takes until then is of no call.
		for s.seen = ^uint64(0); s.seen != *(*uint64)(unsafe.Pointer(s.ring + retakeDataHead)); {
			s.seen = *(*uint64)(unsafe.Pointer(s.ring + retakeDataHead))
			retakeDisarm(mp)
		}
		s.mp = uintptr(unsafe.Pointer(mp))
	}
	unlock(&retakeNow.lock)
	if slot != 0 {
		retakeLose()
	}
}

// retakeLose makes the first loss of the current M's ring: the thread takes the name that it has.
//
//go:nowritebarrierrec
func retakeLose() {
	var name [16]byte
	at := uintptr(noescape(unsafe.Pointer(&name)))
	if _, _, errno := retakeSyscall6(retakeSysPrctl, _PR_GET_NAME, at, 0, 0, 0, 0); errno == 0 {
		retakeSyscall6(retakeSysPrctl, _PR_SET_NAME, at, 0, 0, 0, 0)
	}
}

// retakeArm lets the current M's ring take one record. At the end of entersyscall.
//
//go:nosplit
func retakeArm(mp *m) {
	if ring := mp.retakeRing; ring != 0 {
		*(*uint64)(unsafe.Pointer(ring + retakeDataTail)) =
			*(*uint64)(unsafe.Pointer(ring + retakeDataHead)) + retakeArmed
	}
}

// retakeDisarm lets it take none. At the begin of exitsyscall.
//
//go:nosplit
func retakeDisarm(mp *m) {
	if ring := mp.retakeRing; ring != 0 {
		*(*uint64)(unsafe.Pointer(ring + retakeDataTail)) =
			*(*uint64)(unsafe.Pointer(ring + retakeDataHead)) + retakeDisarmed
	}
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
		wakeupWatermark: 1,
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
	event := retakeEpollEvent{events: retakeEpollIn | retakeEpollEdge}
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
	mp.retakeRing = 0
	lock(&retakeNow.lock)
	if slot < 0 {
		retakeNow.blind.Add(-1)
	} else {
		retakeFree(slot)
	}
	unlock(&retakeNow.lock)
}

// retakeStart starts the reader. Called where sysmon is started.
func retakeStart() {
	if !retakeByEvents() {
		return
	}
	if retakeNow.used == 0 {
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
	retakeIsOwn()
	// Its own switches would wake it.
	retakeUnminit()
	for {
		retakeRead()
		retakeGiveWay()
	}
}

// retakeIsOwn makes the current thread one of the runtime's own to checkdead.
//
//go:nowritebarrierrec
func retakeIsOwn() {
	lock(&sched.lock)
	sched.nmsys++
	checkdead()
	unlock(&sched.lock)
}

// retakeRead waits until some thread blocks, and takes the Ps of all that have.
//
//go:nowritebarrierrec
func retakeRead() {
	var events [64]retakeEpollEvent
	n, _, errno := retakeSyscall6(retakeSysEpollPwait, uintptr(retakeNow.epfd),
		uintptr(noescape(unsafe.Pointer(&events))), uintptr(len(events)), ^uintptr(0), 0, 0)
	if errno == _EINTR {
		return
	}
	if errno != 0 {
		throw("retake: epoll_wait failed")
	}
	lock(&retakeNow.lock)
	retakeNow.counts.wakeups++
	for i := 0; i < int(n); i++ {
		retakeLook(*(*int32)(unsafe.Pointer(&events[i].data)))
	}
	unlock(&retakeNow.lock)
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
	if head == s.seen {
		return
	}
	s.seen = head
	// The last record is what counts. A switch has its header only, and nothing wraps in a header.
	last := s.ring + retakePage + uintptr((head-retakeRecordSize)%retakePage)
	kind := *(*uint32)(unsafe.Pointer(last))
	misc := *(*uint16)(unsafe.Pointer(last + 4))
	const how = _PERF_MISC_SWITCH_OUT | _PERF_MISC_SWITCH_PREEMPT
	if kind != _PERF_RECORD_SWITCH || misc&how != _PERF_MISC_SWITCH_OUT {
		// Its ring has no room for a block later in the same call: sysmon looks after it.
		retakeNow.counts.preempted++
		retakeNow.left.Store(true)
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
		retakeNow.left.Store(true)
		return false
	}
	return true
}

// retakeDelay is sysmon's period, in µs. Beside the events it looks again soon only for a P that the
// reader has left, which may be wanted after all; from then on the period doubles up to what preemption
// needs. A net of 100 ms, as in the discussion, would save nothing: the look at a P comes with it.
func retakeDelay(delay uint32) uint32 {
	if !retakeByEvents() || retakeNow.slots == 0 || retakeNow.blind.Load() != 0 {
		return delay
	}
	if retakeNow.left.Load() {
		retakeNow.left.Store(false)
		retakeNow.delay = retakeFirstUs
	} else {
		retakeNow.delay = min(max(2*retakeNow.delay, retakeFirstUs), retakeNetUs)
	}
	return retakeNow.delay
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
func retakeNowCounts() [8]uint64 {
	return *(*[8]uint64)(unsafe.Pointer(&retakeNow.counts))
}
