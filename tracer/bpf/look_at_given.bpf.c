// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Looks at the Ps in the context of a thread that wakes another thread of its process, makes it, or
 * sends it a signal.
 *
 * Go's startm sets m.nextp of an M and then wakes the M (or makes its thread). So in the waker's
 * context, before the M runs, it is known exactly which P the M is given, by whom and when.
 */

/*
 * The current thread gives a P to the M of another one, which it wakes or has just made: startm.
 * That P may just have been taken from a call.
 */
static __always_inline void look_at_given(struct thread_state *by, struct thread_state *to, u64 m,
					  s64 now)
{
	u32 tgid = by->tgid;
	struct looker looker = {.now = now, .thread = by};

	looker.layout = layout_of(by);
	if (!looker.layout || looker.layout->m_nextp == UNKNOWN)
		return;
	looker.given = runtime_pointer(m, looker.layout->m_nextp);
	s32 p = runtime_number(looker.given, looker.layout->p_id, looker.layout->int_size);
	if (p < 0)
		return;
	to->given_p = p;
	to->given_m = runtime_number(m, looker.layout->m_id, sizeof(s64));
	looker.process = process_looks_of(tgid, now);
	if (!by->m)
		find_m(by, looker.layout);
	if (!looker.process || !by->m)
		return;
	looker.as_sysmon = !runtime_pointer(by->m, looker.layout->m_p) &&
			   !runtime_pointer(by->m, looker.layout->m_curg);
	look_at_p(&looker, looker.given);
#if defined(INFER) && !defined(PROBES_TOO)
	/* By an M without P: it hands P off. (One with P wants help for what it has readied.) */
	if (runtime_pointer(by->m, looker.layout->m_p))
		return;
	struct runtime_event event = {
		.now = now, .since = UNKNOWN, .layout = looker.layout, .target_tid = to->tid};
	struct runtime_state unknown = RUNTIME_STATE_UNKNOWN;
	event.state = unknown;
	runtime_event_by(&event, by->m);
	runtime_event_p(&event, looker.given);
	runtime_emit(&event, RUNTIME_KIND_STARTM, UNKNOWN);
#endif
}

/* The current thread wakes another one. */
static __always_inline void look_at_waking(struct thread_state *woken, s64 now)
{
	if (!woken->parked || !woken->m)
		return;
	struct thread_state *by = current_target();
	if (!by || by->tgid != woken->tgid)
		return;
	look_at_given(by, woken, woken->m, now);
}

/*
 * The current thread makes another one. Go's own way to do that (newosproc, sys_linux_amd64.s) has
 * the new M and its g0 in registers, and g0 is the first field of an M: that tells that it is one.
 * On arm64 (sys_linux_arm64.s) g0 alone is in a register.
 */
static __always_inline void look_at_new_thread(struct thread_state *by, struct thread_state *made)
{
	u64 g0 = user_register(OFFSET_REGS_NEW_G);

	if (by->tgid != made->tgid || user_call() != NR_CLONE)
		return;
#ifdef bpf_target_arm64
	struct runtime_layout *layout = layout_of(by);
	u64 m = layout ? runtime_pointer(g0, layout->g_m) : 0;
#else
	u64 m = user_register(OFFSET_REGS_NEW_M);
#endif
	if (!m || runtime_pointer(m, 0) != g0)
		return;
	look_at_given(by, made, m, bpf_ktime_get_ns());
}

/* The current thread sends a signal to another one by tgkill: SIGURG asks for preemption. */
static __always_inline void look_at_tgkill(struct thread_state *by, struct thread_state *to,
					   struct task_struct *task, s64 now)
{
#if defined(INFER) && !defined(PROBES_TOO)
	u32 tgid = by->tgid;
	struct runtime_layout *layout = layout_of(by);
	struct process_looks *process = processes_looked_at.lookup(&tgid);
	u8 gcwaiting = 0;
	s8 reason = RUNTIME_REASON_SUSPEND;

	if (!layout || !process || by->tgid != to->tgid || layout->g_tls == UNKNOWN)
		return;
	struct runtime_event event = {
		.now = now, .since = UNKNOWN, .layout = layout, .target_tid = to->tid};
	struct runtime_state unknown = RUNTIME_STATE_UNKNOWN;
	u64 m = runtime_m_of(layout, task);
	event.state = unknown;
	runtime_event_by(&event, runtime_current_m(layout, by->tid));
	runtime_event_p(&event, runtime_pointer(m, layout->m_p));
	runtime_event_g(&event, runtime_curg(&event, m));
	if (layout->sched_gcwaiting != UNKNOWN)
		bpf_probe_read_user(&gcwaiting, sizeof(gcwaiting),
				    (void *)(runtime_sched(layout, m) + layout->sched_gcwaiting));
	if (by->is_sysmon)
		reason = RUNTIME_REASON_TIME_SLICE;
	else if (gcwaiting)
		reason = RUNTIME_REASON_STW;
	if (reason == RUNTIME_REASON_STW && !process->stopper_tid) {
		/* Its first request; the stop began no sooner than the stopper came on its CPU. */
		struct runtime_event stop = event;

		process->stopper_tid = by->tid;
		process->gcwaiting_ns = now;
		stop.since = by->in_ns > process->going_ns ? by->in_ns : process->going_ns;
		stop.state.p = UNKNOWN;
		stop.state.runq = UNKNOWN;
		stop.state.goid = UNKNOWN;
		stop.target_tid = UNKNOWN;
		runtime_emit(&stop, RUNTIME_KIND_STW_START, RUNTIME_REASON_STW);
	}
	/* Who stops the world sleeps soon: then is the time to look. */
	process->look_ns = 0;
	runtime_emit(&event, RUNTIME_KIND_PREEMPT_REQUEST, reason);
#endif
}
