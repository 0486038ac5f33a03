// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * A runtime's transitions, told by its own functions: uprobes on cold ones only.
 *
 * A uprobe costs some 4 us, a system call a tenth of that: so there is nothing here on
 * entersyscall, exitsyscall or casgstatus, and where a function is hot on other ways (startm,
 * pidleput), the probe stands on the call instructions inside handoffp instead. No uretprobes:
 * Go moves its stacks, and a return address that was replaced is lost with them.
 *
 * Go passes arguments in AX, BX, CX ... (ABIInternal, from 1.17); at a function's first
 * instruction its caller's return address is on top of the stack.
 */

/* Which function of the runtime called the probed one, by the return address. */
static __always_inline s64 go_caller(struct runtime_layout *layout, struct pt_regs *ctx)
{
	s64 address = runtime_pointer(PT_REGS_SP(ctx), 0);

	if (!address)
		return RUNTIME_CALLER_OTHER;
	address -= layout->bias;
#pragma unroll
	for (int i = 0; i < RUNTIME_MAX_CALLERS; i++)
		if (address >= layout->callers[i].begin && address < layout->callers[i].end)
			return layout->callers[i].caller;
	return RUNTIME_CALLER_OTHER;
}

static __always_inline void runtime_emit(u64 now, struct runtime_state *state, s32 target_tid,
					 s8 kind, s8 reason)
{
	struct runtime_record record = {};

	RUNTIME_STATE_COPY(&record, state);
	record.ts_ns = now;
	record.tid = current_tid();
	record.target_tid = target_tid;
	record.cpu = bpf_get_smp_processor_id();
	record.kind = kind;
	record.reason = reason;
#ifdef LIVE
	if (kind == RUNTIME_KIND_RETAKE)
		live_retaken(now, state->p);
#endif
	emit_runtime(&record);
}

static __always_inline struct runtime_layout *runtime_current_layout(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	return runtime_layouts.lookup(&tgid);
}

/* What is known of the current thread's own M and goroutine, and of the scheduler. */
static __always_inline u64 runtime_read_self(struct runtime_layout *layout,
					     struct runtime_state *state)
{
	u64 m = runtime_current_m(layout, current_tid());

	state->m = runtime_number(m, layout->m_id, sizeof(s64));
	runtime_read_sched(layout, m, state);
	return m;
}

/* handoffp(pp): P leaves its M. Called by retake, it is also the retake itself. */
int go_handoffp(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout)
		return 0;
	s64 caller = go_caller(layout, ctx);
	u64 m = runtime_read_self(layout, &state);
	runtime_read_p(layout, ctx->ax, &state);
	if (caller == RUNTIME_CALLER_RETAKE) {
		runtime_emit(now, &state, UNKNOWN, RUNTIME_KIND_RETAKE, RUNTIME_REASON_SYSMON);
		runtime_emit(now, &state, UNKNOWN, RUNTIME_KIND_HANDOFF, RUNTIME_REASON_SYSMON);
		return 0;
	}
	/* All others give away a P of their own. */
	state.goid = runtime_number(runtime_pointer(m, layout->m_curg), layout->g_goid, 8);
	s8 reason = RUNTIME_REASON_OTHER;
	if (caller == RUNTIME_CALLER_ENTERSYSCALLBLOCK)
		reason = RUNTIME_REASON_SYSCALL_BLOCK;
	else if (caller == RUNTIME_CALLER_STOPLOCKEDM)
		reason = RUNTIME_REASON_LOCKED;
	else if (caller == RUNTIME_CALLER_GC)
		reason = RUNTIME_REASON_GC;
	runtime_emit(now, &state, UNKNOWN, RUNTIME_KIND_HANDOFF, reason);
	return 0;
}

/* A call of startm(pp, spinning, lockheld) inside handoffp: an M is found or made for P. */
int go_startm(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout)
		return 0;
	runtime_read_self(layout, &state);
	runtime_read_p(layout, ctx->ax, &state);
	runtime_emit(now, &state, UNKNOWN, RUNTIME_KIND_STARTM, UNKNOWN);
	return 0;
}

/* A call of pidleput(pp, now) inside handoffp: nothing to run, P goes idle. */
int go_pidleput(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout)
		return 0;
	runtime_read_self(layout, &state);
	runtime_read_p(layout, ctx->ax, &state);
	runtime_emit(now, &state, UNKNOWN, RUNTIME_KIND_PIDLE, UNKNOWN);
	return 0;
}

/* exitsyscall0(gp), from 1.26 exitsyscallNoP(gp): the call returned and no P was to be had. */
int go_exitsyscall_slow(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout)
		return 0;
	runtime_read_self(layout, &state);
	state.goid = runtime_number(ctx->ax, layout->g_goid, sizeof(s64));
	runtime_emit(now, &state, UNKNOWN, RUNTIME_KIND_EXIT_SLOW, UNKNOWN);
	return 0;
}

