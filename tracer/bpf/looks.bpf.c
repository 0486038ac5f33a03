// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Looks at all Ps of a process, without a probe in its text: tables pstate and waiting, and the
 * rows of table runtime that have since_ns.
 *
 * A thread of the process is on its CPU, in the kernel: there its memory can be read, whoever of
 * its Ms the question is about. That is so when a thread leaves its CPU, wakes another one, makes
 * a thread or sends a signal; and each of the moments that matter is followed by one of those:
 *
 *   sysmon takes P, and hands it off	it wakes or makes an M (m.nextp is P), else it goes to sleep
 *   an M takes P back on its return	whatever it does next, or whoever looks first
 *   the world stops			the stopper sends signals, and sleeps
 *
 * That P was taken is told by the M that had it: m.oldp is still P and its goroutine is still
 * _Gsyscall, and p.syscalltick, which whoever takes P raises, is not what m.syscalltick kept of it
 * (proc.go: reentersyscall; retake; to Go 1.25 exitsyscallfast_reacquired, from 1.26
 * syscallingThread.releaseP). So there is no memory of ours that could be stale, and no ABA.
 *
 * When it was taken is known as an interval: after the last look that saw P as before, and, if
 * sysmon took it, after sysmon came on its CPU.
 *
 * A look reads LOOK_PS Ps and goes on with the others at the next one, so that 128 Ps cost no more
 * than 8. One thread of a process looks at a time.
 */

