// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * What a runtime's own memory says about the thread that runs here, now.
 *
 * The way there: the thread's FS base (a field of task_struct, its offset from BTF) leads to g,
 * g to M, M to its P and its goroutine. Where a runtime keeps no g in thread-local storage, its
 * M is found by thread id in runtime_ms, which the probe on its mstart fills. Every offset comes
 * from the process's entry in runtime_layouts (tracer/targets/layout.py); so this file knows no
 * version of any runtime, only the two models of a P in a system call.
 *
 * All of it is read while the thread stands still in the kernel (it is the current one), with
 * reads that fail rather than fault: what cannot be read is UNKNOWN.
 *
 * Functions for the other programs:
 *   runtime_state_at_block()   at sched_switch, for a block row
 *   runtime_at_fork(), runtime_at_exec(), runtime_at_exit()   keep the layouts of processes
 * Compiled with -DOFFSET_... from tracer/kernel/btf.py: the kernel's own offsets, -1 where it has none.
 */

#define NR_FUTEX 202

/* Go's numbers (runtime2.go), which the reference runtime shares. */
#define G_SYSCALL 3
#define G_SCAN_BIT 0x1000
#define P_SYSCALL 2
#define P_GCSTOP 3

/* A process (tgid as the first pid namespace counts it) until its next exec. */
struct process_image {
	u32 tgid;
	u32 generation;
};
BPF_HASH(runtime_layouts, struct process_image, struct runtime_layout, 4096);
/* How often there was no room for one. */
BPF_ARRAY(runtime_layouts_missed, u64, 1);
/* By thread: address of its M, where the runtime tells it by a probe. */
BPF_HASH(runtime_ms, u32, u64, 65536);

/*
 * A binary as the kernel knows it. Two file systems may have one inode number, and a file that is
 * written in place keeps its own: so its device and the time of its last change are a part of it.
 */
struct runtime_binary {
	u64 device;
	u64 inode;
	u64 size;
	u64 changed_s;
	u64 changed_ns;
};
/* Those that were inspected, so that a process is in reach from its exec on. */
BPF_TABLE("lru_hash", struct runtime_binary, struct runtime_layout, runtime_binaries, 1024);

/* What a process became by an exec: it may have ended when the tracer reads of it. */
struct exec_image {
	struct runtime_binary binary;
	u64 start_code; /* run-time addresses of its executable segments: of the first byte */
	u64 end_code; /* and behind the last */
	u64 in_reach; /* whether its layout was in place before its first instruction */
};

/* What it was exec'd as: by this its file is found where /proc/PID/exe is gone already. */
#define PATH_BYTES 256
struct exec_path {
	char name[PATH_BYTES];
};
BPF_TABLE("lru_hash", struct process_image, struct exec_path, exec_paths, 4096);
BPF_ARRAY(no_path, struct exec_path, 1);
BPF_TABLE("lru_hash", struct process_image, struct exec_image, exec_images, 16384);

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
 * When a look tells what it found. Two CPUs may look at once: then the other's look, which saw what
 * was before, may have begun after this one, and what this one sees came later still.
 */
static __always_inline s64 told_at(s64 now, s64 since)
{
	return since > now ? (s64)bpf_ktime_get_ns() : now;
}

/* The pointer at an address; 0 for nil and for what cannot be read. */
static __always_inline u64 runtime_pointer(u64 base, s32 offset)
{
	u64 value = 0;

	if (!base || offset == UNKNOWN)
		return 0;
	if (bpf_probe_read_user(&value, sizeof(value), (void *)(base + offset)))
		return 0;
	return value;
}

/* The number of `size` bytes (4 or 8) at an address; UNKNOWN where it cannot be read. */
static __always_inline s64 runtime_number(u64 base, s32 offset, s32 size)
{
	s64 wide = 0;
	s32 narrow = 0;

	if (!base || offset == UNKNOWN)
		return UNKNOWN;
	if (size == sizeof(wide)) {
		if (bpf_probe_read_user(&wide, sizeof(wide), (void *)(base + offset)))
			return UNKNOWN;
		return wide;
	}
	if (bpf_probe_read_user(&narrow, sizeof(narrow), (void *)(base + offset)))
		return UNKNOWN;
	return narrow;
}

static __always_inline u64 kernel_pointer(u64 base, s32 offset)
{
	u64 value = 0;

	if (!base || offset == UNKNOWN)
		return 0;
	if (bpf_probe_read_kernel(&value, sizeof(value), (void *)(base + offset)))
		return 0;
	return value;
}

/*
 * A piece of a runtime's struct, taken by one read: a read of another's memory costs some 25 ns,
 * be it of 8 bytes or of 256, and at a block that is most of what a capture costs. Fields that
 * lie outside of it, or all of them where it cannot be read, are read one by one.
 */
#define SPAN_BYTES 512 /* a power of two */
#define SPAN_NONE 0xffffffff

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

	if (span->first == SPAN_NONE || offset == UNKNOWN || at > bytes - sizeof(u64) || at & 7)
		return runtime_pointer(span->base, offset);
	return *(u64 *)((char *)span->bytes + (at & (SPAN_BYTES - 8)));
}

