// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Writes the rows of a system call: table syscall, and the tgkill rows of table signal.
 *
 * There are two ways to see calls. Each of these two files has the same functions:
 *   calls_inferred.bpf.c   from the switches of the thread, and from its signals: the default
 *   calls_exact.bpf.c      from programs at sys_enter and sys_exit (CALLS_EXACT)
 *
 *   call_blocks()         the thread leaves its CPU in a call, blocked
 *   call_leaves_cpu()     the thread leaves its CPU, for any reason
 *   call_enters_cpu()     the thread comes on a CPU
 *   call_meets_signal()   a signal is about to be handled
 *   call_meets_exec()     the thread has executed another program
 *   call_sends_signal()   the thread sends a signal
 */

/* What a call that a signal ends returns inside the kernel (include/linux/errno.h). */
#define EINTR 4
#define EAGAIN 11
#define ERESTARTSYS 512
#define ERESTARTNOINTR 513
#define ERESTARTNOHAND 514
#define ERESTART_RESTARTBLOCK 516

/* In place of a result that nobody saw: UNKNOWN would be -EPERM (tracer/trace/unknown.py). */
#define UNKNOWN_RESULT (-0x7fffffffffffffffLL - 1)

static __always_inline int is_broken_off(s64 ret)
{
	return ret == -ERESTARTSYS || ret == -ERESTARTNOINTR || ret == -ERESTARTNOHAND ||
	       ret == -ERESTART_RESTARTBLOCK;
}

/* Nothing is known yet of the call that the thread makes next. */
static __always_inline void call_begins(struct thread_state *thread)
{
	thread->call.blocks = 0;
	thread->call.blocked_ns = 0;
	thread->signalled_tid = 0;
}

/* A row of table syscall. */
static __always_inline void tell_call(struct thread_state *thread, struct call *call, s64 ret,
				      s64 exit_ns, s64 exit_until_ns)
{
	struct syscall_record record = {
		.enter_ns = call->enter_ns,
		.enter_since_ns = call->enter_since_ns,
		.exit_ns = exit_ns,
		.exit_until_ns = exit_until_ns,
		.ret = ret,
		.arg0 = call->arg0,
		.blocked_ns = call->blocked_ns,
		.tid = thread->tid,
		.blocks = call->blocks,
		.nr = call->nr,
		.cpu = bpf_get_smp_processor_id(),
	};

	if (call->enter_ns == UNKNOWN) {
		/* It was in this call when the capture began. */
		record.blocked_ns = UNKNOWN;
		record.blocks = UNKNOWN;
	}
	emit_syscall(&record);
}

/* The thread's call returned: tells it, and begins the next. */
static __always_inline void tell_own_call(struct thread_state *thread, s64 ret, s64 exit_ns,
					  s64 exit_until_ns)
{
#ifdef LIVE
	live_returned(thread);
#endif
	tell_call(thread, &thread->call, ret, exit_ns, exit_until_ns);
	call_begins(thread);
}

/* A tgkill of the current thread: to whom, and how it ended. */
static __always_inline void tell_tgkill(struct thread_state *thread, int signo, s32 tid, s32 errno,
					s64 ts_ns)
{
	struct signal_record record = {
		.ts_ns = ts_ns,
		.pc = UNKNOWN,
		.tid = tid,
		.sender_tid = thread->tid,
		.generation = thread->generation,
		.errno = errno,
		.interrupted_nr = UNKNOWN,
		.signo = signo,
		.cpu = bpf_get_smp_processor_id(),
		.kind = SIGNAL_KIND_TGKILL,
	};
	emit_signal(&record);
}
