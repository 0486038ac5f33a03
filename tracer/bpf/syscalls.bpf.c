// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * System calls of target threads: table syscall, and the tgkill rows of table signal.
 *
 * The entry waits in the thread's state. A call that never blocked makes no record unless
 * DETAIL_FULL is defined, so a program that is fast in the kernel costs two look-ups a call. All
 * that can be read at the end is read there, and only for a call that makes a record.
 *
 * A record is one call as the program made it. A signal can make several of it in the kernel: a
 * read that is broken off returns -ERESTARTSYS, to nobody but the kernel, which then
 *   - lets it fail with EINTR (signals.bpf.c knows when): it ended, with that;
 *   - finds no handler to run, as after SIGSTOP and SIGCONT, and begins it again at once: the
 *     next entry is the same call's, be it by its number or as restart_syscall;
 *   - runs a handler first, which may make calls of its own; its rt_sigreturn goes back to the
 *     call's instruction, and the next entry is the same call's.
 * Of calls that a handler interrupts inside a handler, only the outer one is put together.
 */

/* x86-64 */
#define NR_RT_SIGRETURN 15
#define NR_RESTART_SYSCALL 219
#define NR_TGKILL 234

/* Of a system call's instruction (syscall, int 0x80, sysenter). */
#define SYSCALL_BYTES 2

/* What a call that a signal ends returns inside the kernel (include/linux/errno.h). */
#define EINTR 4
#define ERESTARTSYS 512
#define ERESTARTNOINTR 513
#define ERESTARTNOHAND 514
#define ERESTART_RESTARTBLOCK 516

static __always_inline int is_broken_off(s64 ret)
{
	return ret == -ERESTARTSYS || ret == -ERESTARTNOINTR || ret == -ERESTARTNOHAND ||
	       ret == -ERESTART_RESTARTBLOCK;
}

/* Nothing is known yet of the call that the thread makes next. */
static __always_inline void call_begins(struct thread_state *thread)
{
	thread->blocks = 0;
	thread->blocked_ns = 0;
	thread->signalled_tid = 0;
}

/* Whether the call that is entered is one that was begun before, which then goes on. */
static __always_inline int call_goes_on(struct thread_state *thread, s16 nr)
{
	u8 broken = thread->broken;

	if (broken == BROKEN_OFF) {
		thread->broken = NOT_BROKEN;
		return nr == thread->nr || nr == NR_RESTART_SYSCALL;
	}
	if (broken != TO_RESUME)
		return 0;
	thread->broken = NOT_BROKEN;
	if (nr != thread->aside.nr)
		return 0;
	thread->enter_ns = thread->aside.enter_ns;
	thread->arg0 = thread->aside.arg0;
	thread->blocked_ns = thread->aside.blocked_ns;
	thread->blocks = thread->aside.blocks;
	thread->nr = nr;
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
	thread->enter_ns = bpf_ktime_get_ns();
	thread->nr = nr;
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

	struct signal_record record = {
		.ts_ns = thread->enter_ns,
		.pc = UNKNOWN,
		.tid = tid,
		.sender_tid = thread->tid,
		.errno = -ret,
		.interrupted_nr = UNKNOWN,
		.signo = signo,
		.cpu = bpf_get_smp_processor_id(),
		.kind = SIGNAL_KIND_TGKILL,
	};
	emit_signal(&record);
}

/* The call returned to the program, now: tells it, if it is one of those that are told. */
static __always_inline void call_ended(struct thread_state *thread, s64 ret)
{
	s32 blocks = thread->blocks;

#ifndef DETAIL_FULL
	if (!blocks)
		return;
#endif
	struct syscall_record record = {
		.enter_ns = thread->enter_ns,
		.exit_ns = bpf_ktime_get_ns(),
		.ret = ret,
		.arg0 = blocks ? thread->arg0 : call_arg0(thread),
		.blocked_ns = thread->blocked_ns,
		.tid = thread->tid,
		.blocks = blocks,
		.nr = thread->nr,
		.cpu = bpf_get_smp_processor_id(),
	};
	if (thread->enter_ns == UNKNOWN) {
		/* It was in this call when the capture began. */
		record.blocked_ns = UNKNOWN;
		record.blocks = UNKNOWN;
	}
#ifdef LIVE
	live_returned(thread);
#endif
	call_begins(thread);
	emit_syscall(&record);
}

/*
 * A signal whose handler will run meets a call that is broken off, `fails` telling whether that
 * call is over.
 */
static __always_inline void handler_runs(struct thread_state *thread, int fails)
{
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
	thread->aside.enter_ns = thread->enter_ns;
	thread->aside.arg0 = thread->arg0;
	thread->aside.blocked_ns = thread->blocked_ns;
	thread->aside.blocks = thread->blocks;
	thread->aside.nr = thread->nr;
	thread->aside.pc = user_register(OFFSET_REGS_PC);
	thread->aside.sp = user_register(OFFSET_REGS_SP);
	call_begins(thread);
}

/* A handler is left: to go on with the call that was set aside, or inside another handler. */
static __always_inline void handler_returned(struct thread_state *thread)
{
	if (thread->broken == SET_ASIDE &&
	    user_register(OFFSET_REGS_PC) == thread->aside.pc - SYSCALL_BYTES &&
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
	if (where == IN_SYSCALL && thread->nr == NR_TGKILL)
		tgkill_returned(thread, ret);
	/* A new thread or program comes out of a call that another one entered. */
	if (where == IN_USER)
		return 0;
	if (where == IN_UNKNOWN) {
		/* It was in this call when the capture began. */
		call_begins(thread);
		thread->enter_ns = UNKNOWN;
		thread->nr = call_number(user_register(OFFSET_REGS_NR));
		thread->arg0 = call_arg0(thread);
		thread->blocks = 1;
	}
	if (thread->nr == NR_RT_SIGRETURN)
		handler_returned(thread);
	if (is_broken_off(ret) && thread->broken == NOT_BROKEN) {
		thread->broken = BROKEN_OFF;
		thread->broken_by = -ret;
		return 0;
	}
	call_ended(thread, ret);
	return 0;
}
