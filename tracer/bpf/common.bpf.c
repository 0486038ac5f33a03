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
	/* A thread of the kernel's inside a target (io_uring's workers): never in user code. */
	IN_KERNEL,
};

/* A call between the parts that a signal makes of it (syscalls.bpf.c). */
enum broken_call {
	NOT_BROKEN,
	BROKEN_OFF, /* the signal is yet to be looked at */
	SET_ASIDE, /* its handler runs; then the call is begun again */
	TO_RESUME, /* the handler returned to the call's instruction */
};

/* What is known of a call that is begun again after a handler. */
struct call_aside {
	s64 enter_ns;
	s64 arg0;
	s64 blocked_ns;
	u64 pc; /* where it returns to */
	u64 sp;
	s32 blocks;
	s16 nr;
	s16 padding;
};

struct thread_state {
	s64 enter_ns; /* when its system call was entered */
	s64 arg0; /* set at its first block */
	s64 block_ns; /* since when it is not runnable; 0 when it is */
	s64 blocked_ns; /* all of that in this call */
	u64 m; /* of its runtime; 0 when it is not known */
	struct call_aside aside;
	s64 in_ns; /* when it last came on a CPU */
	s64 returned_ns; /* when it first did since the block below; 0 before */
	s64 came_ns; /* the same of the block before that one */
	s64 fault_address; /* of its last page fault in user code */
	s64 call_goid; /* of its last block in a call with P, and the next two */
	u32 call_tick;
	s32 call_p;
	s32 given_p; /* that it was woken with and is yet to run; UNKNOWN for none */
	s32 given_m;
	u32 tid; /* tid and tgid as the first pid namespace counts them */
	u32 tgid;
	u32 own_tid; /* as the thread itself knows it, by gettid() */
	u32 signalled_tid; /* who got the signal of its tgkill; 0 for none yet */
	s32 blocks;
	s32 held_p; /* at its first block, for live.bpf.c */
	u32 next_p; /* for go_stw_takes, between its runs */
	s16 nr; /* UNKNOWN for a call that is not of this architecture's table */
	s16 broken_by; /* what a call that is broken off returned in the kernel */
	u8 where;
	u8 broken;
	u8 contained; /* in a pid namespace, so that own_tid and tid are two numbers */
	u8 parked; /* it sleeps as an M without P and goroutine */
	u32 generation; /* execs of its process that were seen */
	u8 is_sysmon;
	u8 padding[3];
};

/* On the task itself: it goes with the thread, and no other thread comes to it by a tid. */
BPF_TASK_STORAGE(threads, struct thread_state);

struct thread_room {
	s64 remaining; /* for threads that are yet to come */
	u64 missed; /* could not be followed, because there was none */
};
BPF_ARRAY(thread_room, struct thread_room, 1);

/* A target is no more. */
static __always_inline void give_room_back(void)
{
	int zero = 0;
	struct thread_room *room = thread_room.lookup(&zero);

	if (room)
		__sync_fetch_and_add(&room->remaining, 1);
}

/*
 * The numbers that threads in pid namespaces have in their own, which is what a runtime's memory
 * and the arguments of system calls tell.
 */
struct contained_tid {
	u32 tgid;
	u32 own_tid;
};
BPF_HASH(contained_tids, struct contained_tid, u32, 65536);

/* What could not be told, for the manifest (tracer/capture/followed.py). */
enum shortfall {
	FOREIGN_CALLS, /* system calls that are not of this architecture's own table */
	STACKS, /* of blocks, that found no room, or another in their place */
	STORAGE, /* times that a thread's state could not be looked up */
	PS, /* looks that did not get to the last P */
	SHORTFALL_COUNT,
};
BPF_ARRAY(shortfalls, u64, SHORTFALL_COUNT);