/* Of all Ps at one look. */
#define LOOK_PS 8
/* A process is looked at as often at most, but when its sysmon goes to sleep. */
#define LOOK_PERIOD_NS 100000
/* sysmon is the one M that has neither P nor goroutine, and sleeps by this call (usleep). */
#define NR_NANOSLEEP 35
#define NR_CLONE 56
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
	struct process_looks fresh = {.born_ns = now};
	processes_looked_at.insert(&tgid, &fresh); /* unless another CPU was first */
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
		.target_tid = tid_of(looker->thread, span_number(span, layout->m_procid, sizeof(s64),
								 M_SPAN)),
	};
	u32 tid = looker->thread->tid;
	s8 reason = RUNTIME_REASON_OTHER;
	event.state.goid = runtime_number(curg, layout->g_goid, sizeof(s64));
	if (reading->status == P_GCSTOP) {
		reason = RUNTIME_REASON_STW;
	} else if (!looker->given && reading->status != PSTATE_STATUS_IDLE) {
		/*
		 * Somebody has it, and it was not given to him: that would have been told when he was
		 * woken. So he came back from a call of his own, and took it.
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
	} else if (looker->thread->is_sysmon || process->sysmon_in_ns > process->sysmon_out_ns ||
		   process->sysmon_out_ns > event.since) {
		reason = RUNTIME_REASON_SYSMON;
		tid = process->sysmon_tid;
		if (process->sysmon_in_ns > event.since)
			event.since = process->sysmon_in_ns;
	}
	runtime_emit_of(&event, tid, RUNTIME_KIND_RETAKE, reason);
#ifndef PROBES_TOO
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

/* Where the slice of all Ps is; of a runtime whose Ps are in a Python list, its items. */
static __always_inline u64 all_ps(struct looker *looker, u64 sched, u64 *length)
{
	struct runtime_layout *layout = looker->layout;
	u64 slice[2] = {};

	if (layout->sched_allp != UNKNOWN) {
		/* PyListObject: reference count, type, length, items. */
		u64 list = runtime_pointer(sched, layout->sched_allp);

		*length = runtime_pointer(list, 2 * sizeof(u64));
		return runtime_pointer(list, 3 * sizeof(u64));
	}
	if (layout->allp == UNKNOWN)
		return 0;
	bpf_probe_read_user(slice, sizeof(slice), (void *)(layout->allp + layout->bias));
	*length = slice[1];
	return slice[0];
}

/*
 * The world is asked to stop, or goes on, since the look before. Who stops it keeps its P, and
 * nobody else has one that stands.
 */
static __always_inline void tell_world(struct looker *looker, struct look_room *room, int gcwaiting)
{
	struct process_looks *process = looker->process;
	struct runtime_layout *layout = looker->layout;
	struct runtime_state unknown = RUNTIME_STATE_UNKNOWN;
	struct runtime_event event = {
		.now = looker->now, .layout = layout, .state = unknown, .target_tid = UNKNOWN};
	u64 m = looker->thread->m;

	if (gcwaiting && !process->stopper_tid) {
		u64 p = runtime_pointer(m, layout->m_p);

		if (p && runtime_number(p, layout->p_status, layout->int_size) == P_GCSTOP) {
			process->stopper_tid = looker->thread->tid;
			event.since = process->going_ns ? process->going_ns : process->born_ns;
			runtime_event_by(&event, m);
			runtime_emit(&event, RUNTIME_KIND_STW_START, RUNTIME_REASON_STW);
		}
	} else if (!gcwaiting && process->stopper_tid) {
		event.since = process->gcwaiting_ns;
		runtime_emit_of(&event, process->stopper_tid, RUNTIME_KIND_STW_END,
				RUNTIME_REASON_STW);
		process->stopper_tid = 0;
	}
	if (gcwaiting)
		process->gcwaiting_ns = looker->now;
	else
		process->going_ns = looker->now;
}

/* What waits, after a look. */
static __always_inline void tell_waiting(struct looker *looker, struct look_room *room,
					 struct runtime_span *span)
{
	struct runtime_layout *layout = looker->layout;
	struct process_looks *process = looker->process;
	struct runtime_state state = RUNTIME_STATE_UNKNOWN;
	/* Of the last round that is over; before the first one is, of what it has. */
	struct look_sum *told = process->whole.begin_ns ? &process->whole : &process->sum;
	u8 gcwaiting = 0;
	int asked = layout->sched_gcwaiting != UNKNOWN &&
		    !bpf_probe_read_user(&gcwaiting, sizeof(gcwaiting),
					 (void *)(room->sched + layout->sched_gcwaiting));

	runtime_read_sched(layout, span, room->sched, &state);
	struct waiting_record record = {
		.ts_ns = told_at(looker->now, told->begin_ns),
		.oldest_ns = told->begin_ns,
		.timer_ns = told->timer_ns ? told->timer_ns : UNKNOWN,
		.tid = looker->thread->tid,
		.pid = looker->thread->tgid,
		.runq = told->runq,
		.runq_least = room->runq,
		.global_runq = state.global_runq,
		.timers_due = layout->p_timer == UNKNOWN ? UNKNOWN : told->timers_due,
		.npidle = state.npidle,
		.nmspinning = state.nmspinning,
		.gomaxprocs = room->length,
		.unseen = room->length - told->read,
		.cpu = bpf_get_smp_processor_id(),
		.gcwaiting = asked ? gcwaiting != 0 : UNKNOWN,
	};
	emit_waiting(&record);
#if defined(INFER) && !defined(PROBES_TOO)
	if (asked && layout->g_tls != UNKNOWN)
		tell_world(looker, room, gcwaiting);
#endif
}

/* Reads the next of all Ps, and adds up what waits in its queue. */
static __always_inline void look_at_next_p(struct looker *looker, struct look_room *room,
					   struct runtime_span *span, struct runtime_span *p_span)
{
	struct look_sum *sum = &looker->process->sum;
	struct p_reading *reading = &room->reading;
	u64 p = runtime_pointer(room->array, room->at * sizeof(u64));

	/* A new P may not be made yet. */
	if (!p)
		return;
	read_p(looker->layout, p_span, p, reading);
	if (reading->state.p != (s32)room->at)
		return;
	/* Python's None stands for "no M" there, and has no such field. */
	if (looker->layout->m_sched != UNKNOWN &&
	    runtime_pointer(reading->m, looker->layout->m_sched) != room->sched)
		reading->m = 0;
	compare_p(looker, span, reading);
	room->runq += reading->state.runq;
	sum->runq += reading->state.runq;
	sum->read++;
	if (!reading->timer_ns)
		return;
	if (reading->timer_ns <= looker->now)
		sum->timers_due++;
	if (!sum->timer_ns || reading->timer_ns < sum->timer_ns)
		sum->timer_ns = reading->timer_ns;
}

/* Reads the next Ps and what waits for them; one thread at a time of a process. */
static __always_inline void look_at_all(struct looker *looker)
{
	struct runtime_layout *layout = looker->layout;
	struct process_looks *process = looker->process;
	struct runtime_span *span = runtime_span(SPAN_ANY), *p_span = runtime_span(SPAN_P);
	struct look_sum *sum = &process->sum;
	int zero = 0;
	struct look_room *room = look_rooms.lookup(&zero);

	if (!span || !p_span || !room)
		return;
	room->sched = runtime_sched(layout, looker->thread->m);
	room->length = 0;
	room->array = all_ps(looker, room->sched, &room->length);
	if (!room->array || !room->length || room->length > PS_MOST)
		return;
	if (process->next >= room->length)
		process->next = 0;
	room->at = process->next;
	room->runq = 0;
	if (!room->at) {
		struct look_sum nothing = {.begin_ns = looker->now};

		*sum = nothing;
	}
	for (int i = 0; i < LOOK_PS; i++) {
		if (room->at >= room->length)
			break;
		look_at_next_p(looker, room, span, p_span);
		room->at++;
	}
	process->next = room->at;
	if (process->next >= room->length) {
		process->whole = *sum;
		process->next = 0;
	}
	tell_waiting(looker, room, span);
	process->look_ns = looker->now;
}

static __always_inline void look_if_alone(struct looker *looker)
{
	struct process_looks *process = looker->process;

	if (__sync_val_compare_and_swap(&process->busy, 0, 1))
		return;
	look_at_all(looker);
	asm volatile("" ::: "memory");
	*(volatile u64 *)&process->busy = 0;
}

/*
 * The current thread blocks in a call, or in a fault, and has P: whoever takes P from it takes it
 * from this M. If another had it at the look before, P may have been taken from that one.
 */
static __always_inline void look_at_own_p(struct looker *looker, struct runtime_self *self)
{
	struct p_key key = {.tgid = looker->thread->tgid, .p = self->state.p};
	struct p_seen *seen = ps_seen.lookup(&key);

	if (!seen || seen->m == self->m)
		return;
	looker->own_m = self->m;
	if (seen->m)
		look_at_p(looker, self->p);
	seen->m = self->m;
	seen->tid = looker->thread->tid;
}

/*
 * A thread parks without P and without a goroutine. If its last call had lost its P, that call
 * came back and found none: exitsyscall0, exitsyscallNoP.
 */
static __always_inline void tell_slow_exit(struct looker *looker, struct runtime_self *self)
{
	struct thread_state *thread = looker->thread;
	struct p_key key = {.tgid = thread->tgid, .p = thread->call_p};

	if (thread->call_p == UNKNOWN)
		return;
	thread->call_p = UNKNOWN;
	struct p_seen *seen = ps_seen.lookup(&key);
	if (!seen || seen->told != call_key(self->m, thread->call_tick))
		return;
	struct runtime_state unknown = RUNTIME_STATE_UNKNOWN;
	struct runtime_event event = {
		.now = looker->now,
		.since = thread->returned_ns,
		.layout = looker->layout,
		.m = self->m,
		.state = unknown,
		.target_tid = UNKNOWN,
	};
	event.state.m = self->m_id;
	event.state.goid = thread->call_goid;
	runtime_emit_of(&event, thread->tid, RUNTIME_KIND_EXIT_SLOW, UNKNOWN);
}

/* At a block with P in a call; the tick is the call's. */
static __always_inline void note_call(struct thread_state *thread, struct runtime_layout *layout,
				      u64 m, s32 p, s64 goid)
{
	thread->call_p = p;
	thread->call_goid = goid;
	thread->call_tick = runtime_number(m, layout->m_syscalltick, sizeof(s32));
	thread->came_ns = thread->returned_ns;
	thread->returned_ns = 0;
}

/*
 * A thread that leaves its CPU is told by several programs, each of which ends in the next: the
 * verifier follows a program through all its ways, and those of all together are too many for it.
 */
enum {
	THREAD_LEFT, /* on_thread_left in sched.bpf.c */
	WHO_LEFT,
	LOOK,
	AFTER_SWITCH_COUNT,
};
BPF_PROG_ARRAY(after_switch, AFTER_SWITCH_COUNT);

/* Puts a looker together for the thread that leaves, which runtime_self() tells of. */
static __always_inline int looker_at_switch(struct looker *looker, struct thread_state *thread,
					    struct runtime_self *self)
{
	if (!thread || !self)
		return 0;
	u32 tgid = thread->tgid;
	looker->now = self->now;
	looker->thread = thread;
	looker->layout = layout_of(thread);
	if (!looker->layout)
		return 0;
	if (!thread->m)
		find_m(thread, looker->layout);
	if (!thread->m)
		return 0;
	looker->process = process_looks_of(tgid, self->now);
	return looker->process != 0;
}

/* What the thread is to its runtime, for who looks later; and whether to look now. */
int who_left(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = target((struct task_struct *)ctx->args[1]);
	struct runtime_self *self = runtime_self();
	struct looker looker = {};

	if (!looker_at_switch(&looker, thread, self))
		return 0;
	int without = self->m && !self->p && !self->curg;
	if (without && user_register(OFFSET_REGS_NR) == NR_NANOSLEEP)
		thread->is_sysmon = 1;
	if (thread->is_sysmon) {
		looker.process->sysmon_tid = thread->tid;
		looker.process->sysmon_in_ns = thread->in_ns;
	}
#ifdef INFER
	if (without && !thread->is_sysmon)
		tell_slow_exit(&looker, self);
#endif
	thread->parked = without && !thread->is_sysmon;
	if (self->p && self->blocked)
		look_at_own_p(&looker, self);
	if (thread->is_sysmon || self->now - looker.process->look_ns >= LOOK_PERIOD_NS)
		after_switch.call(ctx, LOOK);
	return 0;
}

int look_after_switch(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *thread = target((struct task_struct *)ctx->args[1]);
	struct runtime_self *self = runtime_self();
	struct looker looker = {};

	if (!looker_at_switch(&looker, thread, self))
		return 0;
	look_if_alone(&looker);
	if (thread->is_sysmon)
		looker.process->sysmon_out_ns = self->now;
	return 0;
}

/* A thread comes on a CPU. What runs there still is another's: nothing can be read. */
static __always_inline void look_at_enter(struct thread_state *thread, s64 now)
{
	thread->in_ns = now;
	if (!thread->returned_ns)
		thread->returned_ns = now;
	if (thread->is_sysmon) {
		u32 tgid = thread->tgid;
		struct process_looks *process = processes_looked_at.lookup(&tgid);

		if (process)
			process->sysmon_in_ns = now;
	}
	if (thread->given_p == UNKNOWN)
		return;
	struct runtime_state unknown = RUNTIME_STATE_UNKNOWN;
	struct runtime_event event = {
		.now = now, .since = UNKNOWN, .state = unknown, .target_tid = UNKNOWN};
	event.state.p = thread->given_p;
	event.state.m = thread->given_m;
	thread->given_p = UNKNOWN;
	runtime_emit_of(&event, thread->tid, RUNTIME_KIND_ACQUIREP, UNKNOWN);
}

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
 */
static __always_inline void look_at_new_thread(struct thread_state *by, struct thread_state *made)
{
	u64 m = user_register(OFFSET_REGS_R13), g0 = user_register(OFFSET_REGS_R9);

	if (by->tgid != made->tgid || user_register(OFFSET_REGS_NR) != NR_CLONE)
		return;
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
