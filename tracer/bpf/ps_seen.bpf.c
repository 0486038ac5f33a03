// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Compares each P of a process with what it was at the look before. If its state differs, there is
 * a row of table pstate; if it was taken from a call, also a retake in table runtime.
 *
 * No probe stands in the program's text. Its memory is read in the context of one of its threads
 * that is in the kernel; all of them see the same Ps. There is a look when a thread leaves its CPU,
 * wakes another one, makes a thread or sends a signal. One of these follows soon after each change:
 *
 *   sysmon takes P, and hands it off	it wakes or makes an M (m.nextp is P), else it goes to sleep
 *   an M takes P back on its return	it blocks again, or another thread looks first
 *   the world stops			the stopper sends signals, and sleeps
 *
 * Example. M 3 blocks in read(2) with P 0. At the next look its m.oldp is still P 0, and its
 * goroutine is still in _Gsyscall, but p.syscalltick and m.syscalltick are different numbers. The
 * taker of P raises the first; the second was copied from it at the call's entry. So P was taken
 * from this call. (proc.go: reentersyscall and retake; up to Go 1.25 exitsyscallfast_reacquired,
 * from 1.26 on syscallingThread.releaseP.) The two are read at one time, so neither can be stale.
 *
 * The time of the retake is an interval: after the last look at which P was as before, and, if
 * sysmon took it, after sysmon came on its CPU.
 *
 * The looks are in look_at_all.bpf.c, look_at_switch.bpf.c and look_at_given.bpf.c.
 */

/* Of all Ps at one look. */
#define LOOK_PS 8
/* A process is looked at as often at most, but when its sysmon goes to sleep. */
#define LOOK_PERIOD_NS 100000
#define PS_MOST 65536

struct p_key {
	u32 tgid;
	s32 p;
};

/* A P as it was last seen. */
struct p_seen {
	s64 born_ns; /* of the process's looks: a process may have an earlier one's number */
	s64 seen_ns;
	u64 m; /* the last that had it */
	u64 told; /* call_key() of the last call that it was taken from: told once */
	u32 tick;
	s32 tid; /* of m */
	s8 status;
	u8 held; /* p.m was not nil */
	u8 padding[6];
};
BPF_TABLE("lru_hash", struct p_key, struct p_seen, ps_seen, PS_MOST);

/* What a look, or as many as it takes to see all Ps once, has added up. */
struct look_sum {
	s64 begin_ns;
	s64 timer_ns; /* 0 for none */
	s32 runq;
	s32 timers_due;
	s32 read; /* Ps */
	s32 padding;
};

/* What is known of a process from looks. */
struct process_looks {
	u64 busy; /* a thread looks */
	s64 born_ns;
	s64 look_ns; /* the last one */
	s64 sysmon_in_ns; /* when sysmon last came on a CPU */
	s64 sysmon_out_ns; /* and left it; before sysmon_in_ns while it is on one */
	struct look_sum sum; /* of the round through all Ps that goes on */
	struct look_sum whole; /* of the last one that is over */
	s64 gcwaiting_ns; /* when sched.gcwaiting was last seen to be set, and not to be */
	s64 going_ns;
	u32 sysmon_tid;
	u32 stopper_tid; /* of the stop that goes on; 0 for none */
	u32 next; /* P */
	u32 padding;
};
BPF_HASH(processes_looked_at, u32, struct process_looks, 4096);
/*
 * One of a process that nobody looked at yet: 0 but for its begin. On the stack it would take a
 * quarter of what there is.
 */
BPF_PERCPU_ARRAY(looks_to_begin, struct process_looks, 1);

/* What a look reads of one P. */
struct p_reading {
	struct runtime_state state; /* p and runq */
	u64 address;
	u64 m;
	s64 timer_ns; /* 0 for none */
	u32 tick;
	s8 status;
};

/*
 * What a look works with, of its CPU. In a map and not on the stack: of that the verifier tells
 * apart whatever values a branch has left there, and follows each to the end.
 */
struct look_room {
	struct p_reading reading;
	u64 sched;
	u64 array;
	u64 length;
	s32 runq; /* of the Ps read */
	u32 at;
	u32 left; /* Ps to be read at this look */
	u32 padding;
};
BPF_PERCPU_ARRAY(look_rooms, struct look_room, 1);

/* Who looks, and why. */
struct looker {
	s64 now;
	struct thread_state *thread;
	struct runtime_layout *layout;
	struct process_looks *process;
	u64 given; /* the P that is being given to an M; 0 for none */
	u64 own_m; /* of who blocks with the P that it looks at; 0 for who does not */
	u32 as_sysmon; /* who gives it has neither P nor goroutine: so it is sysmon */
};

static __always_inline struct process_looks *process_looks_of(u32 tgid, s64 now)
{
	struct process_looks *process = processes_looked_at.lookup(&tgid);

	if (process)
		return process;
	int zero = 0;
	struct process_looks *fresh = looks_to_begin.lookup(&zero);
	if (!fresh)
		return 0;
	fresh->born_ns = now;
	processes_looked_at.insert(&tgid, fresh); /* unless another CPU was first */
	return processes_looked_at.lookup(&tgid);
}

