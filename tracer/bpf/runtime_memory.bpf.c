// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Reads of a runtime's memory, at the offsets of its layout.
 *
 * The way there: the thread's FS base (a field of task_struct, its offset from BTF) leads to g,
 * g to M, M to its P and its goroutine. Where a runtime keeps no g in thread-local storage, its
 * M is found by thread id in runtime_ms, which the probe on its mstart fills. Every offset comes
 * from the process's entry in runtime_layouts (tracer/targets/layout.py); so this file knows no
 * version of any runtime.
 *
 * All of it is read while the thread is the current one and in the kernel, where it cannot change
 * its own state. The reads fail instead of faulting: what cannot be read is UNKNOWN.
 */

/* What both a block row and a runtime row tell of the scheduler. */
struct runtime_state {
	s64 goid;
	s32 p;
	s32 m;
	s32 runq;
	s32 global_runq;
	s32 npidle;
	s32 nmspinning;
};

#define RUNTIME_STATE_UNKNOWN                                                                     \
	{                                                                                         \
		.goid = UNKNOWN, .p = UNKNOWN, .m = UNKNOWN, .runq = UNKNOWN,                     \
		.global_runq = UNKNOWN, .npidle = UNKNOWN, .nmspinning = UNKNOWN                  \
	}

#define RUNTIME_STATE_COPY(record, state)                                                         \
	do {                                                                                      \
		(record)->goid = (state)->goid;                                                   \
		(record)->p = (state)->p;                                                         \
		(record)->m = (state)->m;                                                         \
		(record)->runq = (state)->runq;                                                   \
		(record)->global_runq = (state)->global_runq;                                     \
		(record)->npidle = (state)->npidle;                                               \
		(record)->nmspinning = (state)->nmspinning;                                       \
	} while (0)

/*
 * When a look tells what is not as it was at `since`. Two CPUs may look at once: then the other's
 * look, which saw what was before, may have begun after this one, and what this one sees came later
 * still.
 */
static __always_inline s64 told_at(s64 now, s64 since)
{
	return since >= now ? (s64)bpf_ktime_get_ns() : now;
}

/*
 * Where a field is; all ones, where nothing can be read, for a field of nil and for one that is not
 * known. No branch, for to Linux 6.1 the verifier follows each, and what it leaves, to the end: of
 * six numbers that may be UNKNOWN it made 64 programs.
 */
static __always_inline void *runtime_address(u64 base, s32 offset)
{
	s64 known = (s64)offset - UNKNOWN;
	s64 there = ((s64)(base | -base) & (known | -known)) >> 63;

	return (void *)((base + offset) | ~there);
}

/* The pointer at an address; 0 for nil and for what cannot be read. */
static __always_inline u64 runtime_pointer(u64 base, s32 offset)
{
	u64 value = 0;

	/* What it cannot read it leaves as zeros. */
	bpf_probe_read_user(&value, sizeof(value), runtime_address(base, offset));
	return value;
}

/* The number of `size` bytes (4 or 8) at an address; UNKNOWN where it cannot be read. */
static __always_inline s64 runtime_number(u64 base, s32 offset, s32 size)
{
	s64 value[2] = {};
	u32 bytes = size & 12; /* the verifier asks for room for 12 */
	u32 shift = (64 - 8 * bytes) & 63;
	s64 error = bpf_probe_read_user(value, bytes, runtime_address(base, offset));

	return ((s64)((u64)value[0] << shift) >> shift) | error >> 63;
}

/*
 * A piece of a runtime's struct, taken by one read: a read of another's memory costs some 25 ns,
 * be it of 8 bytes or of 256, and at a block that is most of what a capture costs. Fields that
 * lie outside of it, or all of them where it cannot be read, are read one by one.
 */
#define SPAN_BYTES 512 /* a power of two */
/* So far from every offset, and from UNKNOWN, that one comparison tells what is not in a span. */
#define SPAN_NONE 0x80000000

/* How much of each struct, from its first field that is wanted. */
#define G_SPAN 32
#define M_SPAN 256
#define P_SPAN 432 /* id to run queue: the arrays between them are shorter than another read */
#define SCHED_SPAN 64

enum {
	SPAN_ANY, /* whatever is being read */
	SPAN_P, /* the current thread's own P, or the one that is looked at */
	SPAN_COUNT,
};

struct runtime_span {
	u64 base; /* of the struct */
	u32 first; /* offset of the first byte that was read; SPAN_NONE for nothing */
	u64 bytes[SPAN_BYTES / sizeof(u64)];
};
/* Of the CPU; only for programs that nothing else of ours interrupts, as those at a switch. */
BPF_PERCPU_ARRAY(runtime_spans, struct runtime_span, SPAN_COUNT);

static __always_inline struct runtime_span *runtime_span(int number)
{
	return runtime_spans.lookup(&number);
}

/* The first of some offsets; one that is UNKNOWN is behind all others. */
static __always_inline u32 span_begin(u32 one, u32 other)
{
	return (one < other ? one : other) & ~7;
}

static __always_inline void span_read(struct runtime_span *span, u64 base, u32 first, u32 bytes)
{
	span->base = base;
	span->first = first;
	if (!base || bpf_probe_read_user(&span->bytes, bytes, (void *)(base + first)))
		span->first = SPAN_NONE;
}

