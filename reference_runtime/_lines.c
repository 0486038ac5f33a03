/*
 * Stops in Python code: at a line of the program, where the signal (_preempt.c) met the interpreter.
 *
 * The interpreter may hold the GIL, and any lock of its own, so it has no safe point. Whoever asks
 * for a stop also sets a trace function on the thread, once; at the next line of the program's own
 * code the thread stops there, without the GIL, in the same slot and the same way as in the
 * handler. Lines of libraries do not count: the code there may hold a lock (logging, an import)
 * that the next goroutine needs to go on.
 */
#define _GNU_SOURCE
#include "_slot.h"

#include <link.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

/* Sets one thread's trace function: exported to 3.12, and declared in no public header there. */
extern int _PyEval_SetTrace(PyThreadState *thread, Py_tracefunc function, PyObject *argument)
	__attribute__((weak));
/* Sets it on all threads: public, from 3.12 on. Those who are not meant take it off at once. */
extern void PyEval_SetTraceAllThreads(Py_tracefunc function, PyObject *argument)
	__attribute__((weak));

enum { PROGRAM, RUNTIME, LIBRARY };

static PyObject *runtime_folders, *program_folders, *library_folders; /* tuples of str */

static int in_folders(PyObject *file, PyObject *folders)
{
	for (Py_ssize_t i = 0; folders && i < PyTuple_GET_SIZE(folders); i++)
		if (PyUnicode_Tailmatch(file, PyTuple_GET_ITEM(folders, i), 0, PY_SSIZE_T_MAX, -1) == 1)
			return 1;
	return 0;
}

static int whose_code(PyObject *file)
{
	if (in_folders(file, program_folders))
		return PROGRAM;
	if (in_folders(file, runtime_folders))
		return RUNTIME;
	return in_folders(file, library_folders) ? LIBRARY : PROGRAM;
}

/*
 * Whether the frame is the program's, and was called by the program's code or by the scheduler.
 *
 * The collector, a __del__ or a callback may run the program's code in the middle of a function of
 * the runtime, which the program had called: that one may hold a lock of the runtime. As in Go
 * (isAsyncSafePoint), nobody is stopped in there. Where the runtime is interpreted its frames tell;
 * else the thread's stack does (in_compiled_runtime).
 */
static int in_program(PyFrameObject *frame)
{
	int program = 0, runtime = 0, whose = PROGRAM;

	Py_INCREF(frame);
	while (frame && whose != LIBRARY) {
		PyCodeObject *code = PyFrame_GetCode(frame);
		PyFrameObject *caller = PyFrame_GetBack(frame);

		whose = whose_code(code->co_filename);
		Py_DECREF(code);
		Py_DECREF(frame);
		frame = caller;
		if (whose == RUNTIME)
			runtime = 1;
		else if (whose == PROGRAM)
			program = !runtime; /* else it called the function that called back */
		if (!program)
			break;
	}
	Py_XDECREF(frame);
	return program && (runtime || whose != LIBRARY);
}

static uintptr_t runtime_begin, runtime_end; /* the compiled runtime's code; 0 if there is none */

static int find_runtime(struct dl_phdr_info *object, size_t size, void *address)
{
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];
		uintptr_t begin = object->dlpi_addr + part->p_vaddr;

		if (part->p_type == PT_LOAD && part->p_flags & PF_X &&
		    (uintptr_t)address - begin < part->p_memsz) {
			runtime_begin = begin;
			runtime_end = begin + part->p_memsz;
			return 1;
		}
	}
	return 0;
}

struct walk {
	int groups; /* of frames of the runtime that called each other */
	int inside;
};

static _Unwind_Reason_Code step_out(struct _Unwind_Context *context, void *data)
{
	struct walk *walk = data;
	uintptr_t pc = _Unwind_GetIP(context);
	int inside = pc >= runtime_begin && pc < runtime_end;

	walk->groups += inside && !walk->inside;
	walk->inside = inside;
	return _URC_NO_REASON;
}

/* Whether the calling thread is in a function of the compiled runtime that the program called. The
 * scheduler that runs the goroutine is one group of frames; any other one is such a function. */
