// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * For `pretake live`: histograms of how long Ps were held, kept here; nothing is sent for a block.
 *
 * A hold begins at the first block of a call with P (sched.bpf.c) and ends when the runtime
 * takes that P back (runtime_probes.bpf.c), or uncounted when the call returns (calls.bpf.c).
 *
 * The stack of the call is walked at the retake and not at the block: there are far more blocks,
 * and the stack would cost as much as all else at a block. The thread that takes P belongs to the
 * same process, so the caller's stack is in its address space, and does not change while the call
 * goes on.
 */

struct live_p {
	u32 tgid;
	s32 p;
};

struct live_hold {
	s64 block_ns;
	u64 regs; /* where the kernel keeps the caller's registers */
	u32 tid;
	u32 tick; /* of the call, where the runtime counts them */
	s16 nr;
	u8 harmful; /* work waited, and no idle P and no spinning M could take it */
	u8 back; /* the thread has a CPU again, and may have returned */
	u8 padding[4];
};
BPF_HASH(live_holds, struct live_p, struct live_hold, 16384);

/* Frames of a stack: enough to leave the runtime's and the libraries' on the way to any call. */
#define LIVE_FRAMES 16

struct live_stack {
	u64 pc[LIVE_FRAMES]; /* innermost first; 0 behind the last */
	u32 tgid; /* process that was seen with it first */
	u32 generation; /* and its program */
};
/* By a hash of the process, its program and all addresses. */
BPF_HASH(live_stacks, u64, struct live_stack, 2048);

/* A time of e octaves and q quarters is in bucket 4 * e + q. */
#define LIVE_BUCKETS 256

struct live_counts {
	u64 retake[LIVE_BUCKETS];
	u64 harm[LIVE_BUCKETS];
};

struct live_site {
	u64 stack; /* of live_stacks, or LIVE_NO_STACK */
	s64 nr;
};
#define LIVE_NO_STACK 0
#define LIVE_NO_ROOM 1
BPF_HASH(live_sites, struct live_site, struct live_counts, 2048);
BPF_ARRAY(live_zeros, struct live_counts, 1);
/* By system call: where sites count for which there is no room; and how often they did. */
BPF_ARRAY(live_others, struct live_counts, 512);
BPF_ARRAY(live_others_used, u64, 1);
/* By system call: Ps that were taken after a block of one, nobody knows how long after; and all. */
BPF_ARRAY(live_unknown, u64, 512);
BPF_ARRAY(live_unknown_used, u64, 1);

/* No branch here either (see below): bcc's bpf_log2l() has 64 ways through it. */
static __always_inline u32 live_bucket(u64 ns)
{
	u64 rest = ns | 4; /* what is shorter than 4 ns is not */
	u32 exponent = 0;
#pragma unroll
	for (u32 step = 32; step; step /= 2) {
		/* All ones where there is a bit at `step` or above it. */
		u32 shift = ((s64)((1ULL << step) - 1 - rest) >> 63) & step;

		exponent += shift;
		rest >>= shift;
	}
	return 4 * exponent + (ns >> (exponent - 2) & 3);
}

/*
 * The stack of a thread of this process that is in a system call, by its frame pointers, as the
 * kernel's own walk. LIVE_NO_STACK for a runtime that keeps no frame pointers (stacks.bpf.c) and
 * for a stack that cannot be read.
 */
static __always_inline u64 live_stack_of(u64 regs)
{
	struct thread_state *thread = current_target();
	struct runtime_layout *layout = thread ? layout_of(thread) : 0;
	struct live_stack stack = {};
	struct {
		u64 frame;
		u64 pc;
	} at = {};

	if (!thread || !layout || layout->g_tls == UNKNOWN)
		return LIVE_NO_STACK;
	at.pc = kernel_pointer(regs, OFFSET_REGS_PC);
	at.frame = kernel_pointer(regs, OFFSET_REGS_FRAME);
	/* FNV-1a, a word at a time. */
	u64 hash = 0xcbf29ce484222325 ^ ((u64)thread->generation << 32 | thread->tgid);
#pragma unroll
	for (int i = 0; i < LIVE_FRAMES; i++) {
		stack.pc[i] = at.pc;
		hash = (hash ^ at.pc) * 0x100000001b3;
		/*
		 * What cannot be read is zeros, and ends the walk: from there on the address is one
		 * that is refused at once. No branch, for the verifier follows each to the end.
		 */
		u64 ended = ~((s64)(at.frame | -at.frame) >> 63);
		bpf_probe_read_user(&at, sizeof(at), (void *)(at.frame | ended));
	}
	if (!stack.pc[0])
		return LIVE_NO_STACK;
	stack.tgid = thread->tgid;
	stack.generation = thread->generation;
	return live_stacks.lookup_or_try_init(&hash, &stack) ? hash : LIVE_NO_ROOM;
}

