// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Which target thread has a CPU, and why it left: tables sched_switch, sched_wakeup and block.
 *
 * A row of sched_switch is written when either side of the switch is a target, or, with HOST,
 * always. When a thread leaves its CPU blocked in a system call, its runtime's memory is
 * read at the same moment (runtime_state.bpf.c), so no function of the runtime needs a probe for
 * that.
 */

/* Task states that mean the thread is no more (TASK_DEAD, EXIT_ZOMBIE, EXIT_DEAD). */
#define STATE_DEAD 0xb0
/* SIGSTOP and ptrace (__TASK_STOPPED, __TASK_TRACED). */
#define STATE_STOPPED 0x0c
/* A cgroup's freezer, version 1 (TASK_FROZEN, since f5d39b020809). */
#define STATE_FROZEN 0x8000
#define STATE_INTERRUPTIBLE 0x01
/* The same before it (TASK_UNINTERRUPTIBLE, and PF_FROZEN in the flags). */
#define STATE_UNINTERRUPTIBLE 0x02
#define FLAG_FROZEN 0x10000
/* JOBCTL_TRAP_FREEZE: a cgroup's freezer, version 2. */
#define JOB_FREEZES (1 << 23)

/*
 * Whether a thread that sleeps does so because its cgroup is frozen. Version 2 sleeps as in a call
 * that a signal ends (do_freezer_trap), and nothing else of the thread can: a signal is pending
 * for it until it gets there. A wait that no signal ends goes on beside the freezing.
 */
static __always_inline int frozen(struct task_struct *task, u32 state)
{
	if (state & STATE_FROZEN)
		return 1;
	if (state & STATE_INTERRUPTIBLE)
		return !!(field_u64((void *)task, OFFSET_TASK_JOBCTL) & JOB_FREEZES);
	return state & STATE_UNINTERRUPTIBLE &&
	       field_u32((void *)task, OFFSET_TASK_FLAGS) & FLAG_FROZEN;
}

static __always_inline s8 switch_reason(struct bpf_raw_tracepoint_args *ctx)
{
	u32 state;

	/* Since 9c2136be0878 ("sched/tracing: Append prev_state to tp args instead"). */
	if (CONSTANT(SCHED_SWITCH_HAS_PREV_STATE))
		state = *(volatile u64 *)&ctx->args[3];
	else
		state = field_u32((void *)ctx->args[1], OFFSET_TASK_STATE);

	/* args[0]: taken off the CPU by force, whatever it was about to do. */
	if (ctx->args[0] || !state)
		return SCHED_SWITCH_PREV_STATE_PREEMPTED;
	if (state & STATE_DEAD)
		return SCHED_SWITCH_PREV_STATE_DEAD;
	if (state & STATE_STOPPED || frozen((void *)ctx->args[1], state))
		return SCHED_SWITCH_PREV_STATE_STOPPED;
	return SCHED_SWITCH_PREV_STATE_BLOCKED;
}

/* args: address, registers, error code; on the thread itself */
int on_page_fault_user(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = current_target();

	if (thread)
		thread->fault_address = ctx->args[0];
	return 0;
}

/* Where a block row is put together; not on the stack, see struct runtime_self. */
BPF_PERCPU_ARRAY(block_rooms, struct block_record, 1);

static __always_inline void thread_blocked(struct thread_state *thread, s64 now,
					   struct runtime_layout *layout, struct runtime_self *self)
{
	s64 nr = user_call();

	thread->block_ns = now;
	/* Negative for a thread that is in the kernel for another reason than a call. */
	int fault = nr < 0;
	if (!fault && !call_blocks(thread, nr, now))
		return;
	if (!fault) {
		if (thread->call.blocks++ == 0)
			thread->call.arg0 = call_arg0(thread);
		thread->call.off_ns = now;
	}