static int in_compiled_runtime(void)
{
	struct walk walk = {0, 0};

	if (!runtime_end)
		return 0;
	_Unwind_Backtrace(step_out, &walk);
	return walk.groups != 1;
}

static int on_line(PyObject *unused, PyFrameObject *frame, int event, PyObject *argument);

/* On the calling thread. */
void lines_trace_no_more(void)
{
	if (PyThreadState_Get()->c_tracefunc == on_line)
		PyEval_SetTrace(NULL, NULL);
}

/* The signal that met the interpreter stops nothing. */
void lines_settle(struct slot *slot, int outcome)
{
	if (slot->open) {
		slot->open = 0;
		preempt_refuse(slot, outcome);
	}
}

static int on_line(PyObject *unused, PyFrameObject *frame, int event, PyObject *argument)
{
	struct slot *slot = preempt_self;

	if (!slot || !slot->open) {
		/* Without a GIL the thread may be here before the signal, which says whether it stops. */
		if (!slot || !__atomic_load_n(&slot->pending, __ATOMIC_SEQ_CST))
			lines_trace_no_more();
		return 0;
	}
	if (event != PyTrace_LINE || !slot->runs_g || !in_program(frame) || in_compiled_runtime())
		return 0;
	lines_trace_no_more();
	if (!slot->wanted) {
		lines_settle(slot, NOT_WANTED);
		return 0;
	}
	slot->open = 0;
	preempt_count(slot, STOPPED);
	Py_BEGIN_ALLOW_THREADS
	preempt_stop_here(slot);
	Py_END_ALLOW_THREADS
	return 0;
}

#ifdef Py_GIL_DISABLED

static PyThreadState *main_thread; /* NULL if no runtime was begun on it */

static int has_other_trace(const PyThreadState *thread)
{
	return thread && thread->c_tracefunc && thread->c_tracefunc != on_line;
}

/* As below, of the threads that cannot end meanwhile: no other may be looked at without a GIL. */
static int is_debugged(PyInterpreterState *interpreter)
{
	(void)interpreter;
	return has_other_trace(main_thread) || has_other_trace(PyThreadState_Get());
}

#else

/* Whether some thread has a trace function that is not ours. */
static int is_debugged(PyInterpreterState *interpreter)
{
	PyThreadState *thread = PyInterpreterState_ThreadHead(interpreter);

	for (; thread; thread = PyThreadState_Next(thread))
		if (thread->c_tracefunc && thread->c_tracefunc != on_line)
			return 1;
	return 0;
}

#endif

/* See _slot.h. */
void lines_trace(struct slot *slot)
{
	PyThreadState *thread = slot->thread;

	slot->traced = thread->c_tracefunc == on_line;
	/* A debugger's own trace function stays. */
	if (slot->traced || thread->c_tracefunc || !library_folders)
		return;
	if (!_PyEval_SetTrace) {
		if (PyEval_SetTraceAllThreads && !is_debugged(PyThreadState_GetInterpreter(thread)))
			PyEval_SetTraceAllThreads(on_line, NULL);
	} else if (_PyEval_SetTrace(thread, on_line, NULL)) {
		PyErr_Clear(); /* an audit hook's veto */
	}
	slot->traced = thread->c_tracefunc == on_line;
}

PyObject *lines_begin(PyObject *module, PyObject *args)
{
	PyObject *runtime, *program, *library;
	unsigned long long function;

	if (!PyArg_ParseTuple(args, "O!O!O!K", &PyTuple_Type, &runtime, &PyTuple_Type, &program,
			      &PyTuple_Type, &library, &function))
		return NULL;
	runtime_begin = runtime_end = 0;
	if (function)
		dl_iterate_phdr(find_runtime, (void *)(uintptr_t)function);
#ifdef Py_GIL_DISABLED
	if (syscall(SYS_gettid) == getpid())
		main_thread = PyThreadState_Get();
	/* The same for each runtime, and read by threads of those that run: set by the first. */
	if (library_folders)
		return PyBool_FromLong(1);
#endif
	Py_XSETREF(runtime_folders, Py_NewRef(runtime));
	Py_XSETREF(program_folders, Py_NewRef(program));
	Py_XSETREF(library_folders, Py_NewRef(library));
	return PyBool_FromLong(_PyEval_SetTrace || PyEval_SetTraceAllThreads);
}
