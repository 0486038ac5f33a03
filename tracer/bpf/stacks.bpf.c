// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Where a thread blocked: the calls that led there, for column stack_id of table block.
 *
 * The kernel walks the user's frame pointers, which Go keeps in everything but assembly, without
 * a fault: a page that is not there ends the walk. A stack is stored once, however often a
 * thread blocks with it; so it costs memory by call sites and not by time.
 */

#define STACK_FRAMES 64

struct block_stack {
	u64 pc[STACK_FRAMES];
};
BPF_TABLE("stacktrace", int, struct block_stack, stacks, 16384);
/* By stack_id: the process that blocked with it first. */
BPF_ARRAY(stack_owners, u32, 16384);

/*
 * The current thread's stack. UNKNOWN for a runtime that keeps no frame pointers (it has no g in
 * thread-local storage either: the reference runtime is Python's), for a stack that cannot be
 * read, and for one whose place another has taken.
 */
static __always_inline s32 user_stack(void *ctx)
{
#ifdef NO_STACKS
	return UNKNOWN;
#endif
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct runtime_layout *layout = runtime_layouts.lookup(&tgid);

	if (!layout || layout->g_tls == UNKNOWN)
		return UNKNOWN;
	int id = stacks.get_stackid(ctx, BPF_F_USER_STACK);
	if (id < 0)
		return UNKNOWN;
	u32 *owner = stack_owners.lookup(&id);
	if (owner && !*owner)
		*owner = tgid;
	return id;
}