static __always_inline s64 span_number(struct runtime_span *span, s32 offset, s32 size, u32 bytes)
{
	u32 at = offset - span->first;

	if (span->first == SPAN_NONE || offset == UNKNOWN || at > bytes - sizeof(u64) ||
	    at & (size - 1))
		return runtime_number(span->base, offset, size);
	if (size == sizeof(s64))
		return *(s64 *)((char *)span->bytes + (at & (SPAN_BYTES - 8)));
	return *(s32 *)((char *)span->bytes + (at & (SPAN_BYTES - 4)));
}

static __always_inline struct process_image image_of(struct thread_state *thread)
{
	struct process_image image = {.tgid = thread->tgid, .generation = thread->generation};

	return image;
}

/* Where a thread's process keeps its runtime; 0 where it has none in reach. */
static __always_inline struct runtime_layout *layout_of(struct thread_state *thread)
{
	struct process_image image = image_of(thread);

	return runtime_layouts.lookup(&image);
}

static __always_inline void set_layout(struct process_image *image, struct runtime_layout *layout)
{
	int zero = 0;
	u64 *missed = runtime_layouts_missed.lookup(&zero);

	if (runtime_layouts.update(image, layout) && missed)
		__sync_fetch_and_add(missed, 1);
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
	return OFFSET_TASK_FSBASE == UNKNOWN ? 0 : field_u64(task, OFFSET_TASK_FSBASE);
}