/*
 * exitsyscallTryGetP(oldp), from 1.26: the call returned and its P was gone; if that P is in
 * another M's call by now, it is taken from there. (To 1.25 this is one instruction of
 * exitsyscallfast, which every call passes: nothing can be probed there.)
 */
int go_exitsyscall_try(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout)
		return 0;
	u64 m = runtime_pointer(ctx->ax, layout->p_m);
	u64 curg = runtime_pointer(m, layout->m_curg);
	s64 status = runtime_number(curg, layout->g_status, layout->int_size);
	if (status == UNKNOWN || (status & ~G_SCAN_BIT) != G_SYSCALL)
		return 0;
	runtime_read_self(layout, &state);
	runtime_read_p(layout, ctx->ax, &state);
	state.goid = runtime_number(curg, layout->g_goid, sizeof(s64));
	runtime_emit(now, &state, runtime_number(m, layout->m_procid, sizeof(s64)),
		     RUNTIME_KIND_RETAKE, RUNTIME_REASON_EXITSYSCALL);
	return 0;
}

/* preemptone(pp): the goroutine on P is asked to stop. */
int go_preemptone(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout)
		return 0;
	u64 m = runtime_pointer(ctx->ax, layout->p_m);
	if (layout->p_m != UNKNOWN && !m)
		return 0; /* preemptone returns at once: nobody runs on P */
	u64 self = runtime_read_self(layout, &state);
	if (m && m == self)
		return 0; /* as above: not itself */
	u64 curg = runtime_pointer(m, layout->m_curg);
	s64 status = runtime_number(curg, layout->g_status, layout->int_size);
	if (status != UNKNOWN && (status & ~G_SCAN_BIT) == G_SYSCALL)
		return 0; /* as above: a goroutine in a system call is not asked */
	runtime_read_p(layout, ctx->ax, &state);
	state.goid = runtime_number(curg, layout->g_goid, sizeof(s64));
	s64 caller = go_caller(layout, ctx);
	s8 reason = RUNTIME_REASON_OTHER;
	if (caller == RUNTIME_CALLER_RETAKE)
		reason = RUNTIME_REASON_TIME_SLICE;
	else if (caller == RUNTIME_CALLER_STW)
		reason = RUNTIME_REASON_STW;
	else if (caller == RUNTIME_CALLER_GC)
		reason = RUNTIME_REASON_GC;
	else if (caller == RUNTIME_CALLER_PANIC)
		reason = RUNTIME_REASON_PANIC;
	runtime_emit(now, &state, runtime_number(m, layout->m_procid, sizeof(s64)),
		     RUNTIME_KIND_PREEMPT_REQUEST, reason);
	return 0;
}

/*
 * A call of signalM(mp, sig) inside suspendG: the collector (or whoever must see a goroutine
 * stand still) sends the signal by itself, without preemptone.
 */
int go_suspend(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout)
		return 0;
	u64 m = ctx->ax;
	runtime_read_self(layout, &state);
	runtime_read_p(layout, runtime_pointer(m, layout->m_p), &state);
	state.goid = runtime_number(runtime_pointer(m, layout->m_curg), layout->g_goid, 8);
	runtime_emit(now, &state, runtime_number(m, layout->m_procid, sizeof(s64)),
		     RUNTIME_KIND_PREEMPT_REQUEST, RUNTIME_REASON_SUSPEND);
	return 0;
}

/* asyncPreempt2(): the signal met a safe point, the current goroutine stops. */
int go_async_preempt2(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout)
		return 0;
	u64 m = runtime_read_self(layout, &state);
	state.goid = runtime_number(runtime_pointer(m, layout->m_curg), layout->g_goid, 8);
	runtime_read_p(layout, runtime_pointer(m, layout->m_p), &state);
	runtime_emit(now, &state, UNKNOWN, RUNTIME_KIND_PREEMPTED, RUNTIME_REASON_ASYNC);
	return 0;
}

static __always_inline void go_world(s8 kind)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout)
		return;
	u64 m = runtime_read_self(layout, &state);
	state.goid = runtime_number(runtime_pointer(m, layout->m_curg), layout->g_goid, 8);
	runtime_emit(now, &state, UNKNOWN, kind, RUNTIME_REASON_STW);
}

/* stopTheWorldWithSema: the world is asked to stop. */
int go_stop_the_world(struct pt_regs *ctx)
{
	go_world(RUNTIME_KIND_STW_START);
	return 0;
}

/* Room for a program's Ps in the loop below; those beyond it are not looked at. */
#define GO_MAX_PS 256

/*
 * Inside stopTheWorldWithSema, when all goroutines were asked to stop and before it takes the Ps
 * of those in system calls, which it does without handoffp: each of them is told as a retake.
 */
