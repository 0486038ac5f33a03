/*
 * Asynchronous preemption (Go: preemptM, doSigPreempt): SIGURG's handler, and what Python says to
 * it. The handler runs on the thread that was interrupted. It looks whether a stop is still
 * wanted and whether the interrupted PC is at a safe point; then the thread waits right there, on
 * a futex, with its registers in the signal frame, until it is given a P again.
 *
 * The handler is async-signal-safe: atomic operations, futex(2) and the runtime's probed function,
 * which is empty. It never touches a Python object, only hands on its address. Each M has a slot;
 * Python writes a slot with the GIL held, or under the lock of the P that its M has; the handler only
 * on the slot's own thread.
 *
 * A signal that meets the interpreter finds no safe point. The handler then leaves the outcome
 * open, and the thread stops at a line of the program: _lines.c.
 */
#define _GNU_SOURCE
#include "_no_gil.h"
#include "_preempt.h"
#include "_slot.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* The table of safe points: [begin, end). */
static const struct {
	const char *begin, *end;
} safe_points[] = {
	{__start_pretake_safe, __stop_pretake_safe},
};

__thread struct slot *preempt_self;
/* Guards the free slots, and the handler's users. */
SHARED_LOCK(shared);
static struct slot *free_slots;
static uint64_t outcomes[OUTCOMES];
static uint64_t nobodys; /* of these, on threads without a slot */
static uint32_t stops; /* how many threads ever stopped: the futex of those that wait for one */
static struct sigaction before;
static int users;

/* transition() of the compiled runtime, where the tracer's probe stands; NULL if interpreted. */
typedef char transition_function(int64_t kind, PyObject *m, PyObject *p, PyObject *g,
				 int64_t reason, int64_t target_tid);
static transition_function *transition;
static int64_t preempted, preempt_refused, acquirep, run, reasons[OUTCOMES];

static void tell(int64_t kind, const struct slot *slot, int64_t reason)
{
	if (transition && slot)
		transition(kind, slot->m, slot->p, slot->g, reason, -1);
}

