// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * System calls from their own tracepoints: each entry and return, with its time and its result.
 *
 * For `--calls exact` and `--detail full`. A program at sys_enter or sys_exit makes every thread of
 * the machine take the slow path into the kernel (SYSCALL_WORK_SYSCALL_TRACEPOINT is set for all),
 * so every other process pays for each of its calls.
 *
 * The entry waits in the thread's state. A call that never blocked makes no record unless
 * DETAIL_FULL is defined, so a program that is fast in the kernel costs two look-ups a call. All
 * that can be read at the end is read there, and only for a call that makes a record.
 *
 * A record is one call as the program made it. A signal can turn it into several calls in the
 * kernel. For example, a read that is interrupted returns -ERESTARTSYS to the kernel, which then
 *   - lets it fail with EINTR (signals.bpf.c knows when): the call ended with that result;
 *   - finds no handler to run, as after SIGSTOP and SIGCONT, and begins it again at once: the
 *     next entry belongs to the same call, with its own number or as restart_syscall;
 *   - runs a handler first, which may make calls of its own; its rt_sigreturn goes back to the
 *     call's instruction, and the next entry belongs to the same call.
 * If a handler interrupts a call inside another handler, only the outer call is put together.
 */

#ifdef CALLS_EXACT

/* Whether the call that is entered is one that was begun before, which then goes on. */
static __always_inline int call_goes_on(struct thread_state *thread, s16 nr)
{
	u8 broken = thread->broken;

	if (broken == BROKEN_OFF) {
		thread->broken = NOT_BROKEN;
		return nr == thread->call.nr || nr == NR_RESTART_SYSCALL;
	}
	if (broken != TO_RESUME)
		return 0;
	thread->broken = NOT_BROKEN;
	if (nr != thread->aside.nr)
		return 0;
	thread->call = thread->aside;
	return 1;
}

int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = current_target();

	if (!thread)
		return 0;

	s16 nr = call_number(ctx->args[1]);
	thread->where = IN_SYSCALL;
	if (thread->broken && call_goes_on(thread, nr))
		return 0;
	call_begins(thread);
	thread->call.enter_ns = bpf_ktime_get_ns();
	thread->call.enter_since_ns = UNKNOWN;
	thread->call.nr = nr;
	if (nr == UNKNOWN)
		count_shortfall(FOREIGN_CALLS);
	return 0;
}

/* Told at the call's end, when errno is known, as of its begin: it is delivered in between. */
static __always_inline void tgkill_returned(struct thread_state *thread, s64 ret)
{
	int signo = user_register(OFFSET_REGS_ARG2);

	if (!signal_wanted(signo))
		return;

	s32 tid = thread->signalled_tid;
	/* Nobody got it. In a pid namespace the number means another thread, or none. */
	if (!tid)
		tid = thread->contained ? UNKNOWN : user_register(OFFSET_REGS_ARG1);
	tell_tgkill(thread, signo, tid, -ret, thread->call.enter_ns);
}

/* The call returned to the program, now: tells it, if it is one of those that are told. */
static __always_inline void call_ended(struct thread_state *thread, s64 ret)
{
	if (!thread->call.blocks && !CONSTANT(DETAIL_FULL))
		return;
	if (!thread->call.blocks)
		thread->call.arg0 = call_arg0(thread);
	tell_own_call(thread, ret, bpf_ktime_get_ns(), UNKNOWN);
}

/* A handler is left: to go on with the call that was set aside, or inside another handler. */
static __always_inline void handler_returned(struct thread_state *thread)
{
	if (thread->broken == SET_ASIDE &&
	    user_register(OFFSET_REGS_PC) == thread->aside.pc - CALL_INSTRUCTION_BYTES &&
	    user_register(OFFSET_REGS_SP) == thread->aside.sp)
		thread->broken = TO_RESUME;
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = current_target();

	if (!thread)
		return 0;

	u8 where = thread->where;
	s64 ret = ctx->args[1];
	thread->where = IN_USER;
	if (where == IN_SYSCALL && thread->call.nr == NR_TGKILL)
		tgkill_returned(thread, ret);
	/* A new thread or program comes out of a call that another one entered. */
	if (where == IN_USER)
		return 0;
	if (where == IN_UNKNOWN) {
		/* It was in this call when the capture began. */
		call_begins(thread);
		thread->call.enter_ns = UNKNOWN;
		thread->call.enter_since_ns = UNKNOWN;
		thread->call.nr = call_number(user_call());
		thread->call.arg0 = call_arg0(thread);
		thread->call.blocks = 1;
	}
	if (thread->call.nr == NR_RT_SIGRETURN)
		handler_returned(thread);
	if (is_broken_off(ret) && thread->broken == NOT_BROKEN) {
		thread->broken = BROKEN_OFF;
		thread->broken_by = -ret;
		/* Now: where a signal is delivered, arm64 is back at the call's instruction. */
		thread->call.pc = user_register(OFFSET_REGS_PC);
		thread->call.sp = user_register(OFFSET_REGS_SP);
		return 0;
	}
#ifdef bpf_target_arm64
	thread->broken_by = ret == -EINTR ? EINTR : 0;
	thread->call.pc = user_register(OFFSET_REGS_PC);
#endif
	call_ended(thread, ret);
	return 0;
}

static __always_inline int call_blocks(struct thread_state *thread, s64 nr, s64 now)
{
	if (thread->where == IN_UNKNOWN) {
		thread->where = IN_SYSCALL;
		thread->call.enter_ns = UNKNOWN;
		thread->call.enter_since_ns = UNKNOWN;
		thread->call.nr = call_number(nr);
	}
	return thread->where == IN_SYSCALL;
}

static __always_inline void call_leaves_cpu(struct thread_state *thread, struct task_struct *task,
					    s64 now)
{
}

static __always_inline void call_enters_cpu(struct thread_state *thread, struct task_struct *task,
					    s64 now)
{
}

static __always_inline void call_meets_signal(struct thread_state *thread, int handled, int fails)
{
	if (!handled)
		return;
	/* Another handler, before the instruction that the first one returned to. */
	if (thread->broken == TO_RESUME)
		thread->broken = SET_ASIDE;
	if (thread->broken != BROKEN_OFF)
		return;
	if (fails) {
		thread->broken = NOT_BROKEN;
		call_ended(thread, -EINTR);
		return;
	}
	thread->broken = SET_ASIDE;
	thread->aside = thread->call;
	call_begins(thread);
}

static __always_inline void call_meets_exec(struct thread_state *thread)
{
	/* The call is the old program's; the new one does not see it return. */
	if (thread->where == IN_SYSCALL)
		call_ended(thread, 0);
	call_begins(thread);
	thread->call.enter_ns = UNKNOWN;
}

static __always_inline void call_sends_signal(struct thread_state *thread, int signo, s32 tid,
					      int refused, s64 now)
{
	if (thread->where == IN_SYSCALL && thread->call.nr == NR_TGKILL)
		thread->signalled_tid = tid;
}

#endif