/* The M that a thread of the current process is, by its thread-local storage. */
static __always_inline u64 runtime_m_of(struct runtime_layout *layout, struct task_struct *task)
{
	return runtime_pointer(runtime_pointer(thread_local_base(task), layout->g_tls), layout->g_m);
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

/*
 * Whether an M in a system call still has its P, or it was taken or given away. To Go 1.25: the
 * M lets go of it at once (m.p is nil), and until somebody changes its status, or the tick that
 * every retake raises, it is still there for the M to come back to (m.oldp). From Go 1.26 it
 * keeps m.p until somebody takes it, and nothing else has to be looked at.
 */
static __always_inline int runtime_still_held(struct runtime_layout *layout, u64 m,
					      struct runtime_span *p)
{
	if (layout->model != RUNTIME_MODEL_PSYSCALL)
		return 1;
	return span_number(p, layout->p_status, layout->int_size, P_SPAN) == P_SYSCALL &&
	       span_number(p, layout->p_syscalltick, sizeof(s32), P_SPAN) ==
		       runtime_number(m, layout->m_syscalltick, sizeof(s32));
}

/*
 * What the thread that leaves this CPU is to its runtime; 0 for what it has not. In a map and not on
 * the stack: of that the verifier tells apart whatever values a branch has left there, and follows
 * each to the end.
 */
struct runtime_self {
	u64 m;
	u64 p; /* that it holds, in a call or not */
	u64 oldp;
	u64 curg;
	s64 status; /* of curg */
	struct runtime_state state; /* of p */
	s64 now;
	s32 m_id;
	u32 blocked; /* and not preempted or stopped */
};
BPF_PERCPU_ARRAY(runtime_selves, struct runtime_self, 1);

static __always_inline struct runtime_self *runtime_self(void)
{
	int zero = 0;

	return runtime_selves.lookup(&zero);
}

static __always_inline struct runtime_self *runtime_self_unknown(void)
{
	struct runtime_self *self = runtime_self();

	if (self) {
		self->m = 0;
		self->p = 0;
		self->curg = 0;
		self->m_id = UNKNOWN;
	}
	return self;
}

/*
 * Fills a block row's goid, p, m, runq, global_runq, npidle, nmspinning and p_use for the current
 * thread, and tells what it is in `self`. Returns whether there is a row to write: not where the
 * thread blocks on nobody's behalf, with no runtime in reach, or as a thread of the runtime itself
 * (sysmon, a parked M, an M that looks for work), which runs no goroutine.
 */
static __always_inline int runtime_state_at_block(struct thread_state *thread,
						  struct runtime_layout *layout,
						  struct block_record *record,
						  struct runtime_self *self)
{
	struct runtime_span *span = runtime_span(SPAN_ANY), *p_span = runtime_span(SPAN_P);

	if (!span || !p_span)
		return 0;

	self->m = runtime_read_m(thread, layout, span);
	self->curg = span_pointer(span, layout->m_curg, M_SPAN);
	self->p = span_pointer(span, layout->m_p, M_SPAN);
	self->oldp = span_pointer(span, layout->m_oldp, M_SPAN);
	self->m_id = span_number(span, layout->m_id, sizeof(s64), M_SPAN);
	record->m = self->m_id;
	span_read(span, self->curg, span_begin(layout->g_goid, layout->g_status), G_SPAN);
	record->goid = span_number(span, layout->g_goid, sizeof(s64), G_SPAN);
	self->status = span_number(span, layout->g_status, layout->int_size, G_SPAN);
	if (record->goid < 0)
		self->curg = 0;
	/* But an M that looks for work, or starts a goroutine, may fault with its P. */
	if (!self->curg && record->why == BLOCK_WHY_SYSCALL)
		return 0;

	int in_syscall = self->status != UNKNOWN && (self->status & ~G_SCAN_BIT) == G_SYSCALL;
	if (in_syscall && layout->model == RUNTIME_MODEL_PSYSCALL)
		self->p = self->oldp;
	self->state = (struct runtime_state)RUNTIME_STATE_UNKNOWN;
	span_read(p_span, self->p, span_begin(layout->p_id, layout->p_status), P_SPAN);
	if (!in_syscall || runtime_still_held(layout, self->m, p_span))
		runtime_read_p(layout, p_span, self->p, &self->state);
	record->p = self->state.p;
	record->runq = self->state.runq;
	if (record->p < 0)
		self->p = 0;
	if (self->p) {
		record->p_use = in_syscall ? BLOCK_P_USE_SYSCALL : BLOCK_P_USE_RAW;
		if (self->status == UNKNOWN)
			record->p_use = UNKNOWN;
	} else if (!in_syscall || record->why != BLOCK_WHY_SYSCALL) {
		return 0;
	} else if (layout->g_tls == UNKNOWN && record->nr == NR_FUTEX) {
		/*
		 * Before and after its call a thread of the reference runtime may have to wait for
		 * Python's lock. That is no call of the goroutine's.
		 */
		return 0;
	} else {
		record->p_use = BLOCK_P_USE_HANDED_OFF;
		/* Whose it was: taken before the block; nil where it was given away. */
		record->p = runtime_number(self->oldp, layout->p_id, layout->int_size);
		record->runq = UNKNOWN;
	}

	runtime_read_sched(layout, span, runtime_sched(layout, self->m), &self->state);
	record->npidle = self->state.npidle;
	record->nmspinning = self->state.nmspinning;
	record->global_runq = self->state.global_runq;
	return 1;
}

/* A new process begins as a copy of its parent, and so does what is known of it. */
static __always_inline void runtime_at_fork(struct thread_state *parent, struct thread_state *child)
{
	struct process_image image = image_of(child);
	struct runtime_layout *layout = layout_of(parent);

	if (layout)
		set_layout(&image, layout);
	else
		runtime_layouts.delete(&image); /* of an earlier process with this number */
}

/*
 * The current process became another program. If that is an inspected binary, its layout is in
 * place before its first instruction; where it was loaded is told by the kernel (start_code is
 * the run-time address of the first executable segment).
 */
static __always_inline void runtime_at_exec(struct thread_state *thread, u64 binprm)
{
	u64 mm = kernel_pointer(bpf_get_current_task(), OFFSET_TASK_MM);
	u64 inode = kernel_pointer(kernel_pointer(mm, OFFSET_MM_EXE_FILE), OFFSET_FILE_INODE);
	u64 superblock = kernel_pointer(inode, OFFSET_INODE_SB);
	struct process_image image = image_of(thread);
	struct exec_image exec = {
		.binary = {
			.device = task_u32(superblock, OFFSET_SB_DEV),
			.inode = kernel_pointer(inode, OFFSET_INODE_INO),
			.size = kernel_pointer(inode, OFFSET_INODE_SIZE),
			.changed_s = kernel_pointer(inode, OFFSET_INODE_CTIME_S),
			/* The top bit is the kernel's own mark that somebody asked (multigrain). */
			.changed_ns = task_u32(inode, OFFSET_INODE_CTIME_NS) & 0x7fffffff,
		},
		.start_code = kernel_pointer(mm, OFFSET_MM_START_CODE),
		.end_code = kernel_pointer(mm, OFFSET_MM_END_CODE),
	};
	struct runtime_layout *layout = runtime_binaries.lookup(&exec.binary);

	if (!layout) {
		int zero = 0;
		struct exec_path *path = no_path.lookup(&zero);

		if (path)
			exec_paths.update(&image, path);
		path = exec_paths.lookup(&image);
		/* Of a script, the program that reads it. */
		u64 name = kernel_pointer(binprm, OFFSET_BINPRM_INTERP);
		if (path && name)
			bpf_probe_read_kernel_str(path->name, sizeof(path->name), (void *)name);
	}
	exec.in_reach = layout != 0;
	exec_images.update(&image, &exec);
	if (layout) {
		set_layout(&image, layout);
		layout = runtime_layouts.lookup(&image);
		if (layout && layout->first_code != UNKNOWN)
			layout->bias = exec.start_code - layout->first_code;
	}
	/* What it was before is nobody's any more. */
	image.generation--;
	runtime_layouts.delete(&image);
}

/*
 * A thread ended: its number may soon be another's. With the last of its process, all that is
 * known of that goes. The kernel counts it out before it tells (do_exit).
 */
static __always_inline void runtime_at_exit(struct thread_state *thread, struct task_struct *task)
{
	struct process_image image = image_of(thread);
	u32 tid = thread->tid;

	runtime_ms.delete(&tid);
	if (!task_u32(field_u64(task, OFFSET_TASK_SIGNAL), OFFSET_SIGNAL_LIVE))
		runtime_layouts.delete(&image);
}