int go_stw_takes(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();

	if (!layout || layout->allp == UNKNOWN || layout->p_m == UNKNOWN)
		return 0;
	u64 allp = layout->allp + layout->bias;
	u64 array = runtime_pointer(allp, 0);
	u64 length = runtime_pointer(allp, sizeof(array));
	runtime_read_self(layout, &state);
	/* No test of what a read returns: what it did not read is nil, and no P in a system call. */
	for (int i = 0; i < GO_MAX_PS; i++) {
		u64 p = 0, m = 0, curg = 0, goid = UNKNOWN, tid = UNKNOWN;
		s32 id = UNKNOWN, status = 0;

		if (i >= length)
			break;
		bpf_probe_read_user(&p, sizeof(p), (void *)(array + i * sizeof(p)));
		if (layout->model == RUNTIME_MODEL_PSYSCALL) {
			bpf_probe_read_user(&status, sizeof(status), (void *)(p + layout->p_status));
			if (status != P_SYSCALL)
				continue;
		} else {
			bpf_probe_read_user(&m, sizeof(m), (void *)(p + layout->p_m));
			bpf_probe_read_user(&curg, sizeof(curg), (void *)(m + layout->m_curg));
			bpf_probe_read_user(&status, sizeof(status), (void *)(curg + layout->g_status));
			if ((status & ~G_SCAN_BIT) != G_SYSCALL)
				continue;
			bpf_probe_read_user(&goid, sizeof(goid), (void *)(curg + layout->g_goid));
			bpf_probe_read_user(&tid, sizeof(tid), (void *)(m + layout->m_procid));
		}
		bpf_probe_read_user(&id, sizeof(id), (void *)(p + layout->p_id));
		state.p = id;
		state.goid = goid;
		runtime_emit(now, &state, tid, RUNTIME_KIND_RETAKE, RUNTIME_REASON_STW);
	}
	return 0;
}

/* startTheWorldWithSema: it goes on. */
int go_start_the_world(struct pt_regs *ctx)
{
	go_world(RUNTIME_KIND_STW_END);
	return 0;
}

#define NR_GETTID 186
#define NR_FUTEX 202

/*
 * For sys_exit: an M that slept (futex), or a new one (its gettid in minit), comes on a CPU; if
 * startm gave it a P meanwhile, it is about to acquire it.
 */
static __always_inline void runtime_at_syscall_exit(void *ctx, u32 tid, s64 nr, s32 blocks)
{
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout;

	if (nr != NR_FUTEX && nr != NR_GETTID)
		return;
	layout = runtime_current_layout();
	if (!layout || layout->m_nextp == UNKNOWN)
		return;
	u64 m = runtime_current_m(layout, tid);
	u64 nextp = runtime_pointer(m, layout->m_nextp);
	if (!nextp)
		return;
	u64 now = bpf_ktime_get_ns();
	runtime_read_self(layout, &state);
	runtime_read_p(layout, nextp, &state);
	runtime_emit(now, &state, UNKNOWN, RUNTIME_KIND_ACQUIREP, UNKNOWN);
}

/*
 * The reference runtime tells everything by one function of its own,
 *   transition(kind, m, p, g, reason, target_tid)
 * with the words' numbers, and each thread's M by mstart(m, tid). Both have the C ABI. Its
 * library is in whatever Python loads it, so the process is not known by its binary, but by its
 * first mstart; the layout waits for that.
 */
BPF_ARRAY(reference_layout, struct runtime_layout, 1);
/* How many Ms began in targets. */
BPF_ARRAY(reference_mstarts, u64, 1);

int reference_mstart(struct pt_regs *ctx)
{
	u32 tid = current_tid();
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u64 m = PT_REGS_PARM1(ctx);
	int zero = 0;

	if (!target(tid))
		return 0;
	struct runtime_layout *layout = reference_layout.lookup(&zero);
	if (layout)
		runtime_layouts.update(&tgid, layout);
	runtime_ms.update(&tid, &m);
	u64 *mstarts = reference_mstarts.lookup(&zero);
	if (mstarts)
		__sync_fetch_and_add(mstarts, 1);
	return 0;
}

int reference_transition(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	struct runtime_layout *layout = runtime_current_layout();
	u32 tid = current_tid();
	u64 m = PT_REGS_PARM2(ctx);

	if (!layout)
		return 0;
	/* It told its mstart before the capture, if that began later. */
	if (!runtime_ms.lookup(&tid))
		runtime_ms.update(&tid, &m);
	state.m = runtime_number(m, layout->m_id, sizeof(s64));
	runtime_read_sched(layout, m, &state);
	runtime_read_p(layout, PT_REGS_PARM3(ctx), &state);
	state.goid = runtime_number(PT_REGS_PARM4(ctx), layout->g_goid, sizeof(s64));
	runtime_emit(now, &state, PT_REGS_PARM6(ctx), PT_REGS_PARM1(ctx), PT_REGS_PARM5(ctx));
	return 0;
}
