// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Who is a target, and the life of each: table task.
 *
 * A target's new threads and children are targets from before their first instruction, and
 * until their last switch off a CPU (sched.bpf.c).
 */

static __always_inline void tell_task(u32 tid, u32 tgid, s32 parent_tid, u64 comm, s8 kind)
{
	struct task_record record = {
		.ts_ns = bpf_ktime_get_ns(),
		.tid = tid,
		.pid = tgid,
		.parent_tid = parent_tid,
		.cpu = bpf_get_smp_processor_id(),
		.kind = kind,
	};

	bpf_probe_read_kernel_str(&record.comm, sizeof(record.comm), (void *)comm);
	emit_task(&record);
}

/* args: parent, child */
int on_sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u32 parent_tid = current_tid();
	struct thread_state *parent = threads.lookup(&parent_tid);

	if (!parent)
		return 0;

	u64 task = ctx->args[1];
	u32 tid = task_u32(task, OFFSET_TASK_PID);
	struct thread_state thread = {
		.task = task,
		.tgid = task_u32(task, OFFSET_TASK_TGID),
		.where = parent->where == BEFORE_EXEC ? BEFORE_EXEC : IN_USER,
	};
	if (threads.update(&tid, &thread)) {
		int zero = 0;
		u64 *missed = threads_missed.lookup(&zero);

		if (missed)
			__sync_fetch_and_add(missed, 1);
		return 0;
	}
	runtime_at_fork(parent->tgid, thread.tgid);
	if (thread.where != BEFORE_EXEC)
		tell_task(tid, thread.tgid, parent_tid, task + OFFSET_TASK_COMM, TASK_KIND_FORK);
	return 0;
}

/* args: task, its tid before, binprm; on the task itself, its comm being the new one */
int on_sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 old_tid = ctx->args[1];
	u32 tid = current_tid();
	struct thread_state *thread = threads.lookup(&old_tid);

	if (!thread)
		return 0;
	thread->where = IN_USER;
	if (old_tid != tid) {
		/* Not the first thread of its process, but now it is, with that one's tid. */
		struct thread_state moved = *thread;

		threads.update(&tid, &moved);
		threads.delete(&old_tid);
	}
	runtime_at_exec(tid);
	tell_task(tid, tid, UNKNOWN, ctx->args[0] + OFFSET_TASK_COMM, TASK_KIND_EXEC);
	return 0;
}

/* args: task, its new comm */
int on_task_rename(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u32 tid = task_u32(task, OFFSET_TASK_PID);
	struct thread_state *thread = target(tid);

	if (thread)
		tell_task(tid, thread->tgid, UNKNOWN, ctx->args[1], TASK_KIND_NAME);
	return 0;
}

/* args: task; its state stays until it leaves its CPU for the last time */
int on_sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u32 tid = current_tid();
	struct thread_state *thread = threads.lookup(&tid);

	if (!thread)
		return 0;
	runtime_at_exit(tid);
	if (thread->where != BEFORE_EXEC)
		tell_task(tid, thread->tgid, UNKNOWN, task + OFFSET_TASK_COMM, TASK_KIND_EXIT);
	return 0;
}
