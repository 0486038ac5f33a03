// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * A look at all Ps of a process, and at what waits for them: table waiting.
 *
 * A look reads LOOK_PS Ps, and the next one goes on behind them: 128 Ps cost a thread no more than
 * 8 do, and are all read in 16 looks. One thread of a process looks at a time; others go on.
 */

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
		/* The round may have begun with this look. */
		.ts_ns = told_at(looker->now, told->begin_ns - 1),
		.oldest_ns = told->begin_ns,
		.timer_ns = told->timer_ns ? told->timer_ns : UNKNOWN,
		.tid = looker->thread->tid,
		.pid = looker->thread->tgid,
		/* A look at some of many Ps may find more than all held when they were read last. */
		.runq = told->runq > room->runq ? told->runq : room->runq,
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

/* Begins a look, unless another thread looks; returns the room of it. */
static __always_inline struct look_room *look_begins(struct looker *looker)
{
	struct process_looks *process = looker->process;
	int zero = 0;
	struct look_room *room = look_rooms.lookup(&zero);

	if (!room || __sync_val_compare_and_swap(&process->busy, 0, 1))
		return 0;
	room->sched = runtime_sched(looker->layout, looker->thread->m);
	room->length = 0;
	room->array = all_ps(looker, room->sched, &room->length);
	if (!room->array || !room->length || room->length > PS_MOST) {
		process->busy = 0;
		return 0;
	}
	if (process->next >= room->length)
		process->next = 0;
	room->at = process->next;
	room->left = LOOK_PS;
	room->runq = 0;
	if (!room->at) {
		struct look_sum nothing = {.begin_ns = looker->now};

		process->sum = nothing;
	}
	return room;
}

/* Reads one P; returns whether there are more to be read at this look. */
static __always_inline int look_goes_on(struct looker *looker, struct look_room *room)
{
	struct runtime_span *span = runtime_span(SPAN_ANY), *p_span = runtime_span(SPAN_P);

	if (!span || !p_span || !room->left || room->at >= room->length)
		return 0;
	look_at_next_p(looker, room, span, p_span);
	room->at++;
	room->left--;
	return room->left && room->at < room->length;
}

/* Tells what waits, and lets others look. */
static __always_inline void look_ends(struct looker *looker, struct look_room *room)
{
	struct process_looks *process = looker->process;
	struct runtime_span *span = runtime_span(SPAN_ANY);

	process->next = room->at;
	if (process->next >= room->length) {
		process->whole = process->sum;
		process->next = 0;
	}
	if (span)
		tell_waiting(looker, room, span);
	process->look_ns = looker->now;
	asm volatile("" ::: "memory");
	*(volatile u64 *)&process->busy = 0;
}
