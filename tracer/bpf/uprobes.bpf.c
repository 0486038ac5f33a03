// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The programs at uprobes, protected from preemption. runtime_probes.bpf.c explains what each does.
 *
 * The kernel may preempt a thread inside a uprobe's program (uprobe_prog_run only keeps it on its
 * CPU), and run another thread into the same program on that CPU. Memory that exists once for each
 * CPU is then written by both: the buffers into which a P is read, and since Linux 6.13 the
 * program's own stack ("bpf: Find eligible subprogs for private stack support"). Then the first
 * thread goes on with the other's pointers, and on 7.2 with PREEMPT_LAZY the kernel crashes.
 */

/* Linux 6.10 has them; the compiler puts them in the place of these numbers, and nothing before. */
static void (*bpf_preempt_disable)(void) = (void *)0x7f000001;
static void (*bpf_preempt_enable)(void) = (void *)0x7f000002;

/* Empty. A program that could call another one has no stack for each CPU (check_max_stack_depth). */
BPF_PROG_ARRAY(no_programs, 1);

static __always_inline void begin_uprobe(void)
{
	bpf_preempt_disable();
}

static __always_inline int end_uprobe(struct pt_regs *ctx)
{
	bpf_preempt_enable();
	no_programs.call(ctx, 0);
	return 0;
}

#if !defined(INFER) || defined(PROBES_TOO)

int go_handoffp(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_handoffp(ctx);
	return end_uprobe(ctx);
}

int go_startm(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_startm(ctx);
	return end_uprobe(ctx);
}

int go_pidleput(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_pidleput(ctx);
	return end_uprobe(ctx);
}

int go_exitsyscall_slow(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_exitsyscall_slow(ctx);
	return end_uprobe(ctx);
}

int go_exitsyscall_try(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_exitsyscall_try(ctx);
	return end_uprobe(ctx);
}

int go_preemptone(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_preemptone(ctx);
	return end_uprobe(ctx);
}

int go_suspend(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_suspend(ctx);
	return end_uprobe(ctx);
}

int go_async_preempt2(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_async_preempt2(ctx);
	return end_uprobe(ctx);
}

int go_stop_the_world(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_stop_the_world(ctx);
	return end_uprobe(ctx);
}

int go_start_the_world(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_go_start_the_world(ctx);
	return end_uprobe(ctx);
}

/* Filled with the program itself when that is loaded (tracer/kernel/loaded.py). */
BPF_PROG_ARRAY(go_stw_takes_again, 1);

int go_stw_takes(struct pt_regs *ctx)
{
	begin_uprobe();
	int more = tell_go_stw_takes(ctx);
	bpf_preempt_enable();
	if (more) {
		go_stw_takes_again.call(ctx, 0);
		/* Reached only where it could not be called once more. */
		struct thread_state *thread = current_target();
		count_shortfall(PS);
		if (thread)
			thread->next_p = 0;
	}
	return 0;
}

#endif

int reference_mstart(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_reference_mstart(ctx);
	return end_uprobe(ctx);
}

int reference_transition(struct pt_regs *ctx)
{
	begin_uprobe();
	tell_reference_transition(ctx);
	return end_uprobe(ctx);
}
