// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * A runtime's transitions, from uprobes on those of its functions that are called seldom.
 *
 * A uprobe costs up to 4 us, a system call a tenth of that. So there is none on entersyscall,
 * exitsyscall or casgstatus. Where a function is called often for other reasons (startm, pidleput),
 * the probe stands on the call instructions inside handoffp instead. There are no uretprobes: Go
 * moves its stacks, and a replaced return address would be lost.
 *
 * Go passes arguments in registers (ABIInternal, from 1.17): AX, BX, CX ..., on arm64 x0, x1, x2 ...
 * At a function's first instruction its caller's return address is on top of the stack, on arm64
 * in x30.
 */

/* A transition of the current process's runtime, while it is being told. */
struct runtime_event {
	s64 now;
	s64 since; /* of an inferred one: it lies after that; else UNKNOWN */
	struct thread_state *thread; /* the current one */
	struct runtime_layout *layout;
	u64 m; /* that does it: the current thread's */
	struct runtime_state state;
	s32 target_tid;
	s64 tick; /* of the call that P was taken from, as the M keeps it; else UNKNOWN */
};

/* As an event of `m`; 0 where the runtime is not in reach. */
static __always_inline int runtime_event_of(struct runtime_event *event)
{
	struct thread_state *thread = current_target();
	struct runtime_state unknown = RUNTIME_STATE_UNKNOWN;

	event->now = bpf_ktime_get_ns();
	event->since = UNKNOWN;
	event->state = unknown;
	event->target_tid = UNKNOWN;
	event->tick = UNKNOWN;
	event->thread = thread;
	event->layout = thread ? layout_of(thread) : 0;
	return event->layout != 0;
}

/* What is known of M and of the scheduler. */
static __always_inline void runtime_event_by(struct runtime_event *event, u64 m)
{
	event->m = m;
	event->state.m = runtime_number(m, event->layout->m_id, sizeof(s64));
	runtime_read_sched(event->layout, 0, runtime_sched(event->layout, m), &event->state);
}

/* An event of the current thread's own M; 0 where the runtime is not in reach. */
static __always_inline int runtime_event(struct runtime_event *event)
{
	if (!runtime_event_of(event))
		return 0;
	runtime_event_by(event, runtime_current_m(event->layout, current_tid()));
	return 1;
}

/* The P that it is about. */
static __always_inline void runtime_event_p(struct runtime_event *event, u64 p)
{
	runtime_read_p(event->layout, 0, p, &event->state);
}

/* The goroutine that it is about. */
static __always_inline void runtime_event_g(struct runtime_event *event, u64 g)
{
	event->state.goid = runtime_number(g, event->layout->g_goid, sizeof(s64));
}

/* The goroutine that an M runs. */
static __always_inline u64 runtime_curg(struct runtime_event *event, u64 m)
{
	return runtime_pointer(m, event->layout->m_curg);
}

/* The M that it is done to. */
static __always_inline void runtime_event_target(struct runtime_event *event, u64 m)
{
	event->target_tid =
		tid_of(event->thread, runtime_number(m, event->layout->m_procid, sizeof(s64)));
}

static __always_inline int runtime_in_syscall(struct runtime_event *event, u64 g)
{
	s64 status = runtime_number(g, event->layout->g_status, event->layout->int_size);

	return status != UNKNOWN && (status & ~G_SCAN_BIT) == G_SYSCALL;
}

static __always_inline int runtime_emit_of(struct runtime_event *event, u32 tid, s8 kind,
					   s8 reason)
{
#ifdef LIVE
	/* Ahead of the record, so that it may lie where this had its own. */
	if (kind == RUNTIME_KIND_RETAKE)
		live_retaken(event->now, event->state.p, event->tick);
#endif
	struct runtime_record record = {};

	RUNTIME_STATE_COPY(&record, &event->state);
	record.ts_ns = told_at(event->now, event->since);
	record.since_ns = event->since;
	record.tid = tid;
	record.target_tid = event->target_tid;
	record.cpu = bpf_get_smp_processor_id();
	record.kind = kind;
	record.reason = reason;
	emit_runtime(&record);
	return 0;
}