/* As runtime_pointer() and runtime_number(), out of the first `bytes` of a span. */
static __always_inline u64 span_pointer(struct runtime_span *span, s32 offset, u32 bytes)
{
	u32 at = offset - span->first;

	if (at > bytes - sizeof(u64) || at & 7)
		return runtime_pointer(span->base, offset);
	return *(u64 *)((char *)span->bytes + (at & (SPAN_BYTES - 8)));
}

static __always_inline s64 span_number(struct runtime_span *span, s32 offset, s32 size, u32 bytes)
{
	u32 at = offset - span->first;

	if (at > bytes - sizeof(u64) || at & (size - 1))
		return runtime_number(span->base, offset, size);
	if (size == sizeof(s64))
		return *(s64 *)((char *)span->bytes + (at & (SPAN_BYTES - 8)));
	return *(s32 *)((char *)span->bytes + (at & (SPAN_BYTES - 4)));
}

/*
 * A number of a struct that is in a span, or at `base` where there is none: a program that may be
 * interrupted by another of ours (a uprobe's) has no span.
 */
static __always_inline s64 number_of(struct runtime_span *span, u64 base, s32 offset, s32 size,
				     u32 bytes)
{
	return span ? span_number(span, offset, size, bytes) : runtime_number(base, offset, size);
}

/* Where a thread keeps what is its own. */
static __always_inline u64 thread_local_base(struct task_struct *task)
{
	return CONSTANT(OFFSET_TASK_FSBASE) == UNKNOWN ? 0 : field_u64(task, OFFSET_TASK_FSBASE);
}

/*
 * The M that a thread of the current process is, by its thread-local storage. On arm64 nothing is
 * there in a program without C, and g is in its register: as it was when the thread entered the
 * kernel last. Who asks has to see whether the M is that thread's.
 */
static __always_inline u64 runtime_m_of(struct runtime_layout *layout, struct task_struct *task)
{
	u64 g = runtime_pointer(thread_local_base(task), layout->g_tls);

#ifdef bpf_target_arm64
	if (!layout->g_tls || !g)
		g = field_u64((void *)bpf_task_pt_regs(task), OFFSET_REGS_G);
#endif
	return runtime_pointer(g, layout->g_m);
}

/* The M that the current thread is, or 0 for a thread that is none. */
static __always_inline u64 runtime_current_m(struct runtime_layout *layout, u32 tid)
{
	if (layout->g_tls == UNKNOWN) {
		u64 *m = runtime_ms.lookup(&tid);

		return m ? *m : 0;
	}
	return runtime_m_of(layout, bpf_get_current_task_btf());
}

/* P's id and how much waits in its queue. A P with id -1 is a runtime's word for "none". */
static __always_inline void runtime_read_p(struct runtime_layout *layout, struct runtime_span *span,
					   u64 p, struct runtime_state *state)
{
	s32 size = layout->int_size;

	state->p = number_of(span, p, layout->p_id, size, P_SPAN);
	if (state->p < 0 || layout->p_runqhead == UNKNOWN || layout->p_runqtail == UNKNOWN)
		return;
	/* Both count up and wrap; only their difference means anything. */
	s32 length = (s32)number_of(span, p, layout->p_runqtail, size, P_SPAN) -
		     (s32)number_of(span, p, layout->p_runqhead, size, P_SPAN);
	if (runtime_pointer(p, layout->p_runnext))
		length++;
	state->runq = length < 0 ? UNKNOWN : length;
}

/* Where the scheduler's own struct is, told by any M. */
static __always_inline u64 runtime_sched(struct runtime_layout *layout, u64 m)
{
	return layout->sched == UNKNOWN ? runtime_pointer(m, layout->m_sched) :
					  layout->sched + layout->bias;
}

static __always_inline void runtime_read_sched(struct runtime_layout *layout,
					       struct runtime_span *span, u64 sched,
					       struct runtime_state *state)
{
	s32 size = layout->int_size;

	if (span)
		span_read(span, sched, span_begin(layout->sched_npidle, layout->sched_runqsize),
			  SCHED_SPAN);
	state->npidle = number_of(span, sched, layout->sched_npidle, size, SCHED_SPAN);
	state->nmspinning = number_of(span, sched, layout->sched_nmspinning, size, SCHED_SPAN);
	state->global_runq = number_of(span, sched, layout->sched_runqsize, size, SCHED_SPAN);
}

/*
 * Reads the current thread's M, as much of it as is wanted, and returns where it is; 0 for a
 * thread that is none. A thread of Go stays the M it is, unless it is another language's, which
 * borrows one for each call: so the M it was is taken for its own if that names the thread, and
 * two reads are saved.
 */
static __always_inline u64 runtime_read_m(struct thread_state *thread,
					  struct runtime_layout *layout, struct runtime_span *span)
{
	u32 first = span_begin(span_begin(layout->m_procid, layout->m_id),
			       span_begin(layout->m_curg, layout->m_p));
	u64 m = thread->m;

	if (m) {
		span_read(span, m, first, M_SPAN);
		if (span_number(span, layout->m_procid, sizeof(s64), M_SPAN) == thread->own_tid)
			return m;
	}
	m = runtime_current_m(layout, thread->tid);
	span_read(span, m, first, M_SPAN);
	if (layout->m_procid == UNKNOWN)
		return m;
	if (span_number(span, layout->m_procid, sizeof(s64), M_SPAN) == thread->own_tid) {
		thread->m = m;
		return m;
	}
	if (layout->g_tls == UNKNOWN)
		return m;
	/* A child of vfork has its parent's memory and thread-local storage, and is no M of its own. */
	span_read(span, 0, first, M_SPAN);
	return 0;
}