	int zero = 0;
	struct block_record *record = block_rooms.lookup(&zero);
	if (!layout || !record)
		return;
	__builtin_memset(record, 0xff, sizeof(*record)); /* all UNKNOWN */
	record->ts_ns = now;
	record->tid = thread->tid;
	record->cpu = bpf_get_smp_processor_id();
	if (fault) {
		record->why = BLOCK_WHY_FAULT;
		record->address = thread->fault_address;
	} else {
		record->why = BLOCK_WHY_SYSCALL;
		record->enter_ns = thread->call.enter_ns;
		record->arg0 = thread->call.arg0;
		record->nr = thread->call.nr;
	}
	if (!runtime_state_at_block(thread, layout, record, self))
		return;
	if (record->p_use == BLOCK_P_USE_SYSCALL && !fault)
		note_call(thread, layout, self->m, record->p, record->goid);
#ifdef LIVE
	live_blocked(thread, record);
#ifdef LIVE_ROWS
	/* Histograms name the calls: this row is for the time alone. */
	record->stack_id = UNKNOWN;
	emit_block(record);
#endif
#else
	record->stack_id = user_stack(thread, layout);
	emit_block(record);
#endif
}

/* args: preempt, prev, next */
int on_sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *leaves = target((struct task_struct *)ctx->args[1]);
	struct thread_state *enters = target((struct task_struct *)ctx->args[2]);

	if (!leaves) {
		/* Keeps clang from joining the two tests: the verifier refuses pointer | pointer. */
		asm volatile("" ::: "memory");
		if (!enters && !CONSTANT(HOST))
			return 0;
	}

	u32 prev_tid = field_u32((void *)ctx->args[1], OFFSET_TASK_PID);
	struct sched_switch_record record = {
		.ts_ns = bpf_ktime_get_ns(),
		.prev_tid = prev_tid,
		.next_tid = field_u32((void *)ctx->args[2], OFFSET_TASK_PID),
		.cpu = bpf_get_smp_processor_id(),
		.prev_state = prev_tid ? switch_reason(ctx) : UNKNOWN,
	};
	emit_sched_switch(&record);

	if (enters) {
		/* Seldom: its waking came before the capture did. */
		if (enters->block_ns) {
			enters->call.blocked_ns += record.ts_ns - enters->block_ns;
			enters->block_ns = 0;
		}
		call_enters_cpu(enters, (struct task_struct *)ctx->args[2], record.ts_ns);
		look_at_enter(enters, record.ts_ns);
	}
	if (!leaves)
		return 0;
	call_leaves_cpu(leaves, (struct task_struct *)ctx->args[1], record.ts_ns);
	if (record.prev_state == SCHED_SWITCH_PREV_STATE_DEAD) {
		give_room_back();
		return 0;
	}
	struct runtime_self *self = runtime_self_unknown();
	if (!self)
		return 0;
	self->now = record.ts_ns;
	self->blocked = record.prev_state == SCHED_SWITCH_PREV_STATE_BLOCKED;
	after_switch.call(ctx, THREAD_LEFT);
	return 0;
}

/* A target left its CPU, and is still the current thread: its runtime's memory can be read. */
int on_thread_left(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = target((struct task_struct *)ctx->args[1]);
	struct runtime_self *self = runtime_self();

	if (!thread || !self)
		return 0;
	struct runtime_layout *layout = layout_of(thread);
	if (self->blocked)
		thread_blocked(thread, self->now, layout, self);
	if (layout)
		after_switch.call(ctx, WHO_LEFT);
	return 0;
}

static __always_inline int woken(struct task_struct *task, s16 target_cpu, s8 kind)
{
	struct thread_state *thread = target(task);

	if (!thread)
		return 0;

	struct sched_wakeup_record record = {
		.ts_ns = bpf_ktime_get_ns(),
		/* Not thread->tid: who execs has its process's number before the exec is told. */
		.tid = field_u32(task, OFFSET_TASK_PID),
		.waker_tid = current_tid(),
		.cpu = bpf_get_smp_processor_id(),
		.target_cpu = target_cpu,
		.kind = kind,
	};
	emit_sched_wakeup(&record);
	if (thread->block_ns) {
		thread->call.blocked_ns += record.ts_ns - thread->block_ns;
		thread->call.off_ns = record.ts_ns;
		thread->block_ns = 0;
	}
	look_at_waking(thread, record.ts_ns);
	return 0;
}

/* sched_waking, not sched_wakeup: that one may run on the woken thread's CPU, with no waker. */
int on_sched_waking(struct bpf_raw_tracepoint_args *ctx)
{
	return woken((struct task_struct *)ctx->args[0], UNKNOWN, SCHED_WAKEUP_KIND_WAKEUP);
}

int on_sched_wakeup_new(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];

	return woken(task, field_u32(task, OFFSET_TASK_CPU), SCHED_WAKEUP_KIND_NEW);
}
