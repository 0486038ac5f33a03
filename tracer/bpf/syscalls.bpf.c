// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * System calls of target threads: table syscall, and the tgkill rows of table signal.
 *
 * The entry waits in the thread's state. A call that never blocked makes no record unless
 * DETAIL_FULL is defined, so a program that is fast in the kernel costs two look-ups a call. All
 * that can be read at the end is read there, and only for a call that makes a record.
 */

/* x86-64 */
#define NR_TGKILL 234

int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = current_target();

	if (!thread)
		return 0;
	thread->enter_ns = bpf_ktime_get_ns();
	thread->nr = ctx->args[1];
	thread->where = IN_SYSCALL;
	return 0;
}

/* Told at the call's end, when errno is known, as of its begin: it is delivered in between. */
static __always_inline void tgkill_returned(struct thread_state *thread, s64 ret)
{
	int signo = user_register(OFFSET_REGS_ARG2);

	if (!signal_wanted(signo))
		return;

	struct signal_record record = {
		.ts_ns = thread->enter_ns,
		.pc = UNKNOWN,
		.tid = user_register(OFFSET_REGS_ARG1),
		.sender_tid = thread->tid,
		.errno = -ret,
		.interrupted_nr = UNKNOWN,
		.signo = signo,
		.cpu = bpf_get_smp_processor_id(),
		.kind = SIGNAL_KIND_TGKILL,
	};
	emit_signal(&record);
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = current_target();

	if (!thread)
		return 0;

	u8 where = thread->where;
	s32 blocks = thread->blocks;
	thread->where = IN_USER;
	if (where == IN_SYSCALL && thread->nr == NR_TGKILL)
		tgkill_returned(thread, ctx->args[1]);
	runtime_at_syscall_exit(thread);
	/* A new thread or program comes out of a call that another one entered. */
	if (where == IN_USER)
		return 0;
#ifndef DETAIL_FULL
	if (where == IN_SYSCALL && !blocks)
		return 0;
#endif
	struct syscall_record record = {
		.enter_ns = thread->enter_ns,
		.exit_ns = bpf_ktime_get_ns(),
		.ret = ctx->args[1],
		.arg0 = blocks ? thread->arg0 : user_register(OFFSET_REGS_ARG0),
		.blocked_ns = thread->blocked_ns,
		.tid = thread->tid,
		.blocks = blocks,
		.nr = thread->nr,
		.cpu = bpf_get_smp_processor_id(),
	};
	if (where == IN_UNKNOWN) {
		/* It was in this call when the capture began. */
		record.enter_ns = UNKNOWN;
		record.blocked_ns = UNKNOWN;
		record.blocks = UNKNOWN;
		record.nr = user_register(OFFSET_REGS_NR);
	} else if (thread->enter_ns == UNKNOWN) {
		record.blocked_ns = UNKNOWN;
		record.blocks = UNKNOWN;
	}
#ifdef LIVE
	live_returned(thread);
#endif
	thread->blocks = 0;
	thread->blocked_ns = 0;
	emit_syscall(&record);
	return 0;
}
