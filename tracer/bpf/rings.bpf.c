// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * The ways out of the kernel, one function for each table, and the count of what found no room.
 *
 * Tables with up to hundreds of thousands of records a second have a ring for each CPU: slots of an
 * array that the reader has mapped. No lock is needed, because each such table is written by one
 * program, and the kernel runs no program twice at a time on one CPU (wake-ups have two programs;
 * the second, sched_wakeup_new, runs with interrupts off). Rarer records go into ring buffers of
 * the kernel's, one for each table. The reader is not woken for a record, but once when a ring is
 * half full, because it may be asleep after a silence.
 *
 * sent = stored + lost, to the record. For a ring of slots that is produced + lost; for a ring
 * buffer `sent` is counted before it is asked, `lost` when it has no room, atomically, since a
 * program can be interrupted by another that writes to the same one.
 */

/* When the capture ends, if that is known: nothing is told of what comes after it. */
BPF_ARRAY(capture_end, s64, 1);

static __always_inline int after_end(s64 now)
{
	int zero = 0;
	s64 *end = capture_end.lookup(&zero);

	return end && *end && now > *end;
}

static __always_inline s64 not_after_end(s64 now)
{
	int zero = 0;
	s64 *end = capture_end.lookup(&zero);

	return end && *end && now > *end ? *end : now;
}

struct ring_end {
	u64 produced; /* records that were ever written */
	u64 consumed; /* and read: the reader writes this */
	u64 lost;
	u64 slots; /* of this CPU, a power of two; 0 for a CPU that was not there */
	u64 first; /* of its slots */
	u64 padding[3]; /* a cache line for each CPU */
};

struct ring_count {
	u64 sent;
	u64 lost;
};
BPF_PERCPU_ARRAY(ring_counts, struct ring_count, RING_COUNT);

/*
 * When records were lost, for each ring and CPU, twice: the reader switches between the two by
 * `loss_epoch`, and reads and clears the one that nobody writes.
 */
struct loss_span {
	s64 begin_ns;
	s64 end_ns;
	u64 lost;
};
BPF_PERCPU_ARRAY(loss_spans, struct loss_span, 2 * RING_COUNT);
BPF_ARRAY(loss_epoch, u32, 1);

/* The sizes of all these are set when the maps are made (tracer/kernel/table_rings.py). */
BPF_F_TABLE("array", u32, struct ring_end, sched_switch_ends, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct ring_end, sched_wakeup_ends, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct ring_end, block_ends, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct ring_end, syscall_ends, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct ring_end, pstate_ends, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct ring_end, waiting_ends, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct sched_switch_record, sched_switch_slots, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct sched_wakeup_record, sched_wakeup_slots, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct block_record, block_slots, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct syscall_record, syscall_slots, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct pstate_record, pstate_slots, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct waiting_record, waiting_slots, 1, BPF_F_MMAPABLE);
BPF_RINGBUF_OUTPUT(runtime_ring, 1);
BPF_RINGBUF_OUTPUT(signal_ring, 1);
BPF_RINGBUF_OUTPUT(task_ring, 1);

/*
 * The reader waits on the ring of table task. A record that is dropped at once wakes it, and is none.
 * The kernel does that from an interrupt of its own, so it may be asked for with a run queue locked.
 */
static __always_inline void wake_reader(void)
{
	void *nothing = task_ring.ringbuf_reserve(sizeof(struct task_record));

	if (nothing)
		task_ring.ringbuf_discard(nothing, BPF_RB_FORCE_WAKEUP);
}

/*
 * For a ring buffer of the kernel's: after how many records of one CPU the reader is woken, a power
 * of two. With as many of each CPU it is half full.
 */
BPF_ARRAY(wake_every, u64, RING_COUNT);

static __always_inline void count_sent(int ring)
{
	struct ring_count *count = ring_counts.lookup(&ring);
	u64 *every = wake_every.lookup(&ring);

	if (!count || !every)
		return;
	__sync_fetch_and_add(&count->sent, 1);
	if (*every && !(count->sent & (*every - 1)))
		wake_reader();
}

static __always_inline void remember_loss(int ring)
{
	s64 now = bpf_ktime_get_ns();
	int zero = 0;
	u32 *epoch = loss_epoch.lookup(&zero);

	if (!epoch)
		return;
	int slot = 2 * ring + (*epoch & 1);
	struct loss_span *span = loss_spans.lookup(&slot);
	if (!span)
		return;
	if (!span->begin_ns)
		span->begin_ns = now;
	span->end_ns = now;
	__sync_fetch_and_add(&span->lost, 1);
}

static __always_inline void count_lost(int ring)
{
	struct ring_count *count = ring_counts.lookup(&ring);

	if (count)
		__sync_fetch_and_add(&count->lost, 1);
	remember_loss(ring);
}

#define NO_SLOT 0xffffffff

