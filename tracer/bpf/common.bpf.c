// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * What all the programs share: which threads are targets, and what each of them is doing.
 *
 * Compiled in front of the other files of this folder (tracer/kernel/compiler.py). No kernel struct
 * is read through a header: the headers bcc compiles against need not be the running kernel's, whose
 * offsets come in when a program is loaded (constants.bpf.c).
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

/* A call between the parts that a signal makes of it (calls_exact.bpf.c, calls_inferred.bpf.c). */
enum broken_call {
	NOT_BROKEN,
	BROKEN_OFF, /* the signal is yet to be looked at */
	SET_ASIDE, /* its handler runs; then the call is begun again */
	TO_RESUME, /* the handler returned to the call's instruction */
};

/* A system call of a thread. */
struct call {
	s64 enter_ns; /* when it was entered, or the latest that it can have been */
	s64 enter_since_ns; /* and the earliest; UNKNOWN where enter_ns is exact */
	s64 arg0; /* set at its first block */
	s64 blocked_ns; /* all the time in it that the thread was not runnable */
	s64 off_ns; /* it was last known to be in it, off its CPU */
	u64 pc; /* where it returns to; this and sp where they are needed */
	u64 sp;
	s32 blocks;
	s16 nr; /* UNKNOWN for a call that is not of this architecture's table */
	s16 padding;
};

struct thread_state {
	struct call call; /* that it is in, or was last told to be in */
	struct call aside; /* that is to be begun again after a signal */
	s64 aside_ns; /* when the signal came; this and the next two in calls_inferred.bpf.c */
	s64 aside_goid;
	s64 aside_tick;
	s64 calls_since_ns; /* it has entered no call before this that is not told; 0: not known */
	s64 block_ns; /* since when it is not runnable; 0 when it is */
	u64 m; /* of its runtime; 0 when it is not known */
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
	s32 held_p; /* at its first block, for live.bpf.c */
	u32 next_p; /* for go_stw_takes, between its runs */
	s16 broken_by; /* what a call that is broken off returned in the kernel */
	u8 where;
	u8 broken;
	u8 contained; /* in a pid namespace, so that own_tid and tid are two numbers */
	u8 parked; /* it sleeps as an M without P and goroutine */
	u32 generation; /* execs of its process that were seen */
	u8 is_sysmon;
	u8 padding[5];
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
	BROKEN_CALLS, /* of which it is not known whether they began again after a signal */
	SHORTFALL_COUNT,
};
BPF_ARRAY(shortfalls, u64, SHORTFALL_COUNT);

static __always_inline void count_shortfall(int which)
{
	u64 *count = shortfalls.lookup(&which);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline u32 current_tid(void)
{
	return (u32)bpf_get_current_pid_tgid();
}

/*
 * The same value, of which the verifier knows nothing any more. Where a branch chose it, the
 * verifier then goes on once, and not once for each value: to Linux 6.1 that was ten times as much.
 * `unknown` is a number that it never knew, as the time.
 */
static __always_inline s64 any_value(s64 value, s64 unknown)
{
	asm volatile("%0 ^= %1; %0 ^= %1" : "+r"(value) : "r"(unknown));
	return value;
}

/* The index in bounds, where the verifier sees it: clang may put its own mask elsewhere. */
#define BOUNDED(index, size)                                                                      \
	({                                                                                        \
		u64 bounded_ = (index);                                                           \
		asm volatile("%0 &= %1" : "+r"(bounded_) : "i"((size)-1));                        \
		bounded_;                                                                         \
	})

/* A field at an address whose type the verifier does not know; 0 where it cannot be read. */
static __always_inline u32 read_u32(u64 address)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}
#define task_u32(task, name) read_u32((task) + CONSTANT(name))

/* The same for a pointer; 0 also for a field that this kernel has not. */
static __always_inline u64 read_pointer(u64 base, s64 offset)
{
	u64 value = 0;

	if (!base || offset == UNKNOWN)
		return 0;
	if (bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset)))
		return 0;
	return value;
}
#define kernel_pointer(base, name) read_pointer(base, CONSTANT(name))

#ifdef STORAGE_REFUSES
/*
 * To Linux 6.1 a look-up finds nothing where it interrupts another on its CPU, as that of a wake-up
 * by an interrupt may. Whether the thread is a target cannot be told then; so it is counted.
 * Compiled in, and no constant: as one of two branches it takes more stack than a program has.
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
#define user_register(name)                                                                       \
	((s64)field_u64((void *)bpf_task_pt_regs(bpf_get_current_task_btf()), name))

/*
 * The number of a thread's system call, from the register that has it. UNKNOWN for a
 * call through the 32-bit entry, which a 64-bit program can make too: its table has other numbers
 * (and its arguments are in other registers).
 */
static __always_inline s16 call_number_of(struct task_struct *task, s64 nr)
{
	if (nr != (s16)nr || nr < 0)
		return UNKNOWN;
	if (CONSTANT(OFFSET_TASK_STATUS) != UNKNOWN &&
	    field_u32(task, OFFSET_TASK_STATUS) & TASK_STATUS_COMPAT)
		return UNKNOWN;
	return nr;
}

static __always_inline s16 call_number(s64 nr)
{
	return call_number_of(bpf_get_current_task_btf(), nr);
}

static __always_inline s64 call_arg0(struct thread_state *thread)
{
	return thread->call.nr == UNKNOWN ? UNKNOWN : user_register(OFFSET_REGS_ARG0);
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