/* As done by the current thread. */
static __always_inline int runtime_emit(struct runtime_event *event, s8 kind, s8 reason)
{
	return runtime_emit_of(event, current_tid(), kind, reason);
}

/* Go's own functions are probed only where transitions are not read from its memory alone. */
#if !defined(INFER) || defined(PROBES_TOO)

/* Which function of the runtime called the probed one, by the return address. */
static __always_inline s64 go_caller(struct runtime_layout *layout, struct pt_regs *ctx)
{
	s64 address = PROBED_RETURNS_TO(ctx);

	if (!address)
		return RUNTIME_CALLER_OTHER;
	address -= layout->bias;
#pragma unroll
	for (int i = 0; i < RUNTIME_MAX_CALLERS; i++)
		if (address >= layout->callers[i].begin && address < layout->callers[i].end)
			return layout->callers[i].caller;
	return RUNTIME_CALLER_OTHER;
}

/* Why a goroutine is asked to stop, or a P given away, by who asks. */
static __always_inline s8 go_reason(s64 caller)
{
	switch (caller) {
	case RUNTIME_CALLER_ENTERSYSCALLBLOCK:
		return RUNTIME_REASON_SYSCALL_BLOCK;
	case RUNTIME_CALLER_STOPLOCKEDM:
		return RUNTIME_REASON_LOCKED;
	case RUNTIME_CALLER_GC:
		return RUNTIME_REASON_GC;
	case RUNTIME_CALLER_RETAKE:
		return RUNTIME_REASON_TIME_SLICE;
	case RUNTIME_CALLER_STW:
		return RUNTIME_REASON_STW;
	case RUNTIME_CALLER_PANIC:
		return RUNTIME_REASON_PANIC;
	default:
		return RUNTIME_REASON_OTHER;
	}
}

/*
 * handoffp(pp): P leaves its M. Called by retake, and by forEachP for a P in a call, it is also the
 * retake itself.
 */
static __always_inline int tell_go_handoffp(struct pt_regs *ctx)
{
	struct runtime_event event;

	if (!runtime_event(&event))
		return 0;
	s64 caller = go_caller(event.layout, ctx);
	runtime_event_p(&event, PROBED_ARGUMENT(ctx));
	if (caller == RUNTIME_CALLER_RETAKE || caller == RUNTIME_CALLER_GC) {
		s8 reason = caller == RUNTIME_CALLER_GC ? RUNTIME_REASON_GC : RUNTIME_REASON_SYSMON;

		reason = any_value(reason, event.now);
		runtime_emit(&event, RUNTIME_KIND_RETAKE, reason);
		return runtime_emit(&event, RUNTIME_KIND_HANDOFF, reason);
	}
	/* All others give away a P of their own. */
	runtime_event_g(&event, runtime_curg(&event, event.m));
	return runtime_emit(&event, RUNTIME_KIND_HANDOFF, any_value(go_reason(caller), event.now));
}

static __always_inline int go_about_p(u64 p, s8 kind)
{
	struct runtime_event event;

	if (!runtime_event(&event))
		return 0;
	runtime_event_p(&event, p);
	return runtime_emit(&event, kind, UNKNOWN);
}

/* A call of startm(pp, spinning, lockheld) inside handoffp: an M is found or made for P. */
static __always_inline int tell_go_startm(struct pt_regs *ctx)
{
	return go_about_p(PROBED_ARGUMENT(ctx), RUNTIME_KIND_STARTM);
}

/* A call of pidleput(pp, now) inside handoffp: nothing to run, P goes idle. */
static __always_inline int tell_go_pidleput(struct pt_regs *ctx)
{
	return go_about_p(PROBED_ARGUMENT(ctx), RUNTIME_KIND_PIDLE);
}

/* exitsyscall0(gp), from 1.26 exitsyscallNoP(gp): the call returned and no P was to be had. */
static __always_inline int tell_go_exitsyscall_slow(struct pt_regs *ctx)
{
	struct runtime_event event;

	if (!runtime_event(&event))
		return 0;
	runtime_event_g(&event, PROBED_ARGUMENT(ctx));
	return runtime_emit(&event, RUNTIME_KIND_EXIT_SLOW, UNKNOWN);
}

