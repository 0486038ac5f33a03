// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Who is a target, and the life of each: table task.
 *
 * A target's new threads and children are targets from before their first instruction, and
 * until their last switch off a CPU (sched.bpf.c).
 */

static __always_inline void tell_task(struct thread_state *thread, s32 parent_tid, u64 comm,
				      s8 kind)
{
	struct task_record record = {
		.ts_ns = bpf_ktime_get_ns(),
		.tid = thread->tid,
		.pid = thread->tgid,
		.parent_tid = parent_tid,
		.generation = thread->generation,
		.cpu = bpf_get_smp_processor_id(),
		.kind = kind,
	};

	bpf_probe_read_kernel_str(&record.comm, sizeof(record.comm), (void *)comm);
	emit_task(&record);
}

/* include/linux/sched.h; an io_uring worker belongs to its process, and runs in the kernel alone. */
#define PF_IO_WORKER 0x00000010
#define PF_KTHREAD 0x00200000
/* include/linux/pid.h: struct upid, a number and its namespace */
#define UPID_BYTES 16

/* Sets the number that the thread has in its own pid namespace, the innermost that it is in. */
static __always_inline void set_own_tid(struct thread_state *thread, struct task_struct *task)
{
	u64 pid = field_u64(task, OFFSET_TASK_THREAD_PID);
	u32 level = pid ? task_u32(pid, OFFSET_PID_LEVEL) : 0;

	thread->own_tid = thread->tid;
	thread->contained = level > 0;
	if (!level)
		return;
	thread->own_tid = task_u32(pid + level * UPID_BYTES, OFFSET_PID_NUMBERS);
	struct contained_tid key = {.tgid = thread->tgid, .own_tid = thread->own_tid};
	u32 tid = thread->tid;
	contained_tids.update(&key, &tid);
}

/* The thread's number in its namespace may soon be another's. */
static __always_inline void forget_own_tid(struct thread_state *thread)
{
	struct contained_tid key = {.tgid = thread->tgid, .own_tid = thread->own_tid};

	if (thread->contained)
		contained_tids.delete(&key);
}

/* The state of a thread that becomes a target. */
static __always_inline void begin_thread(struct thread_state *thread, struct task_struct *task, u8 where)
{
	thread->tid = field_u32(task, OFFSET_TASK_PID);
	thread->tgid = field_u32(task, OFFSET_TASK_TGID);
	thread->held_p = UNKNOWN;
	thread->call_p = UNKNOWN;
	thread->given_p = UNKNOWN;
	thread->where = where;
	if (field_u32(task, OFFSET_TASK_FLAGS) & (PF_IO_WORKER | PF_KTHREAD))
		thread->where = IN_KERNEL;
}

/*
 * Makes a target of a thread that is none; 0 where there is no room. `state` is what it begins as:
 * another CPU may see it from this moment on. It is 0 for a thread that has not run yet, whom nobody
 * sees before this program ends: so it need not lie on the stack.
 */
static __always_inline struct thread_state *follow(struct task_struct *task,
						   struct thread_state *state)
{
	int zero = 0;
	struct thread_room *room = thread_room.lookup(&zero);
	struct thread_state *thread = 0;

	if (!room)
		return 0;
	if (room->remaining > 0)
		thread = threads.task_storage_get(task, state, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread) {
		__sync_fetch_and_add(&room->missed, 1);
		return 0;
	}
	__sync_fetch_and_add(&room->remaining, -1);
	return thread;
}

/* What there is to follow, for the program below. */
struct follow_order {
	u32 tgid;
	u32 where;
};
BPF_ARRAY(follow_orders, struct follow_order, 1);

struct task_iterator_args {
	u64 meta;
	u64 task; /* 0 at the end */
};

/* Walks the machine's threads once, and makes targets of those of one process. */
int follow_process(struct task_iterator_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->task;
	int zero = 0;
	struct follow_order *order = follow_orders.lookup(&zero);

	if (!task || !order)
		return 0;
	if (field_u32(task, OFFSET_TASK_TGID) != order->tgid)
		return 0;
	if (thread_state_of(task))
		return 0;
	struct thread_state state = {};
	begin_thread(&state, task, order->where);
	struct thread_state *thread = follow(task, &state);
	if (thread)
		set_own_tid(thread, task);
	return 0;
}

#ifndef CALLS_EXACT
/* Walks the machine's threads once, when nothing else of ours runs any more. */
int tell_calls_over(struct task_iterator_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->task;

	if (!task)
		return 0;
	struct thread_state *thread = target(task);
	if (thread)
		call_at_end(thread, task);
	return 0;
}
#endif

/* args: parent, child */
int on_sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *parent = thread_state_of(bpf_get_current_task_btf());
	s64 now = bpf_ktime_get_ns();

	if (!parent || after_end(now))
		return 0;

	struct task_struct *task = (struct task_struct *)ctx->args[1];
	struct thread_state *child = follow(task, 0);
	if (!child)
		return 0;
	begin_thread(child, task, parent->where == BEFORE_EXEC ? BEFORE_EXEC : IN_USER);
	/*
	 * It has entered no call yet. When it first comes on a CPU would be a closer bound, but is
	 * not told where a thread that tracers cannot see leaves that CPU to it.
	 */
	child->calls_since_ns = now;
	set_own_tid(child, task);
	if (child->tgid == parent->tgid)
		child->generation = parent->generation;
	else
		runtime_at_fork(parent, child);
	look_at_new_thread(parent, child);
	if (child->where != BEFORE_EXEC)
		tell_task(child, parent->tid, ctx->args[1] + CONSTANT(OFFSET_TASK_COMM), TASK_KIND_FORK);
	return 0;
}

/* args: task, its tid before, binprm; on the task itself, its comm being the new one */
int on_sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread_state *thread = thread_state_of(task);

	if (!thread)
		return 0;
	call_meets_exec(thread);
	thread->where = IN_USER;
	thread->broken = NOT_BROKEN;
	thread->block_ns = 0;
	thread->m = 0;
	/* If it was not the first thread of its process, it is now, with that one's numbers. */
	forget_own_tid(thread);
	thread->tid = thread->tgid;
	set_own_tid(thread, task);
	thread->generation++;
	looks_end(thread->tgid);
	runtime_at_exec(thread, ctx->args[2]);
	tell_task(thread, UNKNOWN, ctx->args[0] + CONSTANT(OFFSET_TASK_COMM), TASK_KIND_EXEC);
	return 0;
}

/* args: task, its new comm */
int on_task_rename(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	struct thread_state *thread = target(task);

	if (!thread)
		return 0;
	/* As in woken(). */
	thread->tid = field_u32(task, OFFSET_TASK_PID);
	tell_task(thread, UNKNOWN, ctx->args[1], TASK_KIND_NAME);
	return 0;
}

/* args: task; its state stays until it leaves its CPU for the last time */
int on_sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = thread_state_of(bpf_get_current_task_btf());

	if (!thread)
		return 0;
	runtime_at_exit(thread, (struct task_struct *)ctx->args[0]);
	forget_own_tid(thread);
	if (thread->tid == thread->tgid)
		looks_end(thread->tgid);
	if (thread->where != BEFORE_EXEC)
		tell_task(thread, UNKNOWN, ctx->args[0] + CONSTANT(OFFSET_TASK_COMM), TASK_KIND_EXIT);
	else
		give_room_back(); /* its last switch is not looked at */
	return 0;
}
