// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Looks at the Ps when a thread leaves its CPU or comes on one.
 *
 * A thread that leaves is still the current one, so its process's memory can be read. A thread that
 * comes is not the current one yet: for it, only the P that it was given before is recorded.
 */

/*
 * The current thread leaves its CPU in a call, or in a fault, and has P: whoever takes P from it
 * takes it from this M. If another had it at the look before, P may have been taken from that one.
 *
 * Or it has lost P in this call already. If nobody has looked at P since, it is told here.
 */
static __always_inline void look_at_own_p(struct looker *looker, struct runtime_self *self)
{
	struct p_key key = {.tgid = looker->thread->tgid, .p = self->state.p};
	struct p_seen *seen = ps_seen.lookup(&key);

	if (!seen || seen->m == self->m)
		return;
	int look = seen->m != 0;
	if (self->p) {
		looker->own_m = self->m;
	} else {
		s64 tick = runtime_number(self->m, looker->layout->m_syscalltick, sizeof(s32));

		if (tick == UNKNOWN || (s32)((u32)tick - seen->tick) < 0)
			return;
		seen->m = self->m;
		seen->tid = looker->thread->tid;
		look = 1;
	}
	if (look)
		look_at_p(looker, self->p ? self->p : self->lost);
	if (self->p) {
		seen->m = self->m;
		seen->tid = looker->thread->tid;
	}
}

/*
 * What runtime_state_at_block() finds of a thread that blocks, for one that loses its CPU in a call:
 * a short call can last long then, and lose its P.
 */
static __always_inline void find_own_p(struct looker *looker, struct runtime_self *self)
{
	struct runtime_layout *layout = looker->layout;
	struct runtime_span *p_span = runtime_span(SPAN_P);
	u64 m = looker->thread->m;
	u64 curg = runtime_pointer(m, layout->m_curg);
	s64 status = runtime_number(curg, layout->g_status, layout->int_size);

	if (!p_span || status == UNKNOWN || (status & ~G_SCAN_BIT) != G_SYSCALL)
		return;
	u64 oldp = runtime_pointer(m, layout->m_oldp);
	u64 p = layout->model == RUNTIME_MODEL_PSYSCALL ? oldp : runtime_pointer(m, layout->m_p);
	span_read(p_span, p, span_begin(layout->p_id, layout->p_status), P_SPAN);
	if (!p || !runtime_still_held(layout, m, p_span))
		self->lost = oldp;
	else
		self->p = p;
	self->state.p = runtime_number(self->p ? self->p : oldp, layout->p_id, layout->int_size);
	self->m = m;
}

/*
 * A thread parks without P and without a goroutine. If its last call had lost its P, that call
 * came back and found none: exitsyscall0, exitsyscallNoP.
 */
static __always_inline void tell_slow_exit(struct looker *looker, struct runtime_self *self)
{
	struct thread_state *thread = looker->thread;
	struct p_key key = {.tgid = thread->tgid, .p = thread->call_p};

	if (thread->call_p == UNKNOWN)
		return;
	thread->call_p = UNKNOWN;
	struct p_seen *seen = ps_seen.lookup(&key);
	if (!seen || seen->told != call_key(self->m, thread->call_tick))
		return;
	struct runtime_state unknown = RUNTIME_STATE_UNKNOWN;
	struct runtime_event event = {
		.now = looker->now,
		.since = thread->returned_ns,
		.layout = looker->layout,
		.m = self->m,
		.state = unknown,
		.target_tid = UNKNOWN,
	};
	event.state.m = self->m_id;
	event.state.goid = thread->call_goid;
	runtime_emit_of(&event, thread->tid, RUNTIME_KIND_EXIT_SLOW, UNKNOWN);
}

/* At a block with P in a call; the tick is the call's. */
static __always_inline void note_call(struct thread_state *thread, struct runtime_layout *layout,
				      u64 m, s32 p, s64 goid)
{
	thread->call_p = p;
	thread->call_goid = goid;
	thread->call_tick = runtime_number(m, layout->m_syscalltick, sizeof(s32));
	thread->came_ns = thread->returned_ns;
	thread->returned_ns = 0;
}

/*
 * A thread that leaves its CPU is told by several programs, each of which ends in the next: the
 * verifier follows a program through all its ways, and those of all together are too many for it.
 */
