// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * What all the programs share: which threads are targets, what each of them is doing, and the
 * ways out of the kernel.
 *
 * Compiled in front of the other files of this folder (tracer/kernel/compiler.py), with -D for the
 * running kernel's offsets (from its BTF) and for what was asked. No kernel struct is read
 * through a header: the headers bcc compiles against need not be the running kernel's.
 *
 * Cost: tracepoints by BTF, because the others first copy their arguments into a buffer, and
 * because here the verifier knows what an argument points to: so a field of a task is a plain
 * load, and a thread's state hangs on its task_struct. A thread that is no target costs the look
 * at one pointer.
 */
#include <uapi/linux/ptrace.h>
#include <linux/types.h>
#include "records.h"
#include "layout.h"

#define UNKNOWN (-1)

/* What a target thread is doing, as far as is known. */
enum where {
	IN_USER,
	IN_SYSCALL,
	/* It was there before the capture: perhaps in a system call that nobody saw begin. */
	IN_UNKNOWN,
	/* Made to be captured, and not yet the program that was asked for: tell nothing of it. */
	BEFORE_EXEC,
};

struct thread_state {
	s64 enter_ns; /* when its system call was entered */
	s64 arg0; /* set at its first block */
	s64 block_ns; /* since when it is not runnable; 0 when it is */
	s64 blocked_ns; /* all of that in this call */
	u64 m; /* of its runtime; 0 when it is not known */
	u32 tid;
	u32 tgid;
	s32 blocks;
	s32 held_p; /* at its first block, for live.bpf.c */
	s16 nr;
	u8 where;
	u8 departed; /* the capture is over: a byte of its own, since the thread goes on */
	u8 padding[4];
};

/* On the task itself: it goes with the thread, and no other thread comes to it by a tid. */
BPF_TASK_STORAGE(threads, struct thread_state);

struct thread_room {
	s64 remaining; /* for threads that are yet to come */
	u64 missed; /* could not be followed, because there was none */
};
BPF_ARRAY(thread_room, struct thread_room, 1);

/*
 * The ways out. Records that come by the hundred thousand a second go into a ring of their CPU:
 * slots of an array that the reader has mapped. No lock is needed, since one program writes each
 * of them, and the kernel runs no program twice at a time on one CPU (wakeups have two; the
 * second, sched_wakeup_new, runs with interrupts off). What is seldom goes into ring buffers of
 * the kernel's, one for each table. Nobody is woken for a record.
 *
 * sent = stored + lost, to the record. For a ring of slots that is produced + lost; for a ring
 * buffer `sent` is counted before it is asked, `lost` when it has no room, atomically, since a
 * program can be interrupted by another that writes to the same one.
 */
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

static __always_inline void count_sent(int ring)
{
	struct ring_count *count = ring_counts.lookup(&ring);

	if (count)
		__sync_fetch_and_add(&count->sent, 1);
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

	if (produced - *(volatile u64 *)&end->consumed < slots)
		return end->first + (produced & (slots - 1));
	end->lost++;
	remember_loss(ring);
	return NO_SLOT;
}

/* The record is in its slot: the reader may see it. x86-64 keeps the order of the two stores. */
static __always_inline void slot_filled(struct ring_end *end)
{
	asm volatile("" ::: "memory");
	end->produced++;
}

/* With LIVE defined, all but new programs stay in the kernel (live.bpf.c). */
#ifdef LIVE
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

	if (!end)
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

	if (!end)
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

	if (!end)
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

	if (!end)
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

	if (!end)
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

	if (!end)
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
	count_sent(RING_RUNTIME);
	if (runtime_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count_lost(RING_RUNTIME);
}

static __always_inline void emit_signal(struct signal_record *record)
{
	KEEP_IN_KERNEL;
	count_sent(RING_SIGNAL);
	if (signal_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count_lost(RING_SIGNAL);
}

/* An exec alone wakes the reader: it may be a program whose runtime has to be looked at. */
static __always_inline void emit_task(struct task_record *record)
{
	u64 flags = record->kind == TASK_KIND_EXEC ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;

#ifdef LIVE
	if (record->kind != TASK_KIND_EXEC)
		return;
#endif
	count_sent(RING_TASK);
	if (task_ring.ringbuf_output(record, sizeof(*record), flags))
		count_lost(RING_TASK);
}

static __always_inline u32 current_tid(void)
{
	return (u32)bpf_get_current_pid_tgid();
}

/* A field of a kernel struct, at an address whose type the verifier knows: a plain load. */
static __always_inline u32 field_u32(void *address, int offset)
{
	return *(volatile u32 *)(address + offset);
}

static __always_inline u64 field_u64(void *address, int offset)
{
	return *(volatile u64 *)(address + offset);
}

/* The same where it does not; 0 where it cannot be read. */
static __always_inline u32 task_u32(u64 task, int offset)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(task + offset));
	return value;
}

/* The thread, if it is a target and has become what was asked for. */
static __always_inline struct thread_state *target(struct task_struct *task)
{
	struct thread_state *thread = threads.task_storage_get(task, 0, 0);

	return thread && thread->where != BEFORE_EXEC && !thread->departed ? thread : 0;
}

static __always_inline struct thread_state *current_target(void)
{
	return target(bpf_get_current_task_btf());
}

/* A register that the current thread had when it entered the kernel. */
static __always_inline s64 user_register(int offset)
{
	return field_u64(bpf_task_pt_regs(bpf_get_current_task_btf()), offset);
}
