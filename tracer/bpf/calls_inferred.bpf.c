// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * System calls that block, inferred from the switches of their thread. There is no program at
 * sys_enter or sys_exit, because every other process of the machine would pay for it.
 *
 * Example. A thread comes on its CPU at 10 us, enters read(0) at 14, blocks at 15, is woken at 80,
 * comes back at 83, returns from read at 84, and blocks in another call at 200. The row has
 *
 *   enter_ns 15, enter_since_ns 10    it entered after 10 and not after 15
 *   exit_ns 83, exit_until_ns 200     it returned after 83 and not after 200
 *   ret null                          the result was not read
 *
 * So from enter_ns to exit_ns the thread was in this call for certain. The row is written when the
 * call is seen to be over: when the thread next leaves its CPU, gets a signal, or ends.
 *
 * How two calls are told apart. The number of the call, its arguments and the place of the call are
 * in the registers that the kernel keeps of the thread's entry. Two blocks with the same registers
 * belong to one call if the thread was not in user code in between. The flag TIF_NEED_FPU_LOAD of
 * x86 shows that: it is set while the thread's own floating-point registers are not in the CPU,
 * which is from a switch until the thread returns to user code. The number of the flag is found by
 * trial (tracer/kernel/return_flag.py). If it cannot be found, sys_enter and sys_exit are used
 * (CALLS_EXACT). Exception: the kernel also sets the flag when it uses those registers itself, for
 * example to decrypt. If the second of two equal calls of one place does so before it blocks, the
 * two calls become one row.
 *
 * A signal that interrupts a call is seen before its handler runs, with the result that the call
 * has in the kernel:
 *   - The call fails with EINTR, or had ended. Then the time and the result are exact.
 *   - The call is to begin again. Whether it did is known at the thread's next block: by the
 *     call's number, if the kernel restarts it as restart_syscall, or by the goroutine, if it is
 *     one's: while that is in _Gsyscall with the same tick, the call has not returned. Any other
 *     call ends with the signal in its row, without a result, and is counted (BROKEN_CALLS).
 */

#ifndef CALLS_EXACT

/* Whether the thread has run user code since it last came on a CPU. */
static __always_inline int was_in_user(struct task_struct *task)
{
	return !(field_u64(task, OFFSET_TASK_THREAD_FLAGS) & CONSTANT(THREAD_FLAG_RETURN));
}

/* Whether the thread is still in the call that it blocked in. */
static __always_inline int call_goes_on(struct thread_state *thread, struct task_struct *task)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);

	/* A negative number: it came in by a fault or an interrupt, so from user code. */
	return !was_in_user(task) && (s64)field_u64(regs, OFFSET_REGS_NR) >= 0 &&
	       field_u64(regs, OFFSET_REGS_PC) == thread->call.pc &&
	       field_u64(regs, OFFSET_REGS_SP) == thread->call.sp;
}

/* It was last in its call, for certain: as it came back, unless that switch was not told. */
static __always_inline s64 last_in_call(struct thread_state *thread)
{
	return thread->in_ns > thread->call.off_ns ? thread->in_ns : thread->call.off_ns;
}

/* Tells the call that the thread blocked in last, if it is over. */
static __always_inline void call_leaves_cpu(struct thread_state *thread, struct task_struct *task,
					    s64 now)
{
	if (thread->call.blocks && !call_goes_on(thread, task))
		tell_own_call(thread, UNKNOWN_RESULT, last_in_call(thread), not_after_end(now));
}

/* Of the call that a goroutine of the current thread is in: which that is. */
static __always_inline void call_of_goroutine(struct thread_state *thread, s64 *goid, s64 *tick)
{
	struct runtime_layout *layout = layout_of(thread);
	u64 m = thread->m;

	*goid = UNKNOWN;
	*tick = UNKNOWN;
	if (!layout || !m)
		return;
	u64 curg = runtime_pointer(m, layout->m_curg);
	s64 status = runtime_number(curg, layout->g_status, layout->int_size);
	if (status == UNKNOWN || (status & ~G_SCAN_BIT) != G_SYSCALL)
		return;
	*goid = runtime_number(curg, layout->g_goid, sizeof(s64));
	*tick = runtime_number(m, layout->m_syscalltick, sizeof(s32));
}

/* The thread blocks in a call, and one of its was set aside: whether it is that one. */
static __always_inline int call_is_resumed(struct thread_state *thread, s64 nr, u64 pc, u64 sp,
					   s64 now)
{
	s64 goid, tick;
	int same = nr == NR_RESTART_SYSCALL;

	call_of_goroutine(thread, &goid, &tick);
	if (tick != UNKNOWN && goid == thread->aside_goid && tick == thread->aside_tick)
		same = 1;
	if (same) {
		if (pc != thread->aside.pc || sp != thread->aside.sp)
			return 0; /* the handler's own, inside of it */
		thread->broken = NOT_BROKEN;
		thread->call = thread->aside;
		return 1;
	}
	thread->broken = NOT_BROKEN;
	count_shortfall(BROKEN_CALLS);
	tell_call(thread, &thread->aside, UNKNOWN_RESULT, thread->aside_ns, not_after_end(now));
	return 0;
}

