/*
 * Stops in Python code: at a line of the program, where the signal (_preempt.c) met the interpreter.
 *
 * The interpreter may hold the GIL, and any lock of its own, so it has no safe point. Whoever asks
 * for a stop also sets a trace function on the thread, once; at the next line of the program's own
 * code the thread stops there, without the GIL, in the same slot and the same way as in the
 * handler. Lines of libraries do not count: the code there may hold a lock (logging, an import)
 * that the next goroutine needs to go on.
 */
#include "_slot.h"

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

/* Whether the frame is the program's, and was called by the program's code or by the runtime. */
static int in_program(PyFrameObject *frame)
{
	int whose = PROGRAM, depth = 0;

	Py_INCREF(frame);
	while (frame && whose == PROGRAM) {
		PyCodeObject *code = PyFrame_GetCode(frame);
		PyFrameObject *caller = PyFrame_GetBack(frame);

		whose = whose_code(code->co_filename);
		depth++;
		Py_DECREF(code);
		Py_DECREF(frame);
		frame = caller;
	}
	Py_XDECREF(frame);
	return whose == PROGRAM || (whose == RUNTIME && depth > 1);
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
		lines_trace_no_more();
		return 0;
	}
	if (event != PyTrace_LINE || !slot->runs_g || !in_program(frame))
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

/* Whether some thread has a trace function that is not ours. */
static int is_debugged(PyInterpreterState *interpreter)
{
	PyThreadState *thread = PyInterpreterState_ThreadHead(interpreter);

	for (; thread; thread = PyThreadState_Next(thread))
		if (thread->c_tracefunc && thread->c_tracefunc != on_line)
			return 1;
	return 0;
}

/* Have a thread look at its next lines too. Its signal is sent after that, with the GIL held: so
 * the handler has run before the thread gets to any line. */
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

	if (!PyArg_ParseTuple(args, "O!O!O!", &PyTuple_Type, &runtime, &PyTuple_Type, &program,
			      &PyTuple_Type, &library))
		return NULL;
	Py_XSETREF(runtime_folders, Py_NewRef(runtime));
	Py_XSETREF(program_folders, Py_NewRef(program));
	Py_XSETREF(library_folders, Py_NewRef(library));
	return PyBool_FromLong(_PyEval_SetTrace || PyEval_SetTraceAllThreads);
}
