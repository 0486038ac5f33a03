// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Signals on their way to target threads: table signal. Only SIGURG, which Go's preemption
 * uses, unless ALL_SIGNALS is defined.
 */

#define SIGNO_URG 23

/* What a call that a signal ends returns inside the kernel (include/linux/errno.h). */
#define EINTR 4
#define ERESTARTSYS 512
#define ERESTARTNOHAND 514
#define ERESTART_RESTARTBLOCK 516
#define SA_RESTART 0x10000000

static __always_inline int signal_wanted(int signo)
{
#ifdef ALL_SIGNALS
	return 1;
#else
	return signo == SIGNO_URG;
#endif
}

/* args: signo, siginfo, task, group, result */
int on_signal_generate(struct bpf_raw_tracepoint_args *ctx)
{
	int signo = ctx->args[0];

	if (!signal_wanted(signo))
		return 0;

	struct thread_state *thread = target((struct task_struct *)ctx->args[2]);
	if (!thread)
		return 0;

	struct signal_record record = {
		.ts_ns = bpf_ktime_get_ns(),
		.pc = UNKNOWN,
		.tid = thread->tid,
		.sender_tid = current_tid(),
		.errno = UNKNOWN,
		.interrupted_nr = UNKNOWN,
		.signo = signo,
		.cpu = bpf_get_smp_processor_id(),
		.kind = SIGNAL_KIND_GENERATE,
	};
	emit_signal(&record);
	return 0;
}

/*
 * The system call that fails with EINTR because a handler is about to run. This is the rule of
 * handle_signal (arch/x86/kernel/signal.c), which comes next: poll and sleeps fail whatever the
 * handler's flags, a read is begun again with SA_RESTART, and Go's handlers have it.
 */
static __always_inline s16 interrupted_nr(u64 action)
{
	s64 nr = user_register(OFFSET_REGS_NR);
	u64 flags = 0;

	/* Interrupted in user code, or in a fault. */
	if (nr < 0)
		return UNKNOWN;
	switch (-user_register(OFFSET_REGS_RETURN)) {
	case EINTR:
	case ERESTARTNOHAND:
	case ERESTART_RESTARTBLOCK:
		return nr;
	case ERESTARTSYS:
		bpf_probe_read_kernel(&flags, sizeof(flags),
				      (void *)(action + OFFSET_SIGACTION_FLAGS));
		return flags & SA_RESTART ? UNKNOWN : nr;
	default:
		return UNKNOWN;
	}
}

/* args: signo, siginfo, sigaction; on the thread itself, before its handler's frame is made */
int on_signal_deliver(struct bpf_raw_tracepoint_args *ctx)
{
	int signo = ctx->args[0];

	if (!signal_wanted(signo))
		return 0;

	struct thread_state *thread = current_target();
	if (!thread)
		return 0;

	struct signal_record record = {
		.ts_ns = bpf_ktime_get_ns(),
		.pc = user_register(OFFSET_REGS_PC),
		.tid = thread->tid,
		.sender_tid = UNKNOWN,
		.errno = UNKNOWN,
		.interrupted_nr = interrupted_nr(ctx->args[2]),
		.signo = signo,
		.cpu = bpf_get_smp_processor_id(),
		.kind = SIGNAL_KIND_DELIVER,
	};
	emit_signal(&record);
	return 0;
}