/* The thread leaves its CPU in a call, blocked: returns whether in one that is to be told. */
static __always_inline int call_blocks(struct thread_state *thread, s64 nr, s64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 pc = user_register(OFFSET_REGS_PC), sp = user_register(OFFSET_REGS_SP);

	/* A new thread or program comes out of a call that another one entered. */
	if (thread->where == IN_USER && !was_in_user(task))
		return 0;
	if (thread->where == IN_KERNEL)
		return 0;
	thread->where = IN_SYSCALL;
	/* One that was over has been told, by call_leaves_cpu. */
	if (thread->call.blocks)
		return 1;
	if (thread->broken && call_is_resumed(thread, nr, pc, sp, now))
		return 1;
	call_begins(thread);
	thread->call.nr = call_number(nr);
	if (thread->call.nr == UNKNOWN)
		count_shortfall(FOREIGN_CALLS);
	thread->call.pc = pc;
	thread->call.sp = sp;
	/* A thread that was never seen to come on a CPU may have entered before the capture. */
	thread->call.enter_ns = thread->calls_since_ns ? now : UNKNOWN;
	thread->call.enter_since_ns = thread->calls_since_ns ? thread->calls_since_ns : UNKNOWN;
	return 1;
}

static __always_inline void call_enters_cpu(struct thread_state *thread, struct task_struct *task,
					    s64 now)
{
	thread->calls_since_ns = now;
#ifdef LIVE
	live_back(thread, 1);
#endif
	if (thread->where != IN_UNKNOWN)
		return;
	thread->where = IN_SYSCALL;
	/* If it left its CPU in a call, it was in it when the capture began. */
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	s64 nr = field_u64(regs, OFFSET_REGS_NR);
	if (nr < 0)
		return;
	call_begins(thread);
	thread->call.enter_ns = UNKNOWN;
	thread->call.enter_since_ns = UNKNOWN;
	thread->call.nr = call_number_of(task, nr);
	thread->call.arg0 =
		thread->call.nr == UNKNOWN ? UNKNOWN : (s64)field_u64(regs, OFFSET_REGS_ARG0);
	thread->call.pc = field_u64(regs, OFFSET_REGS_PC);
	thread->call.sp = field_u64(regs, OFFSET_REGS_SP);
	thread->call.blocks = 1;
	thread->call.off_ns = now;
}

static __always_inline void call_meets_signal(struct thread_state *thread, int handled, int fails)
{
	s64 now = bpf_ktime_get_ns();
	s64 ret = user_register(OFFSET_REGS_RETURN);

	call_leaves_cpu(thread, bpf_get_current_task_btf(), now);
	if (!thread->call.blocks)
		return;
	thread->calls_since_ns = now;
	if (!is_broken_off(ret) || (handled && fails)) {
		tell_own_call(thread, is_broken_off(ret) ? -EINTR : ret, now, UNKNOWN);
		return;
	}
	if (thread->broken) {
		/* In the handler of another signal: of the two, the outer one is put together. */
		count_shortfall(BROKEN_CALLS);
		tell_own_call(thread, UNKNOWN_RESULT, now, UNKNOWN);
		return;
	}
	thread->broken = SET_ASIDE;
	thread->aside = thread->call;
	thread->aside_ns = now;
	call_of_goroutine(thread, &thread->aside_goid, &thread->aside_tick);
	call_begins(thread);
}

static __always_inline void call_meets_exec(struct thread_state *thread)
{
	s64 now = bpf_ktime_get_ns();
	int own = thread->call.nr == NR_EXECVE || thread->call.nr == NR_EXECVEAT;

	/* By now the registers are those of the new program. */
	if (thread->call.blocks && own)
		tell_own_call(thread, 0, now, UNKNOWN);
	else if (thread->call.blocks)
		tell_own_call(thread, UNKNOWN_RESULT, last_in_call(thread), not_after_end(now));
	call_begins(thread);
	thread->calls_since_ns = now;
}

/* There is no time and no result of the call but that of the sending: it is told now. */
static __always_inline void call_sends_signal(struct thread_state *thread, int signo, s32 tid,
					      int refused, s64 now)
{
	if (call_number(user_register(OFFSET_REGS_NR)) == NR_TGKILL &&
	    (int)user_register(OFFSET_REGS_ARG2) == signo)
		tell_tgkill(thread, signo, tid, refused ? EAGAIN : 0, now);
}

/* The capture ended: tells a call that is over and whose thread did nothing since. */
static __always_inline void call_at_end(struct thread_state *thread, struct task_struct *task)
{
	if (!thread->block_ns)
		call_leaves_cpu(thread, task, bpf_ktime_get_ns());
}

#endif
