// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Where each process keeps its runtime, from one exec to the next.
 *
 *   runtime_at_fork(), runtime_at_exec(), runtime_at_exit()   keep it up to date
 *   layout_of()   the offsets, for who reads the memory (runtime_memory.bpf.c)
 */

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
	s64 ahead_ns; /* its CLOCK_MONOTONIC minus the machine's: of its time namespace */
};
#define CLOCK_UNKNOWN ((s64)1 << 63)

/* What it was exec'd as: by this its file is found where /proc/PID/exe is gone already. */
#define PATH_BYTES 256
struct exec_path {
	char name[PATH_BYTES];
};
BPF_TABLE("lru_hash", struct process_image, struct exec_path, exec_paths, 4096);
BPF_ARRAY(no_path, struct exec_path, 1);
BPF_TABLE("lru_hash", struct process_image, struct exec_image, exec_images, 16384);

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

/* How far ahead of the machine's the current process's CLOCK_MONOTONIC is. */
static __always_inline s64 clock_ahead(void)
{
	u64 nsproxy = kernel_pointer(bpf_get_current_task(), OFFSET_TASK_NSPROXY);
	u64 namespace = kernel_pointer(nsproxy, OFFSET_NSPROXY_TIME);

	if (CONSTANT(OFFSET_NSPROXY_TIME) == UNKNOWN)
		return 0;
	if (!namespace)
		return CLOCK_UNKNOWN;
	return (s64)kernel_pointer(namespace, OFFSET_TIME_MONOTONIC_S) * 1000000000 +
	       (s64)kernel_pointer(namespace, OFFSET_TIME_MONOTONIC_NS);
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
		.ahead_ns = clock_ahead(),
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
