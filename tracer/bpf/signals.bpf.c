// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Signals on their way to target threads: table signal. Only SIGURG, which Go's preemption
 * uses, unless ALL_SIGNALS is defined.
 */

#define SIGNO_URG 23

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
		.signo = signo,
		.cpu = bpf_get_smp_processor_id(),
		.kind = SIGNAL_KIND_GENERATE,
	};
	emit_signal(&record);
	return 0;
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
		.signo = signo,
		.cpu = bpf_get_smp_processor_id(),
		.kind = SIGNAL_KIND_DELIVER,
	};
	emit_signal(&record);
	return 0;
}