static void wake(uint32_t *futex)
{
	syscall(SYS_futex, futex, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static uintptr_t interrupted_pc(const ucontext_t *context)
{
#if defined(__x86_64__)
	return context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return context->uc_mcontext.pc;
#else
	return 0; /* never safe */
#endif
}

static int at_safe_point(uintptr_t pc)
{
	for (size_t i = 0; i < sizeof(safe_points) / sizeof(*safe_points); i++)
		if (pc >= (uintptr_t)safe_points[i].begin && pc < (uintptr_t)safe_points[i].end)
			return 1;
	return 0;
}

static int in_nosplit(uintptr_t pc)
{
	return pc >= (uintptr_t)__start_pretake_nosplit && pc < (uintptr_t)__stop_pretake_nosplit;
}

void preempt_count(struct slot *slot, int outcome)
{
	__atomic_add_fetch(&outcomes[outcome], 1, __ATOMIC_SEQ_CST);
	if (slot)
		__atomic_add_fetch(&slot->own[outcome], 1, __ATOMIC_SEQ_CST);
	else
		__atomic_add_fetch(&nobodys, 1, __ATOMIC_SEQ_CST);
}

void preempt_refuse(struct slot *slot, int outcome)
{
	preempt_count(slot, outcome);
	tell(preempt_refused, slot, reasons[outcome]);
}

void preempt_stop_here(struct slot *slot)
{
	__atomic_store_n(&slot->wanted, 0, __ATOMIC_SEQ_CST);
	tell(preempted, slot, reasons[STOPPED]);
	__atomic_store_n(&slot->stopped, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&stops, 1, __ATOMIC_SEQ_CST);
	wake(&stops);
	while (!__atomic_load_n(&slot->go_on, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &slot->go_on, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	__atomic_store_n(&slot->go_on, 0, __ATOMIC_SEQ_CST);
	tell(acquirep, slot, -1);
	tell(run, slot, -1);
}

static void on_signal(int signo, siginfo_t *info, void *context)
{
	struct slot *slot = preempt_self;
	int errno_before = errno;
	int outcome = STOPPED;

	(void)signo;
	(void)info;
	if (slot)
		__atomic_store_n(&slot->pending, 0, __ATOMIC_SEQ_CST);
	if (!slot || !__atomic_load_n(&slot->runs_g, __ATOMIC_SEQ_CST))
		outcome = NOT_RUNNING_G;
	else if (!__atomic_load_n(&slot->wanted, __ATOMIC_SEQ_CST))
		outcome = NOT_WANTED;
	else if (!at_safe_point(interrupted_pc(context)))
		outcome = UNSAFE_POINT; /* and stays wanted, for the next signal, line or check */
	if (slot && slot->open) {
		/* The thread has come to no line of the program since the signal before. */
		slot->open = 0;
		preempt_refuse(slot, UNSAFE_POINT);
	}
	if (outcome == UNSAFE_POINT && slot->traced && !in_nosplit(interrupted_pc(context))) {
		slot->open = 1;
	} else if (outcome == STOPPED) {
		preempt_count(slot, STOPPED);
		preempt_stop_here(slot);
	} else {
		preempt_refuse(slot, outcome);
	}
	errno = errno_before;
}

/* What Python says. A slot is known to it by its address; 0 is the slot of an M that has ended. */

static struct slot *slot_of(PyObject *number)
{
	return PyLong_AsVoidPtr(number);
}

static int expect(Py_ssize_t nargs, Py_ssize_t wanted)
{
	if (nargs == wanted)
		return 1;
	PyErr_Format(PyExc_TypeError, "%zd arguments for %zd", nargs, wanted);
	return 0;
}

static PyObject *preempt_begin(PyObject *module, PyObject *args)
{
	unsigned long long address;
	struct sigaction ours = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
	int failed = 0;

	if (!PyArg_ParseTuple(args, "KLLLLLLLL", &address, &preempted, &preempt_refused,
			      &acquirep, &run, &reasons[STOPPED], &reasons[NOT_WANTED],
			      &reasons[UNSAFE_POINT], &reasons[NOT_RUNNING_G]))
		return NULL;
	transition = (transition_function *)(uintptr_t)address;
	/* For as long as the process lives: a thread that is stuck in a call may come back to it. */
	uint64_t *own = PyMem_RawCalloc(OUTCOMES, sizeof(*own));
	if (!own)
		return PyErr_NoMemory();
	LOCK(shared);
	if (users++ == 0 && sigaction(SIGURG, &ours, &before))
		failed = errno;
	UNLOCK(shared);
	if (failed) {
		errno = failed;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	return PyLong_FromVoidPtr(own);
}

static PyObject *preempt_end(PyObject *module, PyObject *number)
{
	const uint64_t *own = PyLong_AsVoidPtr(number);

	if (!own && PyErr_Occurred())
		return NULL;
	LOCK(shared);
	if (--users == 0)
		sigaction(SIGURG, &before, NULL);
	UNLOCK(shared);
	return Py_BuildValue("(KKKK)", own[STOPPED], own[NOT_WANTED], own[UNSAFE_POINT],
			     own[NOT_RUNNING_G]);
}

static PyObject *slot_begin(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	struct slot *slot;

	if (!expect(nargs, 4))
		return NULL;
	LOCK(shared);
	slot = free_slots;
	if (slot)
		free_slots = slot->next_free;
	UNLOCK(shared);
	if (!slot && !(slot = PyMem_RawMalloc(sizeof(*slot))))
		return PyErr_NoMemory();
	*slot = (struct slot){
		.m = args[0],
		.p = args[1],
		.g = args[2],
		.thread = PyThreadState_Get(),
		.own = PyLong_AsVoidPtr(args[3]),
	};
	preempt_self = slot;
	return PyLong_FromVoidPtr(slot);
}

static PyObject *slot_end(PyObject *module, PyObject *unused)
{
	struct slot *slot = preempt_self;

	lines_trace_no_more();
	lines_settle(slot, NOT_WANTED);
	preempt_self = NULL;
	LOCK(shared);
	slot->next_free = free_slots;
	free_slots = slot;
	UNLOCK(shared);
	Py_RETURN_NONE;
}

static PyObject *slot_runs(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	if (!expect(nargs, 2))
		return NULL;
	__atomic_store_n(&slot_of(args[0])->runs_g, args[1] == Py_True, __ATOMIC_SEQ_CST);
	Py_RETURN_NONE;
}

static PyObject *slot_ask(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	struct slot *slot;

	if (!expect(nargs, 3))
		return NULL;
	slot = slot_of(args[0]);
	if (!slot || __atomic_load_n(&slot->stopped, __ATOMIC_SEQ_CST) ||
	    __atomic_exchange_n(&slot->pending, 1, __ATOMIC_SEQ_CST))
		Py_RETURN_FALSE;
	slot->p = args[1];
	slot->g = args[2];
	__atomic_store_n(&slot->wanted, 1, __ATOMIC_SEQ_CST);
	lines_trace(slot);
	Py_RETURN_TRUE;
}

static PyObject *slot_withdraw(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	if (!expect(nargs, 2))
		return NULL;
	__atomic_store_n(&slot_of(args[0])->wanted, 0, __ATOMIC_SEQ_CST);
	lines_trace_no_more();
	lines_settle(slot_of(args[0]), NOT_WANTED);
	slot_of(args[0])->g = args[1];
	Py_RETURN_NONE;
}

static PyObject *slot_stopped(PyObject *module, PyObject *number)
{
	struct slot *slot = slot_of(number);

	return PyBool_FromLong(slot && __atomic_load_n(&slot->stopped, __ATOMIC_SEQ_CST));
}

static PyObject *slot_resume(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	struct slot *slot;

	if (!expect(nargs, 3))
		return NULL;
	slot = slot_of(args[0]);
	if (!slot)
		Py_RETURN_NONE;
	slot->p = args[1];
	slot->g = args[2];
	__atomic_store_n(&slot->stopped, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&slot->go_on, 1, __ATOMIC_SEQ_CST);
	wake((uint32_t *)&slot->go_on);
	Py_RETURN_NONE;
}

static PyObject *count_stops(PyObject *module, PyObject *unused)
{
	return PyLong_FromUnsignedLong(__atomic_load_n(&stops, __ATOMIC_SEQ_CST));
}

static PyObject *announce_stop(PyObject *module, PyObject *unused)
{
	__atomic_add_fetch(&stops, 1, __ATOMIC_SEQ_CST);
	wake(&stops);
	Py_RETURN_NONE;
}

static PyObject *wait_for_stop(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	struct timespec timeout;
	uint32_t seen;
	long long ns;

	if (!expect(nargs, 2))
		return NULL;
	seen = (uint32_t)PyLong_AsUnsignedLong(args[0]);
	ns = PyLong_AsLongLong(args[1]);
	if (PyErr_Occurred())
		return NULL;
	timeout.tv_sec = ns / 1000000000;
	timeout.tv_nsec = ns % 1000000000;
	Py_BEGIN_ALLOW_THREADS
	syscall(SYS_futex, &stops, FUTEX_WAIT_PRIVATE, seen, &timeout, NULL, 0);
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static PyObject *send_signal(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	if (!expect(nargs, 2))
		return NULL;
	/* A thread that is gone is no error. */
	syscall(SYS_tgkill, getpid(), PyLong_AsLong(args[0]), PyLong_AsLong(args[1]));
	Py_RETURN_NONE;
}

static PyObject *count_outcomes(PyObject *module, PyObject *unused)
{
	return Py_BuildValue("(KKKK)", outcomes[STOPPED], outcomes[NOT_WANTED],
			     outcomes[UNSAFE_POINT], outcomes[NOT_RUNNING_G]);
}

/* Raises in a thread of this process, at the next look of its interpreter; False if it has gone. */
static PyObject *raise_in(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	if (!expect(nargs, 2))
		return NULL;
	return PyBool_FromLong(PyThreadState_SetAsyncExc(PyLong_AsUnsignedLong(args[0]), args[1]));
}

/*
 * Catches what was raised in the calling thread, if anything was; with `raise` something is.
 *
 * CPython 3.11 has one mark for all threads, that some thread has something to raise. While it
 * stands, a thread whose lines are traced gets into no function. Only the interpreter's loop raises,
 * and takes the mark away: so this runs code of its own, in which nothing else begins, since the
 * collector waits. The GIL is held until that code begins, so nobody sets a trace function sooner.
 */
static PyObject *catch_raised(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	PyThreadState *self = PyThreadState_Get();
	PyObject *code, *globals, *type = NULL, *value = NULL, *trace = NULL;
	int collects;

	if (!expect(nargs, 2))
		return NULL;
	if (!self->async_exc && args[1] != Py_True)
		Py_RETURN_NONE;
	collects = PyGC_Disable();
	code = Py_CompileString("for _ in (0,): pass", "<catch_raised>", Py_file_input);
	globals = PyDict_New();
	if (code && globals) {
		lines_trace_no_more();
		do {
			PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), args[0]);
			Py_XDECREF(PyEval_EvalCode(code, globals, globals));
			if (PyErr_Occurred() && !PyErr_ExceptionMatches(args[0])) {
				/* Ctrl-C was sooner: it is raised when this is done. */
				Py_CLEAR(type);
				Py_CLEAR(value);
				Py_CLEAR(trace);
				PyErr_Fetch(&type, &value, &trace);
			}
			PyErr_Clear();
		} while (self->async_exc);
	}
	Py_XDECREF(code);
	Py_XDECREF(globals);
	if (collects)
		PyGC_Enable();
	if (type)
		PyErr_Restore(type, value, trace);
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *count_nobodys(PyObject *module, PyObject *unused)
{
	return PyLong_FromUnsignedLongLong(__atomic_load_n(&nobodys, __ATOMIC_SEQ_CST));
}

static PyObject *safe_ranges(PyObject *module, PyObject *unused)
{
	PyObject *list = PyList_New(0);

	for (size_t i = 0; list && i < sizeof(safe_points) / sizeof(*safe_points); i++) {
		PyObject *row = Py_BuildValue("(KK)", (uintptr_t)safe_points[i].begin,
					      (uintptr_t)safe_points[i].end);
		if (!row || PyList_Append(list, row))
			Py_CLEAR(list);
		Py_XDECREF(row);
	}
	return list;
}

#define FAST(function) (PyCFunction)(void (*)(void))function, METH_FASTCALL

PyMethodDef preempt_methods[] = {
	{"preempt_begin", preempt_begin, METH_VARARGS,
	 "Set the handler, with the words' numbers; where its outcomes are counted."},
	{"preempt_end", preempt_end, METH_O, "(own): take the handler away; the outcomes."},
	{"slot_begin", FAST(slot_begin), "(m, no_p, no_g, own): the calling thread's slot."},
	{"slot_end", slot_end, METH_NOARGS, "The calling thread has no slot any more."},
	{"slot_runs", FAST(slot_runs), "(slot, yes): whether its M is not parked."},
	{"slot_ask", FAST(slot_ask), "(slot, p, g): want a stop; whether a signal is to be sent."},
	{"slot_withdraw", FAST(slot_withdraw), "(slot, no_g): want it no more."},
	{"slot_stopped", slot_stopped, METH_O, "Whether the slot's thread stands in the handler."},
	{"slot_resume", FAST(slot_resume), "(slot, p, g): let it go on with P."},
	{"count_stops", count_stops, METH_NOARGS, "How many stops there were."},
	{"announce_stop", announce_stop, METH_NOARGS, "Wake those that wait for a stop."},
	{"wait_for_stop", FAST(wait_for_stop), "(seen, ns): until there were more stops."},
	{"send_signal", FAST(send_signal), "(tid, signo): tgkill(2)."},
	{"count_outcomes", count_outcomes, METH_NOARGS,
	 "Stopped, and refused: not_wanted, unsafe_point, not_running_g."},
	{"count_nobodys", count_nobodys, METH_NOARGS, "Signals on threads without a slot."},
	{"safe_ranges", safe_ranges, METH_NOARGS, "[begin, end) addresses of safe points."},
	{"raise_in", FAST(raise_in), "(ident, exception): raise it in that thread."},
	{"catch_raised", FAST(catch_raised),
	 "(exception, raise): catch what was raised in this thread, if it was; with raise it is."},
	{"trace_lines", lines_begin, METH_VARARGS,
	 "(runtime, program, library, function): folders by whose code is in them, and the address of "
	 "a function of the compiled runtime, or 0; whether lines can stop."},
	{NULL, NULL, 0, NULL},
};
