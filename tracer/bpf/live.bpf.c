// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * For `pretake live`: histograms of how long Ps were held, kept here; nothing is sent for a block.
 *
 * A hold begins at the first block of a call with P (sched.bpf.c) and ends when the runtime
 * takes that P back (runtime_probes.bpf.c), or uncounted when the call returns (syscalls.bpf.c).
 */

struct live_p {
	u32 tgid;
	s32 p;
};

struct live_hold {
	s64 block_ns;
	u32 tid;
	s16 nr;
	u8 harmful; /* work waited, and no idle P and no spinning M could take it */
	u8 padding[1];
};
BPF_HASH(live_holds, struct live_p, struct live_hold, 16384);

enum live_what {
	LIVE_RETAKE,
	LIVE_HARM,
};

struct live_key {
	s16 nr;
	u8 what;
	u8 bucket; /* 4 * log2 of the ns, and the two bits behind the first */
};
BPF_HASH(live_counts, struct live_key, u64, 16384);

static __always_inline void live_count(s16 nr, u8 what, u64 ns)
{
	u32 exponent = bpf_log2l(ns) - 1;
	u64 zero = 0, *count;

	if (exponent > 62)
		exponent = 62;
	struct live_key key = {
		.nr = nr,
		.what = what,
		.bucket = exponent < 2 ? 0 : 4 * exponent + (ns >> (exponent - 2) & 3),
	};
	count = live_counts.lookup_or_try_init(&key, &zero);
	if (count)
		__sync_fetch_and_add(count, 1);
}

/* A row of table block. */
static __always_inline void live_blocked(struct thread_state *thread, struct block_record *record)
{
	struct live_p p = {.tgid = thread->tgid, .p = record->p};
	struct live_hold hold = {
		.block_ns = record->ts_ns,
		.tid = record->tid,
		.nr = record->nr,
		.harmful = (record->runq > 0 || record->global_runq > 0) && record->npidle == 0 &&
			   record->nmspinning == 0,
	};

	if (thread->blocks != 1 || record->p < 0 || record->p_use != BLOCK_P_USE_SYSCALL)
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

static __always_inline void live_retaken(u64 now, s32 id)
{
	struct live_p p = {.tgid = bpf_get_current_pid_tgid() >> 32, .p = id};
	struct live_hold *hold = live_holds.lookup(&p);

	if (!hold)
		return;
	live_count(hold->nr, LIVE_RETAKE, now - hold->block_ns);
	if (hold->harmful)
		live_count(hold->nr, LIVE_HARM, now - hold->block_ns);
	live_holds.delete(&p);
}