/* Where the next record of this CPU goes; NO_SLOT where that would overwrite one. */
static __always_inline u32 next_slot(struct ring_end *end, int ring)
{
	u64 produced = end->produced, slots = end->slots;

	u64 waiting = produced - *(volatile u64 *)&end->consumed;

	/* Passed once for each time that the reader comes too late, and not for each record. */
	if (waiting == slots / 2 && waiting)
		wake_reader();
	if (waiting < slots)
		return end->first + (produced & (slots - 1));
	end->lost++;
	remember_loss(ring);
	return NO_SLOT;
}

/* The record is in its slot: the reader may see it. */
static __always_inline void slot_filled(struct ring_end *end)
{
	PUBLISH(&end->produced, end->produced + 1);
}

#define SIGNO_URG 23

static __always_inline int signal_wanted(int signo)
{
	return signo == SIGNO_URG || CONSTANT(ALL_SIGNALS);
}

/* With LIVE defined, all but new programs stay in the kernel (live.bpf.c), unless LIVE_ROWS is. */
#if defined(LIVE) && !defined(LIVE_ROWS)
#define KEEP_IN_KERNEL return
#else
#define KEEP_IN_KERNEL
#endif

/* bcc wants to see each map's own name where it is used, so there is one function for each. */
static __always_inline void emit_sched_switch(struct sched_switch_record *record)
{
	KEEP_IN_KERNEL;
	u32 cpu = bpf_get_smp_processor_id();
	struct ring_end *end = sched_switch_ends.lookup(&cpu);

	if (!end || after_end(record->ts_ns))
		return;
	u32 number = next_slot(end, RING_SCHED_SWITCH);
	struct sched_switch_record *slot = sched_switch_slots.lookup(&number);
	if (!slot)
		return;
	*slot = *record;
	slot_filled(end);
}

static __always_inline void emit_sched_wakeup(struct sched_wakeup_record *record)
{
	KEEP_IN_KERNEL;
	u32 cpu = bpf_get_smp_processor_id();
	struct ring_end *end = sched_wakeup_ends.lookup(&cpu);

	if (!end || after_end(record->ts_ns))
		return;
	u32 number = next_slot(end, RING_SCHED_WAKEUP);
	struct sched_wakeup_record *slot = sched_wakeup_slots.lookup(&number);
	if (!slot)
		return;
	*slot = *record;
	slot_filled(end);
}

static __always_inline void emit_block(struct block_record *record)
{
	KEEP_IN_KERNEL;
	u32 cpu = bpf_get_smp_processor_id();
	struct ring_end *end = block_ends.lookup(&cpu);

	if (!end || after_end(record->ts_ns))
		return;
	u32 number = next_slot(end, RING_BLOCK);
	struct block_record *slot = block_slots.lookup(&number);
	if (!slot)
		return;
	*slot = *record;
	slot_filled(end);
}

static __always_inline void emit_syscall(struct syscall_record *record)
{
	KEEP_IN_KERNEL;
	u32 cpu = bpf_get_smp_processor_id();
	struct ring_end *end = syscall_ends.lookup(&cpu);

	if (!end || after_end(record->exit_ns))
		return;
	u32 number = next_slot(end, RING_SYSCALL);
	struct syscall_record *slot = syscall_slots.lookup(&number);
	if (!slot)
		return;
	*slot = *record;
	slot_filled(end);
}

static __always_inline void emit_pstate(struct pstate_record *record)
{
	KEEP_IN_KERNEL;
	u32 cpu = bpf_get_smp_processor_id();
	struct ring_end *end = pstate_ends.lookup(&cpu);

	if (!end || after_end(record->ts_ns))
		return;
	u32 number = next_slot(end, RING_PSTATE);
	struct pstate_record *slot = pstate_slots.lookup(&number);
	if (!slot)
		return;
	*slot = *record;
	slot_filled(end);
}

static __always_inline void emit_waiting(struct waiting_record *record)
{
	KEEP_IN_KERNEL;
	u32 cpu = bpf_get_smp_processor_id();
	struct ring_end *end = waiting_ends.lookup(&cpu);

	if (!end || after_end(record->ts_ns))
		return;
	u32 number = next_slot(end, RING_WAITING);
	struct waiting_record *slot = waiting_slots.lookup(&number);
	if (!slot)
		return;
	*slot = *record;
	slot_filled(end);
}

static __always_inline void emit_runtime(struct runtime_record *record)
{
	KEEP_IN_KERNEL;
	if (after_end(record->ts_ns))
		return;
	count_sent(RING_RUNTIME);
	if (runtime_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count_lost(RING_RUNTIME);
}

static __always_inline void emit_signal(struct signal_record *record)
{
	KEEP_IN_KERNEL;
	if (after_end(record->ts_ns))
		return;
	count_sent(RING_SIGNAL);
	if (signal_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count_lost(RING_SIGNAL);
}

/* An exec alone wakes the reader: it may be a program whose runtime has to be looked at. */
static __always_inline void emit_task(struct task_record *record)
{
	u64 flags = record->kind == TASK_KIND_EXEC ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;

#if defined(LIVE) && !defined(LIVE_ROWS)
	if (record->kind != TASK_KIND_EXEC)
		return;
#endif
	if (after_end(record->ts_ns))
		return;
	count_sent(RING_TASK);
	if (task_ring.ringbuf_output(record, sizeof(*record), flags))
		count_lost(RING_TASK);
}