static __always_inline struct live_counts *live_counts_of(u64 stack, s16 nr)
{
	struct live_site site = {.stack = stack, .nr = nr};
	int zero = 0, number = nr;
	struct live_counts *zeros = live_zeros.lookup(&zero);
	struct live_counts *counts = 0;

	if (zeros && stack != LIVE_NO_ROOM)
		counts = live_sites.lookup_or_try_init(&site, zeros);
	if (counts)
		return counts;
	u64 *used = live_others_used.lookup(&zero);
	if (used)
		__sync_fetch_and_add(used, 1);
	return live_others.lookup(&number);
}

/* A thread that holds a P in a call is on a CPU again, or blocks there once more. */
static __always_inline void live_back(struct thread_state *thread, u8 back)
{
	struct live_p p = {.tgid = thread->tgid, .p = thread->held_p};

	if (p.p == UNKNOWN)
		return;
	struct live_hold *hold = live_holds.lookup(&p);
	if (hold && hold->tid == thread->tid)
		hold->back = back;
}

/* A row of table block. */
static __always_inline void live_blocked(struct thread_state *thread, struct block_record *record)
{
	struct live_p p = {.tgid = thread->tgid, .p = record->p};
	struct live_hold hold = {
		.block_ns = record->ts_ns,
		.regs = (u64)bpf_task_pt_regs(bpf_get_current_task_btf()),
		.tid = record->tid,
		.tick = thread->call_tick,
		.nr = record->nr,
		.harmful = (record->runq > 0 || record->global_runq > 0) && record->npidle == 0 &&
			   record->nmspinning == 0,
	};

	if (thread->call.blocks != 1)
		live_back(thread, 0);
	if (thread->call.blocks != 1 || record->p < 0 || record->p_use != BLOCK_P_USE_SYSCALL)
		return;
	thread->held_p = record->p;
	live_holds.update(&p, &hold);
}

/* A call that blocked came back: what it held is its own again, or another's by now. */
static __always_inline void live_returned(struct thread_state *thread)
{
	struct live_p p = {.tgid = thread->tgid, .p = thread->held_p};

	if (p.p == UNKNOWN)
		return;
	thread->held_p = UNKNOWN;
	struct live_hold *hold = live_holds.lookup(&p);
	if (hold && hold->tid == thread->tid)
		live_holds.delete(&p);
}

static __always_inline void live_count_unknown(s16 nr)
{
	int zero = 0, number = nr;
	u64 *used = live_unknown_used.lookup(&zero), *count = live_unknown.lookup(&number);

	if (used)
		__sync_fetch_and_add(used, 1);
	if (count)
		__sync_fetch_and_add(count, 1);
}

/*
 * P was taken from a call: from the one that holds it here, by the tick that the M keeps of its call,
 * where that was read (`tick`, else UNKNOWN). Where it was not, a hold whose thread has a CPU again
 * is counted as unknown: it may have returned, and P be taken from a later call that did not block.
 */
static __always_inline void live_retaken(u64 now, s32 id, s64 tick)
{
	struct live_p p = {.tgid = bpf_get_current_pid_tgid() >> 32, .p = id};
	struct live_hold *hold = live_holds.lookup(&p);

	if (!hold)
		return;
	if (tick == UNKNOWN ? hold->back : hold->tick != (u32)tick) {
		if (tick == UNKNOWN)
			live_count_unknown(hold->nr);
		live_holds.delete(&p);
		return;
	}
#ifdef LIVE_ROWS
	/* A stack and a record have no room beside each other: 512 bytes. */
	u64 stack = LIVE_NO_STACK;
#else
	u64 stack = live_stack_of(hold->regs);
#endif
	struct live_counts *counts = live_counts_of(stack, hold->nr);
	u64 bucket = BOUNDED(live_bucket(now - hold->block_ns), LIVE_BUCKETS);

	if (counts) {
		__sync_fetch_and_add(&counts->retake[bucket], 1);
		if (hold->harmful)
			__sync_fetch_and_add(&counts->harm[bucket], 1);
	}
	live_holds.delete(&p);
}
