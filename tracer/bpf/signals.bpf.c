// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Signals on their way to target threads: table signal. Only SIGURG, which Go's preemption
 * uses, unless ALL_SIGNALS is defined.
 */

#define SA_RESTART 0x10000000
/* Handlers that are none (include/uapi/asm-generic/signal-defs.h: SIG_DFL, SIG_IGN). */
#define LAST_NO_HANDLER 1
/* There was no room for a queued signal (include/trace/events/signal.h: OVERFLOW_FAIL). */
#define SIGNAL_REFUSED 3

/* args: signo, siginfo, task, group, result */
int on_signal_generate(struct bpf_raw_tracepoint_args *ctx)
{
	int signo = ctx->args[0];

	if (!signal_wanted(signo))
		return 0;

	/* By its argument a tgkill's thread is known in the sender's pid namespace only. */
	struct thread_state *sender = current_target();
	s64 now = bpf_ktime_get_ns();
	if (sender)
		call_sends_signal(sender, signo, field_u32((void *)ctx->args[2], OFFSET_TASK_PID),
				  ctx->args[4] == SIGNAL_REFUSED, now);

	struct thread_state *thread = target((struct task_struct *)ctx->args[2]);
	if (!thread)
		return 0;

	struct signal_record record = {
		.ts_ns = now,
		.pc = UNKNOWN,
		.tid = thread->tid,
		.sender_tid = current_tid(),
		.generation = thread->generation,
		.errno = UNKNOWN,
		.interrupted_nr = UNKNOWN,
		.signo = signo,
		.cpu = bpf_get_smp_processor_id(),
		.kind = SIGNAL_KIND_GENERATE,
	};
	emit_signal(&record);
	if (sender && signo == SIGNO_URG && user_call() == NR_TGKILL)
		look_at_tgkill(sender, thread, (struct task_struct *)ctx->args[2], record.ts_ns);
	return 0;
}

/*
 * Whether a system call that returned so in the kernel fails with EINTR, since a handler is about
 * to run. This is the rule of handle_signal (arch/x86/kernel/signal.c), which comes next: poll and
 * sleeps fail whatever the handler's flags, a read is begun again with SA_RESTART, and Go's
 * handlers have it.
 */
static __always_inline int fails_by_handler(s64 returned, u64 action)
{
	switch (-returned) {
	case EINTR:
	case ERESTARTNOHAND:
	case ERESTART_RESTARTBLOCK:
		return 1;
	case ERESTARTSYS:
		return !(kernel_pointer(action, OFFSET_SIGACTION_FLAGS) & SA_RESTART);
	default:
		return 0;
	}
}

/*
 * The call that the current thread comes back from, and what it returned in the kernel; negative
 * where it is interrupted in user code, or in a fault.
 */
static __always_inline s64 call_that_returns(struct thread_state *thread, s64 *ret)
{
#ifdef bpf_target_arm64
	/* By now the registers have forgotten it (do_signal, arch/arm64/kernel/signal.c). */
	*ret = -thread->broken_by;
	if (thread->broken == BROKEN_OFF)
		return thread->call.nr;
	if (thread->broken_by == EINTR && user_register(OFFSET_REGS_PC) == thread->call.pc)
		return thread->call.nr;
	return UNKNOWN;
#else
	*ret = user_register(OFFSET_REGS_RETURN);
	return user_call();
#endif
}

/* args: signo, siginfo, sigaction; on the thread itself, before its handler's frame is made */
int on_signal_deliver(struct bpf_raw_tracepoint_args *ctx)
{
	int signo = ctx->args[0];
	u64 action = ctx->args[2];
	struct thread_state *thread = current_target();

	if (!thread)
		return 0;

	s64 ret = 0;
	s64 nr = call_that_returns(thread, &ret);
	int fails = nr >= 0 && fails_by_handler(ret, action);
	call_meets_signal(thread, kernel_pointer(action, OFFSET_SIGACTION_HANDLER) > LAST_NO_HANDLER,
			  fails);
	if (!signal_wanted(signo))
		return 0;

	struct signal_record record = {
		.ts_ns = bpf_ktime_get_ns(),
		.pc = user_register(OFFSET_REGS_PC),
		.tid = thread->tid,
		.sender_tid = UNKNOWN,
		.generation = thread->generation,
		.errno = UNKNOWN,
		.interrupted_nr = fails ? call_number(nr) : UNKNOWN,
		.signo = signo,
		.cpu = bpf_get_smp_processor_id(),
		.kind = SIGNAL_KIND_DELIVER,
	};
	emit_signal(&record);
	return 0;
}