/*
 * exitsyscallTryGetP(oldp), from 1.26: the call returned and its P was gone; if that P is in
 * another M's call by now, it is taken from there. (To 1.25 this is one instruction of
 * exitsyscallfast, which every call passes: nothing can be probed there.)
 */
static __always_inline int tell_go_exitsyscall_try(struct pt_regs *ctx)
{
	struct runtime_event event;

	if (!runtime_event(&event))
		return 0;
	u64 m = runtime_pointer(PROBED_ARGUMENT(ctx), event.layout->p_m);
	u64 curg = runtime_curg(&event, m);
	if (!runtime_in_syscall(&event, curg))
		return 0;
	runtime_event_p(&event, PROBED_ARGUMENT(ctx));
	runtime_event_g(&event, curg);
	runtime_event_target(&event, m);
	return runtime_emit(&event, RUNTIME_KIND_RETAKE, RUNTIME_REASON_EXITSYSCALL);
}

/* preemptone(pp): the goroutine on P is asked to stop. */
static __always_inline int tell_go_preemptone(struct pt_regs *ctx)
{
	struct runtime_event event;

	if (!runtime_event(&event))
		return 0;
	u64 m = runtime_pointer(PROBED_ARGUMENT(ctx), event.layout->p_m);
	u64 curg = runtime_curg(&event, m);
	/* preemptone returns at once: nobody runs on P, or itself, or a goroutine in a call. */
	if (event.layout->p_m != UNKNOWN && !m)
		return 0;
	if ((m && m == event.m) || runtime_in_syscall(&event, curg))
		return 0;
	runtime_event_p(&event, PROBED_ARGUMENT(ctx));
	runtime_event_g(&event, curg);
	runtime_event_target(&event, m);
	s8 reason = any_value(go_reason(go_caller(event.layout, ctx)), event.now);
	return runtime_emit(&event, RUNTIME_KIND_PREEMPT_REQUEST, reason);
}

/*
 * A call of signalM(mp, sig) inside suspendG: the collector (or whoever must see a goroutine
 * stand still) sends the signal by itself, without preemptone.
 */
static __always_inline int tell_go_suspend(struct pt_regs *ctx)
{
	struct runtime_event event;
	u64 m = PROBED_ARGUMENT(ctx);

	if (!runtime_event(&event))
		return 0;
	runtime_event_p(&event, runtime_pointer(m, event.layout->m_p));
	runtime_event_g(&event, runtime_curg(&event, m));
	runtime_event_target(&event, m);
	return runtime_emit(&event, RUNTIME_KIND_PREEMPT_REQUEST, RUNTIME_REASON_SUSPEND);
}

/* asyncPreempt2(): the signal met a safe point, the current goroutine stops. */
static __always_inline int tell_go_async_preempt2(struct pt_regs *ctx)
{
	struct runtime_event event;

	if (!runtime_event(&event))
		return 0;
	runtime_event_g(&event, runtime_curg(&event, event.m));
	runtime_event_p(&event, runtime_pointer(event.m, event.layout->m_p));
	return runtime_emit(&event, RUNTIME_KIND_PREEMPTED, RUNTIME_REASON_ASYNC);
}

static __always_inline int go_world(s8 kind)
{
	struct runtime_event event;

	if (!runtime_event(&event))
		return 0;
	runtime_event_g(&event, runtime_curg(&event, event.m));
	return runtime_emit(&event, kind, RUNTIME_REASON_STW);
}

/* stopTheWorldWithSema: the world is asked to stop. */
static __always_inline int tell_go_stop_the_world(struct pt_regs *ctx)
{
	return go_world(RUNTIME_KIND_STW_START);
}

/* startTheWorldWithSema: it goes on. */
static __always_inline int tell_go_start_the_world(struct pt_regs *ctx)
{
	return go_world(RUNTIME_KIND_STW_END);
}

/*
 * The verifier goes through all turns of both loops below, so one run looks at some Ps, and the
 * program calls itself for the next ones, up to 33 times: for 528 Ps in calls, or 4,224 with none.
 * That some are left out then is counted.
 */
#ifndef GO_PS_AT_A_TIME
#define GO_PS_AT_A_TIME 8 /* up to one that is in a call */
#endif
#ifndef GO_TAKES_AT_A_TIME
#define GO_TAKES_AT_A_TIME 16
#endif
/*
 * Whether a P is in a system call. No test of what a read returns: what it did not read is nil, and
 * no P in a system call.
 */
