// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * The flags of one thread (thread_info.flags) at each of its blocks in write(2), for
 * tracer/kernel/return_flag.py. Compiled behind constants.bpf.c alone, and loaded before all else.
 */
#include <uapi/linux/ptrace.h>
#include <linux/types.h>

#define BLOCKS_MOST 64
#define NR_WRITE 1

struct seen_flags {
	u32 tid; /* whose */
	u32 count; /* of its blocks */
	u64 flags[BLOCKS_MOST]; /* at each of them */
};
BPF_ARRAY(flags_seen, struct seen_flags, 1);

/* args: preempt, prev, next */
int on_switch_of_one(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	struct seen_flags *seen = flags_seen.lookup(&zero);
	struct task_struct *task = (struct task_struct *)ctx->args[1];

	if (!seen || field_u32(task, OFFSET_TASK_PID) != seen->tid)
		return 0;
	/* Where it is preempted, or waits for Python's lock, it tells nothing. */
	void *regs = (void *)bpf_task_pt_regs(task);
	if (ctx->args[0] || !field_u32(task, OFFSET_TASK_STATE) ||
	    field_u64(regs, OFFSET_REGS_NR) != NR_WRITE)
		return 0;
	u32 at = seen->count++;
	if (at < BLOCKS_MOST)
		seen->flags[at] = field_u64(task, OFFSET_TASK_THREAD_FLAGS);
	return 0;
}
