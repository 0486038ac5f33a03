// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * An upcall at each block: a thread of one process that waits for it is woken by a signal, right
 * where another one of that process leaves its CPU in a system call. For tracer/kernel/upcall.py.
 * Compiled behind constants.bpf.c and arch.bpf.c alone.
 *
 * The signal is bpf_send_signal_task's ("bpf: implement bpf_send_signal_task() kfunc", Linux 6.13).
 * The run queue's lock is held here, so the kernel sends it by an interrupt of its own, at once.
 */
#include <uapi/linux/ptrace.h>
#include <linux/types.h>

#define THREADS_MOST 1024
/* TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE: not one that has ended. */
#define SLEEPS 3
#define FUTEX_COMMAND 127
#define FUTEX_WAIT_BITSET 9

/* Shared with the process, by mmap; reference_runtime/_switches.c has the same struct. */
struct upcalls {
	u32 tgid; /* whose threads */
	u32 signal; /* that wakes the one on call */
	u32 on_call; /* the thread that waits for a block; 0 for nobody */
	u32 broken; /* nobody is to wait any more; the process's own */
	u64 blocks; /* of threads in calls, told or not */
	u64 failed; /* signals that the kernel did not send */
	u8 blocked[THREADS_MOST]; /* by the process's own number: in a call, and off its CPU */
};
BPF_F_TABLE("array", u32, struct upcalls, upcall_state, 1, BPF_F_MMAPABLE);
BPF_TABLE("hash", u32, u32, upcall_threads, THREADS_MOST);

/* The loader puts the kernel's functions in the place of these numbers. */
static struct task_struct *(*bpf_task_from_pid)(s32 pid) = (void *)0x7f000003;
static void (*bpf_task_release)(struct task_struct *task) = (void *)0x7f000004;
static int (*bpf_send_signal_task)(struct task_struct *task, int signal, u32 type, u64 value) =
	(void *)0x7f000005;

/* The process's number of a thread; THREADS_MOST for none. */
static u32 number_of(u32 tid)
{
	u32 *number = upcall_threads.lookup(&tid);

	return number && *number < THREADS_MOST ? *number : THREADS_MOST;
}

/* Whether it waits for the interpreter's lock or on one of its own: no call of the program. */
static int waits_for_a_lock(void *regs)
{
	return call_of_registers(regs) == NR_FUTEX &&
	       (field_u64(regs, OFFSET_REGS_ARG1) & FUTEX_COMMAND) == FUTEX_WAIT_BITSET;
}

static void left(struct upcalls *state, struct task_struct *task)
{
	u32 tid = field_u32(task, OFFSET_TASK_PID);
	u32 number = number_of(tid);
	u32 on_call;

	if (number >= THREADS_MOST || tid == *(volatile u32 *)&state->on_call ||
	    waits_for_a_lock((void *)bpf_task_pt_regs(task)))
		return;
	state->blocked[number] = 1;
	/* A barrier too: who goes on call writes on_call first, and looks at blocked then. */
	__sync_fetch_and_add(&state->blocks, 1);
	on_call = *(volatile u32 *)&state->on_call;
	if (!on_call)
		return;
	struct task_struct *called = bpf_task_from_pid(on_call);
	if (!called)
		return;
	if (bpf_send_signal_task(called, state->signal, 0, 0))
		__sync_fetch_and_add(&state->failed, 1);
	bpf_task_release(called);
}

/* args: preempt, prev, next, prev_state */
int on_switch_upcall(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	struct upcalls *state = upcall_state.lookup(&zero);
	struct task_struct *prev = (struct task_struct *)ctx->args[1];
	struct task_struct *next = (struct task_struct *)ctx->args[2];

	if (!state)
		return 0;
	if (field_u32(next, OFFSET_TASK_TGID) == state->tgid) {
		u32 number = number_of(field_u32(next, OFFSET_TASK_PID));

		if (number < THREADS_MOST)
			state->blocked[number] = 0;
	}
	if (field_u32(prev, OFFSET_TASK_TGID) == state->tgid && !ctx->args[0] &&
	    ((u32)ctx->args[3] & SLEEPS))
		left(state, prev);
	return 0;
}