static __always_inline int go_in_call(struct runtime_layout *layout, u64 p, u64 *m, u64 *curg)
{
	s32 status = 0;

	if (layout->model == RUNTIME_MODEL_PSYSCALL) {
		bpf_probe_read_user(&status, sizeof(status), (void *)(p + layout->p_status));
		return status == P_SYSCALL;
	}
	bpf_probe_read_user(m, sizeof(*m), (void *)(p + layout->p_m));
	bpf_probe_read_user(curg, sizeof(*curg), (void *)(*m + layout->m_curg));
	bpf_probe_read_user(&status, sizeof(status), (void *)(*curg + layout->g_status));
	return (status & ~G_SCAN_BIT) == G_SYSCALL;
}

/*
 * A call of preemptall() inside stopTheWorldWithSema, which then takes the Ps of those in system
 * calls, without handoffp: each of them is told as a retake. 1 where there are more Ps.
 */
static __always_inline int tell_go_stw_takes(struct pt_regs *ctx)
{
	struct runtime_event event;

	if (!runtime_event(&event))
		return 0;
	struct runtime_layout *layout = event.layout;
	if (layout->allp == UNKNOWN || layout->p_m == UNKNOWN)
		return 0;
	u64 allp = layout->allp + layout->bias;
	u64 array = runtime_pointer(allp, 0);
	u64 length = runtime_pointer(allp, sizeof(array));
	u64 at = event.thread->next_p;

	for (int take = 0; take < GO_TAKES_AT_A_TIME && at < length; take++) {
		u64 p = 0, m = 0, curg = 0, goid = UNKNOWN, tid = UNKNOWN;
		s32 id = UNKNOWN;
		int found = 0;

		for (int i = 0; i < GO_PS_AT_A_TIME && at < length && !found; i++) {
			bpf_probe_read_user(&p, sizeof(p), (void *)(array + at * sizeof(p)));
			found = go_in_call(layout, p, &m, &curg);
			at++;
		}
		if (!found)
			continue;
		if (curg) {
			bpf_probe_read_user(&goid, sizeof(goid), (void *)(curg + layout->g_goid));
			bpf_probe_read_user(&tid, sizeof(tid), (void *)(m + layout->m_procid));
		}
		bpf_probe_read_user(&id, sizeof(id), (void *)(p + layout->p_id));
		event.state.p = id;
		event.state.goid = goid;
		event.target_tid = tid_of(event.thread, tid);
		runtime_emit(&event, RUNTIME_KIND_RETAKE, RUNTIME_REASON_STW);
	}
	event.thread->next_p = at < length ? at : 0;
	return at < length;
}

#endif

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

static __always_inline int tell_reference_mstart(struct pt_regs *ctx)
{
	struct thread_state *thread = current_target();
	u64 m = PT_REGS_PARM1(ctx);
	int zero = 0;

	if (!thread)
		return 0;
	u32 tid = thread->tid;
	struct process_image image = image_of(thread);
	struct runtime_layout *layout = reference_layout.lookup(&zero);
	if (layout)
		set_layout(&image, layout);
	runtime_ms.update(&tid, &m);
	u64 *mstarts = reference_mstarts.lookup(&zero);
	if (mstarts)
		__sync_fetch_and_add(mstarts, 1);
	return 0;
}

static __always_inline int tell_reference_transition(struct pt_regs *ctx)
{
	struct runtime_event event;
	u32 tid = current_tid();
	u64 m = PT_REGS_PARM2(ctx);

	if (!runtime_event_of(&event))
		return 0;
	/* It told its mstart before the capture, if that began later. */
	if (!runtime_ms.lookup(&tid))
		runtime_ms.update(&tid, &m);
	runtime_event_by(&event, m);
	runtime_event_p(&event, PT_REGS_PARM3(ctx));
	runtime_event_g(&event, PT_REGS_PARM4(ctx));
	event.target_tid = tid_of(event.thread, (s32)PT_REGS_PARM6(ctx));
	return runtime_emit(&event, PT_REGS_PARM1(ctx), PT_REGS_PARM5(ctx));
}