/* It is another program by now, or none. */
static __always_inline void looks_end(u32 tgid)
{
	processes_looked_at.delete(&tgid);
}

static __always_inline void read_p(struct runtime_layout *layout, struct runtime_span *span, u64 p,
				   struct p_reading *reading)
{
	struct runtime_state unknown = RUNTIME_STATE_UNKNOWN;
	s64 timers[2] = {};

	reading->state = unknown;
	reading->address = p;
	span_read(span, p, span_begin(layout->p_id, layout->p_status), P_SPAN);
	runtime_read_p(layout, span, p, &reading->state);
	reading->status = span_number(span, layout->p_status, layout->int_size, P_SPAN);
	reading->tick = span_number(span, layout->p_syscalltick, sizeof(s32), P_SPAN);
	reading->m = span_pointer(span, layout->p_m, P_SPAN);
	reading->timer_ns = 0;
	if (layout->p_timer == UNKNOWN)
		return;
	/* The two lie side by side in every version (p.timer0When; timers.minWhenHeap). */
	bpf_probe_read_user(timers, sizeof(timers), (void *)(p + layout->p_timer));
	if (layout->p_timer_modified != layout->p_timer + (s32)sizeof(s64))
		timers[1] = runtime_number(p, layout->p_timer_modified, sizeof(s64));
	reading->timer_ns = timers[0];
	if (timers[1] > 0 && (!timers[0] || timers[1] < timers[0]))
		reading->timer_ns = timers[1];
}

/* The thread that an M of the process of `thread` is. */
static __always_inline s32 tid_of_m(struct thread_state *thread, struct runtime_layout *layout, u64 m)
{
	return m ? tid_of(thread, runtime_number(m, layout->m_procid, sizeof(s64))) : UNKNOWN;
}

/* The current thread's M, of one that never blocked yet. */
static __always_inline void find_m(struct thread_state *thread, struct runtime_layout *layout)
{
	u64 m = runtime_current_m(layout, thread->tid);

	if (m && runtime_number(m, layout->m_procid, sizeof(s64)) == thread->own_tid)
		thread->m = m;
}

/* One call of one M: a user address has 48 bits. */
static __always_inline u64 call_key(u64 m, u32 tick)
{
	return m << 16 | (tick & 0xffff);
}

/*
 * P is another than it was: if that is because it was taken from a call, tell it.
 *
 * `reading` is P as it is, `seen` as it was.
 */
static __always_inline void tell_taken(struct looker *looker, struct runtime_span *span,
				       struct p_reading *reading, struct p_seen *seen)
{
	struct runtime_layout *layout = looker->layout;
	struct process_looks *process = looker->process;
	u64 loser = seen->m, holder = reading->m ? reading->m : looker->own_m;
	u32 tick = 0;

	span_read(span, loser, span_begin(layout->m_procid, span_begin(layout->m_p, layout->m_curg)),
		  M_SPAN);
	if (span_pointer(span, layout->m_oldp, M_SPAN) != reading->address)
		return;
	u64 curg = span_pointer(span, layout->m_curg, M_SPAN);
	s64 status = runtime_number(curg, layout->g_status, layout->int_size);
	if (status == UNKNOWN || (status & ~G_SCAN_BIT) != G_SYSCALL)
		return;
	tick = runtime_number(loser, layout->m_syscalltick, sizeof(s32));
	u64 told = seen->told, key = call_key(loser, tick);
	/* Who looks on another CPU at the same time may have told it. */
	if (tick == reading->tick || told == key ||
	    __sync_val_compare_and_swap(&seen->told, told, key) != told)
		return;