static __always_inline void count_shortfall(int which)
{
	u64 *count = shortfalls.lookup(&which);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* When the capture ends, if that is known: nothing is told of what comes after it. */
BPF_ARRAY(capture_end, s64, 1);

static __always_inline int after_end(s64 now)
{
	int zero = 0;
	s64 *end = capture_end.lookup(&zero);

	return end && *end && now > *end;
}

/*
 * The ways out. Records that come by the hundred thousand a second go into a ring of their CPU:
 * slots of an array that the reader has mapped. No lock is needed, since one program writes each
 * of them, and the kernel runs no program twice at a time on one CPU (wakeups have two; the
 * second, sched_wakeup_new, runs with interrupts off). What is seldom goes into ring buffers of
 * the kernel's, one for each table. Nobody is woken for a record, but the reader once when a ring
 * is half full: it may be asleep after a silence.
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

/* The record is in its slot: the reader may see it. x86-64 keeps the order of the two stores. */
static __always_inline void slot_filled(struct ring_end *end)
{
	asm volatile("" ::: "memory");
	end->produced++;
}

#define SIGNO_URG 23

static __always_inline int signal_wanted(int signo)
{
#ifdef ALL_SIGNALS
	return 1;
#else
	return signo == SIGNO_URG;
#endif
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

#ifdef LIVE
	if (record->kind != TASK_KIND_EXEC)
		return;
#endif
	if (after_end(record->ts_ns))
		return;
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

/* The same at an address whose type it does not know; 0 where it cannot be read. */
static __always_inline u32 task_u32(u64 task, int offset)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(task + offset));
	return value;
}

#ifdef STORAGE_REFUSES
/*
 * To Linux 6.1 a look-up finds nothing where it interrupts another on its CPU, as that of a wake-up
 * by an interrupt may. Whether the thread is a target cannot be told then; so it is counted.
 */
struct storage_use {
	u32 busy;
};
BPF_PERCPU_ARRAY(storage_uses, struct storage_use, 1);
#endif

static __always_inline struct thread_state *thread_state_of(struct task_struct *task)
{
#ifdef STORAGE_REFUSES
	int zero = 0;
	struct storage_use *use = storage_uses.lookup(&zero);

	if (!use)
		return 0;
	if (use->busy) {
		count_shortfall(STORAGE);
		return 0;
	}
	*(volatile u32 *)&use->busy = 1;
	asm volatile("" ::: "memory");
	struct thread_state *thread = threads.task_storage_get(task, 0, 0);
	asm volatile("" ::: "memory");
	*(volatile u32 *)&use->busy = 0;
	return thread;
#else
	return threads.task_storage_get(task, 0, 0);
#endif
}

/* The thread, if it is a target and has become what was asked for. */
static __always_inline struct thread_state *target(struct task_struct *task)
{
	struct thread_state *thread = thread_state_of(task);

	return thread && thread->where != BEFORE_EXEC ? thread : 0;
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

/* arch/x86/include/asm/thread_info.h: the current call came by the 32-bit entry. */
#define TS_COMPAT 0x0002

/*
 * The number of the current thread's system call, from the register that has it. UNKNOWN for a
 * call through the 32-bit entry, which a 64-bit program can make too: its table has other numbers
 * (and its arguments are in other registers).
 */
static __always_inline s16 call_number(s64 nr)
{
	if (nr != (s16)nr || nr < 0)
		return UNKNOWN;
	if (OFFSET_TASK_STATUS != UNKNOWN &&
	    field_u32(bpf_get_current_task_btf(), OFFSET_TASK_STATUS) & TS_COMPAT)
		return UNKNOWN;
	return nr;
}

static __always_inline s64 call_arg0(struct thread_state *thread)
{
	return thread->nr == UNKNOWN ? UNKNOWN : user_register(OFFSET_REGS_ARG0);
}

/* A thread of the same process, of which something in that process told the number. */
static __always_inline s32 tid_of(struct thread_state *thread, s64 told_tid)
{
	struct contained_tid key = {.tgid = thread->tgid, .own_tid = told_tid};

	if (!thread->contained || told_tid == UNKNOWN)
		return told_tid;
	u32 *tid = contained_tids.lookup(&key);
	return tid ? *tid : UNKNOWN;
}
