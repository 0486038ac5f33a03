// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * The state of the runtime for a block row, read from its memory at sched_switch: the goroutine of
 * the thread that blocks, its M, the P that it has, and how many goroutines wait for that P.
 *
 * There are two models of a P in a system call: up to Go 1.25 P has a status for it, and from 1.26
 * on only the goroutine has (runtime_still_held).
 */

/* Go's numbers (runtime2.go), which the reference runtime shares. */
#define G_SYSCALL 3
#define G_SCAN_BIT 0x1000
#define P_SYSCALL 2
#define P_GCSTOP 3

/*
 * Whether an M in a system call still has its P, or it was taken or given away. To Go 1.25: the
 * M lets go of it at once (m.p is nil), and until somebody changes its status, or the tick that
 * every retake raises, it is still there for the M to come back to (m.oldp). From Go 1.26 it
 * keeps m.p until somebody takes it, and nothing else has to be looked at.
 */
static __always_inline int runtime_still_held(struct runtime_layout *layout, u64 m,
					      struct runtime_span *p)
{
	if (layout->model != RUNTIME_MODEL_PSYSCALL)
		return 1;
	return span_number(p, layout->p_status, layout->int_size, P_SPAN) == P_SYSCALL &&
	       span_number(p, layout->p_syscalltick, sizeof(s32), P_SPAN) ==
		       runtime_number(m, layout->m_syscalltick, sizeof(s32));
}

/*
 * What the thread that leaves this CPU is to its runtime; 0 for what it has not. In a map and not on
 * the stack: of that the verifier tells apart whatever values a branch has left there, and follows
 * each to the end.
 */
struct runtime_self {
	u64 m;
	u64 p; /* that it holds, in a call or not */
	u64 oldp;
	u64 lost; /* the P that was taken from the call that it is in */
	u64 curg;
	s64 status; /* of curg */
	struct runtime_state state; /* of p */
	s64 now;
	s32 m_id;
	u32 blocked; /* and not preempted or stopped */
};
BPF_PERCPU_ARRAY(runtime_selves, struct runtime_self, 1);

static __always_inline struct runtime_self *runtime_self(void)
{
	int zero = 0;

	return runtime_selves.lookup(&zero);
}

static __always_inline struct runtime_self *runtime_self_unknown(void)
{
	struct runtime_self *self = runtime_self();
	struct runtime_self nothing = {
		.status = UNKNOWN, .state = RUNTIME_STATE_UNKNOWN, .m_id = UNKNOWN};

	/* All of it: what is left in it is of the thread that left this CPU before. */
	if (self)
		*self = nothing;
	return self;
}

/*
 * Fills a block row's goid, p, m, runq, global_runq, npidle, nmspinning and p_use for the current
 * thread, and tells what it is in `self`. Returns whether there is a row to write: not where the
 * thread blocks on nobody's behalf, with no runtime in reach, or as a thread of the runtime itself
 * (sysmon, a parked M, an M that looks for work), which runs no goroutine.
 */
static __always_inline int runtime_state_at_block(struct thread_state *thread,
						  struct runtime_layout *layout,
						  struct block_record *record,
						  struct runtime_self *self)
{
	struct runtime_span *span = runtime_span(SPAN_ANY), *p_span = runtime_span(SPAN_P);

	if (!span || !p_span)
		return 0;

	self->m = runtime_read_m(thread, layout, span);
	self->curg = span_pointer(span, layout->m_curg, M_SPAN);
	self->p = span_pointer(span, layout->m_p, M_SPAN);
	self->oldp = span_pointer(span, layout->m_oldp, M_SPAN);
	self->m_id = span_number(span, layout->m_id, sizeof(s64), M_SPAN);
	record->m = self->m_id;
	span_read(span, self->curg, span_begin(layout->g_goid, layout->g_status), G_SPAN);
	record->goid = span_number(span, layout->g_goid, sizeof(s64), G_SPAN);
	self->status = span_number(span, layout->g_status, layout->int_size, G_SPAN);
	if (record->goid < 0)
		self->curg = 0;
	/* But an M that looks for work, or starts a goroutine, may fault with its P. */
	if (!self->curg && record->why == BLOCK_WHY_SYSCALL)
		return 0;

	int in_syscall = self->status != UNKNOWN && (self->status & ~G_SCAN_BIT) == G_SYSCALL;
	if (in_syscall && layout->model == RUNTIME_MODEL_PSYSCALL)
		self->p = self->oldp;
	span_read(p_span, self->p, span_begin(layout->p_id, layout->p_status), P_SPAN);
	if (!in_syscall || runtime_still_held(layout, self->m, p_span))
		runtime_read_p(layout, p_span, self->p, &self->state);
	record->p = self->state.p;
	record->runq = self->state.runq;
	if (record->p < 0)
		self->p = 0;
	if (self->p) {
		record->p_use = in_syscall ? BLOCK_P_USE_SYSCALL : BLOCK_P_USE_RAW;
		if (self->status == UNKNOWN)
			record->p_use = UNKNOWN;
	} else if (!in_syscall || record->why != BLOCK_WHY_SYSCALL) {
		return 0;
	} else if (layout->g_tls == UNKNOWN && record->nr == NR_FUTEX) {
		/*
		 * Before and after its call a thread of the reference runtime may have to wait for
		 * Python's lock. That is no call of the goroutine's.
		 */
		return 0;
	} else {
		record->p_use = BLOCK_P_USE_HANDED_OFF;
		/* Whose it was: taken before the block; nil where it was given away. */
		record->p = runtime_number(self->oldp, layout->p_id, layout->int_size);
		record->runq = UNKNOWN;
		self->lost = self->oldp;
		self->state.p = record->p;
	}

	runtime_read_sched(layout, span, runtime_sched(layout, self->m), &self->state);
	record->npidle = self->state.npidle;
	record->nmspinning = self->state.nmspinning;
	record->global_runq = self->state.global_runq;
	return 1;
}
