// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * What all the programs share: which threads are targets, what each of them is doing, and the
 * one way out of the kernel.
 *
 * Compiled in front of the other files of this folder (tracer/compiler.py), with -D for the
 * running kernel's offsets (from its BTF) and for what was asked. No kernel struct is read
 * through a header: the headers bcc compiles against need not be the running kernel's.
 *
 * Cost: raw tracepoints, because the others first copy their arguments into a buffer. The first
 * thing each program does is to look for its thread in `threads`; one that is no target is done.
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
	u64 task; /* address of its task_struct, 0 if not known: a tid comes again */
	s64 enter_ns; /* when its system call was entered */
	s64 arg0; /* set at its first block */
	s64 block_ns; /* since when it is not runnable; 0 when it is */
	s64 blocked_ns; /* all of that in this call */
	u32 tgid;
	s32 blocks;
	s32 tgkill_tid;
	s16 tgkill_signo;
	s16 nr;
	u8 where;
	u8 padding[3];
};

BPF_HASH(threads, u32, struct thread_state, 65536);

/* Threads that could not be followed, because `threads` was full. */
BPF_ARRAY(threads_missed, u64, 1);

/*
 * One ring for each table, of fixed-size records; nobody is woken for a record. sent = stored +
 * lost, to the record: `sent` is counted before the ring is asked, `lost` when it has no room.
 * Atomic, since a program can be interrupted by another that writes to the same ring.
 */
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

/* The sizes of these and of `threads` are set when the maps are made (tracer/program.py). */
BPF_RINGBUF_OUTPUT(sched_switch_ring, 1);
BPF_RINGBUF_OUTPUT(sched_wakeup_ring, 1);
BPF_RINGBUF_OUTPUT(block_ring, 1);
BPF_RINGBUF_OUTPUT(syscall_ring, 1);
BPF_RINGBUF_OUTPUT(runtime_ring, 1);
BPF_RINGBUF_OUTPUT(signal_ring, 1);
BPF_RINGBUF_OUTPUT(task_ring, 1);

static __always_inline void count_sent(int ring)
{
	struct ring_count *count = ring_counts.lookup(&ring);

	if (count)
		__sync_fetch_and_add(&count->sent, 1);
}

/* The same where nothing but an NMI can come in between: __schedule() has interrupts off. */
static __always_inline void count_sent_alone(int ring)
{
	struct ring_count *count = ring_counts.lookup(&ring);

	if (count)
		count->sent++;
}

static __always_inline void count_lost(int ring)
{
	struct ring_count *count = ring_counts.lookup(&ring);
	s64 now = bpf_ktime_get_ns();
	int zero = 0;

	if (count)
		__sync_fetch_and_add(&count->lost, 1);
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
	count_sent_alone(RING_SCHED_SWITCH);
	if (sched_switch_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count_lost(RING_SCHED_SWITCH);
}

static __always_inline void emit_sched_wakeup(struct sched_wakeup_record *record)
{
	KEEP_IN_KERNEL;
	count_sent(RING_SCHED_WAKEUP);
	if (sched_wakeup_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count_lost(RING_SCHED_WAKEUP);
}

static __always_inline void emit_block(struct block_record *record)
{
	KEEP_IN_KERNEL;
	count_sent_alone(RING_BLOCK);
	if (block_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count_lost(RING_BLOCK);
}

static __always_inline void emit_syscall(struct syscall_record *record)
{
	KEEP_IN_KERNEL;
	count_sent(RING_SYSCALL);
	if (syscall_ring.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count_lost(RING_SYSCALL);
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

static __always_inline u32 task_u32(u64 task, int offset)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(task + offset));
	return value;
}

/* The thread, if it is a target and has become what was asked for. */
static __always_inline struct thread_state *target(u32 tid)
{
	struct thread_state *thread = tid ? threads.lookup(&tid) : 0;

	return thread && thread->where != BEFORE_EXEC ? thread : 0;
}

/* A register that the current thread had when it entered the kernel. */
static __always_inline s64 user_register(int offset)
{
	u64 regs = bpf_task_pt_regs(bpf_get_current_task_btf());
	s64 value = UNKNOWN;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(regs + offset));
	return value;
}