enum {
	THREAD_LEFT, /* on_thread_left in sched.bpf.c */
	WHO_LEFT,
	LOOK,
	LOOK_AT_P,
	AFTER_SWITCH_COUNT,
};
BPF_PROG_ARRAY(after_switch, AFTER_SWITCH_COUNT);

/* Puts a looker together for the thread that leaves, which runtime_self() tells of. */
static __always_inline int looker_at_switch(struct looker *looker, struct thread_state *thread,
					    struct runtime_self *self)
{
	if (!thread || !self)
		return 0;
	u32 tgid = thread->tgid;
	looker->now = self->now;
	looker->thread = thread;
	looker->layout = layout_of(thread);
	if (!looker->layout)
		return 0;
	if (!thread->m)
		find_m(thread, looker->layout);
	if (!thread->m)
		return 0;
	looker->process = process_looks_of(tgid, self->now);
	return looker->process != 0;
}

/* What the thread is to its runtime, for who looks later; and whether to look now. */
int who_left(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = target((struct task_struct *)ctx->args[1]);
	struct runtime_self *self = runtime_self();
	struct looker looker = {};

	if (!looker_at_switch(&looker, thread, self))
		return 0;
	int without = self->m && !self->p && !self->curg;
	/* sysmon is the one M that has neither P nor goroutine, and sleeps by this call (usleep). */
	if (without && user_call() == NR_NANOSLEEP)
		thread->is_sysmon = 1;
	if (thread->is_sysmon) {
		looker.process->sysmon_tid = thread->tid;
		looker.process->sysmon_in_ns = thread->in_ns;
	}
#if defined(INFER) && !defined(PROBES_TOO)
	if (without && !thread->is_sysmon)
		tell_slow_exit(&looker, self);
#endif
	thread->parked = without && !thread->is_sysmon;
	/* Negative where it is not in the kernel for a call. */
	if (!self->blocked && user_call() >= 0)
		find_own_p(&looker, self);
	if (self->p || self->lost)
		look_at_own_p(&looker, self);
	if (thread->is_sysmon || self->now - looker.process->look_ns >= LOOK_PERIOD_NS)
		after_switch.call(ctx, LOOK);
	return 0;
}

static __always_inline void sysmon_left(struct looker *looker)
{
	if (looker->thread->is_sysmon)
		looker->process->sysmon_out_ns = looker->now;
}

int look_after_switch(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = target((struct task_struct *)ctx->args[1]);
	struct looker looker = {};

	if (!looker_at_switch(&looker, thread, runtime_self()))
		return 0;
	struct look_room *room = look_begins(&looker);
	if (room) {
		after_switch.call(ctx, LOOK_AT_P);
		look_ends(&looker, room); /* it could not be called */
	}
	sysmon_left(&looker);
	return 0;
}

/* Reads one P of those of this look, and calls itself for the next. */
int look_at_one(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = target((struct task_struct *)ctx->args[1]);
	struct looker looker = {};
	int zero = 0;
	struct look_room *room = look_rooms.lookup(&zero);

	if (!thread || !room)
		return 0;
	if (!looker_at_switch(&looker, thread, runtime_self())) {
		/* Another thread of it has just become another program. */
		u32 tgid = thread->tgid;
		struct process_looks *process = processes_looked_at.lookup(&tgid);

		if (process)
			process->busy = 0;
		return 0;
	}
	if (look_goes_on(&looker, room))
		after_switch.call(ctx, LOOK_AT_P);
	look_ends(&looker, room);
	sysmon_left(&looker);
	return 0;
}

/* A thread comes on a CPU. What runs there still is another's: nothing can be read. */
static __always_inline void look_at_enter(struct thread_state *thread, s64 now)
{
	thread->in_ns = now;
	if (!thread->returned_ns)
		thread->returned_ns = now;
	if (thread->is_sysmon) {
		u32 tgid = thread->tgid;
		struct process_looks *process = processes_looked_at.lookup(&tgid);

		if (process)
			process->sysmon_in_ns = now;
	}
	if (thread->given_p == UNKNOWN)
		return;
	struct runtime_state unknown = RUNTIME_STATE_UNKNOWN;
	struct runtime_event event = {
		.now = now, .since = UNKNOWN, .state = unknown, .target_tid = UNKNOWN};
	event.state.p = thread->given_p;
	event.state.m = thread->given_m;
	thread->given_p = UNKNOWN;
	runtime_emit_of(&event, thread->tid, RUNTIME_KIND_ACQUIREP, UNKNOWN);
}