	struct runtime_event event = {
		.now = looker->now,
		.since = seen->seen_ns,
		.layout = layout,
		.m = looker->thread->m,
		.state = reading->state,
		.tick = tick,
		.target_tid = tid_of(looker->thread, span_number(span, layout->m_procid, sizeof(s64),
								 M_SPAN)),
	};
	u32 tid = looker->thread->tid;
	s8 reason = RUNTIME_REASON_OTHER;
	/* It is the one for which this thread leaves its CPU, and has not run yet. */
	int sysmon_comes = process->sysmon_in_ns == looker->now;
	event.state.goid = runtime_number(curg, layout->g_goid, sizeof(s64));
	if (reading->status == P_GCSTOP) {
		reason = RUNTIME_REASON_STW;
	} else if (!looker->given && reading->status != PSTATE_STATUS_IDLE &&
		   reading->tick != tick + 1) {
		/*
		 * Somebody has it, and it was not given to him: that would have been told when he was
		 * woken. So he came back from a call of his own, and took it. That raises the tick
		 * once, and the end of his call once more (exitsyscall). An M that is given P while it
		 * is about to park is not woken either: there the tick was raised once.
		 */
		reason = RUNTIME_REASON_EXITSYSCALL;
		if (holder)
			tid = tid_of_m(looker->thread, layout, holder);
		if (looker->own_m && looker->thread->came_ns > event.since)
			event.since = looker->thread->came_ns;
	} else if (looker->as_sysmon) {
		reason = RUNTIME_REASON_SYSMON;
		if (looker->thread->in_ns > event.since)
			event.since = looker->thread->in_ns;
	} else if (looker->thread->is_sysmon || process->sysmon_out_ns > event.since ||
		   (process->sysmon_in_ns > process->sysmon_out_ns && !sysmon_comes)) {
		reason = RUNTIME_REASON_SYSMON;
		tid = process->sysmon_tid;
		if (process->sysmon_in_ns > event.since && !sysmon_comes)
			event.since = process->sysmon_in_ns;
	}
	reason = any_value(reason, looker->now);
	tid = any_value(tid, looker->now);
#ifdef PROBES_TOO
	/* A probe tells of it as well: so it has a name of its own, and nobody counts it twice. */
	runtime_emit_of(&event, tid, RUNTIME_KIND_RETAKE_INFERRED, reason);
#else
	runtime_emit_of(&event, tid, RUNTIME_KIND_RETAKE, reason);
	if (reading->status == PSTATE_STATUS_IDLE && !looker->given && reason == RUNTIME_REASON_SYSMON)
		runtime_emit_of(&event, tid, RUNTIME_KIND_PIDLE, UNKNOWN);
#endif
}

/*
 * The thread in whose call P is, by the M that was last seen with it; UNKNOWN if another M may have
 * had P between two looks. P in a call names no M, so the M has to name P (as in tell_taken), and
 * its call to be the one that P counts (proc.go: reentersyscall).
 */
static __always_inline s32 tid_in_call(struct runtime_layout *layout, struct p_reading *reading,
				       struct p_seen *seen)
{
	/* The reference runtime's M keeps no such words. */
	if (layout->g_tls == UNKNOWN)
		return seen->tid;
	if (!seen->m || runtime_pointer(seen->m, layout->m_oldp) != reading->address ||
	    runtime_number(seen->m, layout->m_syscalltick, sizeof(s32)) != reading->tick)
		return UNKNOWN;
	return seen->tid;
}

/*
 * Compares a P with what it was at the look before. Returns whether it was seen before.
 */
static __always_inline int compare_p(struct looker *looker, struct runtime_span *span,
				     struct p_reading *reading)
{
	struct p_key key = {.tgid = looker->thread->tgid, .p = reading->state.p};
	struct p_seen *seen = ps_seen.lookup(&key);
	int known = seen && seen->born_ns == looker->process->born_ns;

	if (!known) {
		struct p_seen fresh = {
			.born_ns = looker->process->born_ns,
			.seen_ns = UNKNOWN,
			.tid = UNKNOWN,
			.status = UNKNOWN,
		};
		ps_seen.update(&key, &fresh);
		seen = ps_seen.lookup(&key);
		if (!seen)
			return 0;
	}
	known = any_value(known, looker->now);
	u64 had = seen->held ? seen->m : 0;
	if (known && seen->tick == reading->tick && seen->status == reading->status &&
	    had == reading->m) {
		seen->seen_ns = looker->now;
		return 1;
	}
#ifdef INFER
	if (seen->m && looker->layout->g_tls != UNKNOWN && seen->tick != reading->tick)
		tell_taken(looker, span, reading, seen);
#endif
	if (reading->m && reading->m != seen->m) {
		seen->m = reading->m;
		seen->tid = tid_of_m(looker->thread, looker->layout, reading->m);
	}
	s32 tid = UNKNOWN;
	if (reading->m)
		tid = seen->tid;
	else if (reading->status == P_SYSCALL)
		tid = tid_in_call(looker->layout, reading, seen);
	tid = any_value(tid, looker->now);
	struct pstate_record record = {
		.ts_ns = told_at(looker->now, seen->seen_ns),
		.since_ns = seen->seen_ns,
		.looker_tid = looker->thread->tid,
		.pid = looker->thread->tgid,
		.p = reading->state.p,
		.tid = tid,
		.syscalltick = reading->tick,
		.runq = reading->state.runq,
		.cpu = bpf_get_smp_processor_id(),
		/* Memory that is no P of Go's has numbers that are no words. */
		.status = (u32)reading->status > PSTATE_STATUS_DEAD ? UNKNOWN : reading->status,
	};
	emit_pstate(&record);
	seen->held = reading->m != 0;
	seen->tick = reading->tick;
	seen->status = reading->status;
	seen->seen_ns = looker->now;
	return known;
}

static __always_inline void look_at_p(struct looker *looker, u64 p)
{
	struct runtime_span *span = runtime_span(SPAN_ANY), *p_span = runtime_span(SPAN_P);
	int zero = 0;
	struct look_room *room = look_rooms.lookup(&zero);

	if (!span || !p_span || !room)
		return;
	read_p(looker->layout, p_span, p, &room->reading);
	if (room->reading.state.p >= 0)
		compare_p(looker, span, &room->reading);
}
