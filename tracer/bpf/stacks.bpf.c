// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Where a thread blocked: the calls that led there, for column stack_id of table block.
 *
 * The walk follows the user's frame pointers, which Go keeps in everything but assembly. It takes
 * no fault: a page that is not there ends it. It finds the same as the kernel's bpf_get_stackid(),
 * at a tenth of the cost, for two reasons. That function reads the frame of the outermost function,
 * which is nil, and so takes a page fault at every block. And the top of the stack, where most
 * frames are, is copied here by one read instead of two for each frame. A stack is stored once,
 * however often a thread blocks with it, so the memory grows with call sites and not with time.
 */

#define STACK_FRAMES 64
#define STACK_WORDS 128 /* of the top of the stack; a power of two */

struct block_stack {
	u64 hash; /* of the process, its program and all addresses */
	u32 tgid;
	u32 generation;
	u64 pc[STACK_FRAMES]; /* innermost first; 0 behind the outermost */
};
/* By stack_id, which is a part of the hash. Takes memory as stacks come, where the kernel can do that
 * (tracer/kernel/fitting.py). */
BPF_F_TABLE("hash", u32, struct block_stack, stacks, 65536, BPF_F_NO_PREALLOC);

struct stack_walk {
	struct block_stack found;
	u64 words[STACK_WORDS];
};
BPF_PERCPU_ARRAY(stack_walks, struct stack_walk, 1);

struct stack_frame {
	u64 caller; /* its frame */
	u64 pc;
};

static __always_inline u64 stack_hash(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15;
	return hash ^ hash >> 32;
}

/*
 * The current thread's stack. UNKNOWN for a runtime that keeps no frame pointers (it has no g in
 * thread-local storage either: the reference runtime is Python's), and, which is counted, for a
 * stack that cannot be stored and for one whose place another has taken.
 */
static __always_inline s32 user_stack(struct thread_state *thread, struct runtime_layout *layout)
{
	if (CONSTANT(NO_STACKS))
		return UNKNOWN;

	int zero = 0;
	struct stack_walk *walk = stack_walks.lookup(&zero);

	if (!walk || layout->g_tls == UNKNOWN)
		return UNKNOWN;

	struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	u64 top = field_u64(regs, OFFSET_REGS_SP);
	u64 at = field_u64(regs, OFFSET_REGS_FRAME);
	u64 pc = field_u64(regs, OFFSET_REGS_PC);
	u64 copied = sizeof(walk->words);
	u64 hash = stack_hash((u64)thread->generation << 32 | thread->tgid, pc);

	/* Now, for to the verifier how many frames there are is a state for each of them. */
	__builtin_memset(walk->found.pc, 0, sizeof(walk->found.pc));
	if (bpf_probe_read_user(walk->words, sizeof(walk->words), (void *)top))
		copied = sizeof(u64); /* nothing */
	walk->found.pc[0] = pc;
	for (int i = 1; i < STACK_FRAMES; i++) {
		u64 from = at - top;
		struct stack_frame frame = {};

		/* The outermost has none; to find that out by a fault costs as much as all the rest. */
		if (!at)
			break;
		if (from < copied - sizeof(u64) && !(from & 7)) {
			u32 word = from / sizeof(u64);
			frame.caller = walk->words[word & (STACK_WORDS - 1)];
			frame.pc = walk->words[(word + 1) & (STACK_WORDS - 1)];
		} else if (bpf_probe_read_user(&frame, sizeof(frame), (void *)at)) {
			break;
		}
		walk->found.pc[i & (STACK_FRAMES - 1)] = frame.pc;
		hash = stack_hash(hash, frame.pc);
		at = frame.caller;
	}

	u32 id = hash & 0x7fffffff;
	struct block_stack *known = stacks.lookup(&id);
	walk->found.hash = hash;
	walk->found.tgid = thread->tgid;
	walk->found.generation = thread->generation;
	if (known ? known->hash == hash : !stacks.update(&id, &walk->found))
		return id;
	count_shortfall(STACKS);
	return UNKNOWN;
}
