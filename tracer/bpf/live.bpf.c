// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * For `pretake live`: histograms of how long Ps were held, kept here; nothing is sent for a block.
 *
 * A hold begins at the first block of a call with P (sched.bpf.c) and ends when the runtime
 * takes that P back (runtime_probes.bpf.c). A call that returned with its P leaves its hold
 * behind, and the next block with that P replaces it: so a retake counts only while the thread is
 * still in the very call.
 */

struct live_p {
	u32 tgid;
	s32 p;
};

struct live_hold {
	s64 block_ns;
	s64 enter_ns;
	u32 tid;
	s16 nr;
	u8 harmful; /* work waited, and no idle P and no spinning M could take it */
	u8 padding;
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

/* A row of table block, and whether it is the first of its call. */
static __always_inline void live_blocked(struct block_record *record, s32 blocks)
{
	struct live_p p = {.tgid = bpf_get_current_pid_tgid() >> 32, .p = record->p};
	struct live_hold hold = {
		.block_ns = record->ts_ns,
		.enter_ns = record->enter_ns,
		.tid = record->tid,
		.nr = record->nr,
		.harmful = (record->runq > 0 || record->global_runq > 0) && record->npidle == 0 &&
			   record->nmspinning == 0,
	};

	if (blocks == 1 && record->p >= 0 && record->p_use == BLOCK_P_USE_SYSCALL)
		live_holds.update(&p, &hold);
}

static __always_inline void live_retaken(u64 now, s32 id)
{
	struct live_p p = {.tgid = bpf_get_current_pid_tgid() >> 32, .p = id};
	struct live_hold *hold = live_holds.lookup(&p);

	if (!hold)
		return;
	u32 tid = hold->tid;
	struct thread_state *thread = target(tid);
	if (thread && thread->where == IN_SYSCALL && thread->enter_ns == hold->enter_ns) {
		live_count(hold->nr, LIVE_RETAKE, now - hold->block_ns);
		if (hold->harmful)
			live_count(hold->nr, LIVE_HARM, now - hold->block_ns);
	}
	live_holds.delete(&p);
}
