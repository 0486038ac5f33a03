/*
 * The few things that Python cannot do: a fast thread-local, CPU work and ppoll(2) without the
 * GIL. Everything here has a fallback in Python (see current.py and real_host.py), but for the
 * loops that a signal stops (_preempt.c).
 *
 * CPU kernels stand in sections of their own, which tell where a goroutine may be stopped: see
 * _preempt.h. Nothing else in the process is a safe point.
 */
#define _GNU_SOURCE
#include "_no_gil.h"
#include "_preempt.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

/* The M that the calling thread is; borrowed, the scheduler's list of Ms keeps it alive. */
static __thread PyObject *current;

static PyObject *get_current(PyObject *self, PyObject *unused)
{
	PyObject *value = current ? current : Py_None;

	Py_INCREF(value);
	return value;
}

static PyObject *set_current(PyObject *self, PyObject *value)
{
	current = value == Py_None ? NULL : value;
	Py_RETURN_NONE;
}

/* One step of xorshift64*: something the compiler cannot skip. */
SAFE_POINT static uint64_t burn_kernel(uint64_t iterations)
{
	uint64_t x = 88172645463325252ULL;

	for (uint64_t i = 0; i < iterations; i++) {
		x ^= x >> 12;
		x ^= x << 25;
		x ^= x >> 27;
	}
	return x;
}

/*
 * The article's endless loop: 0 minus twos is never 1. It calls nothing, so no check at a function
 * entry stops it. The second condition is for the end of the run only.
 */
#define ENDLESS_LOOP                                                                              \
	uint32_t u = 0;                                                                           \
	do {                                                                                      \
		u -= 2;                                                                           \
	} while (u != 1 && !*over);                                                               \
	return u

SAFE_POINT static uint32_t loop_kernel(const volatile char *over)
{
	ENDLESS_LOOP;
}

NOSPLIT static uint32_t nosplit_loop_kernel(const volatile char *over)
{
	ENDLESS_LOOP;
}

static int64_t nanotime(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static PyObject *burn(PyObject *self, PyObject *argument)
{
	unsigned long long iterations = PyLong_AsUnsignedLongLong(argument);
	uint64_t result;

	if (PyErr_Occurred())
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	result = burn_kernel(iterations);
	Py_END_ALLOW_THREADS
	return PyLong_FromUnsignedLongLong(result);
}

static PyObject *spin_ns(PyObject *self, PyObject *argument)
{
	long long ns = PyLong_AsLongLong(argument);
	volatile uint64_t sink;

	if (PyErr_Occurred())
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	for (int64_t end = nanotime() + ns; nanotime() < end;)
		sink = burn_kernel(1000);
	Py_END_ALLOW_THREADS
	(void)sink;
	Py_RETURN_NONE;
}

static PyObject *endless_loop(PyObject *self, PyObject *args)
{
	Py_buffer over;
	int may_not_stop;

	/* The flag is the runtime's own: another one in this process ends its loops by another. */
	if (!PyArg_ParseTuple(args, "y*p", &over, &may_not_stop))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	if (may_not_stop)
		nosplit_loop_kernel(over.buf);
	else
		loop_kernel(over.buf);
	Py_END_ALLOW_THREADS
	PyBuffer_Release(&over);
	Py_RETURN_NONE;
}

static PyObject *poll_one(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	struct pollfd fd;
	struct timespec timeout;
	long long timeout_ns, deadline_ns;
	int ready;

	if (nargs != 3) {
		PyErr_SetString(PyExc_TypeError, "poll_one(fd, events, timeout_ns)");
		return NULL;
	}
	fd.fd = (int)PyLong_AsLong(args[0]);
	fd.events = (short)PyLong_AsLong(args[1]);
	fd.revents = 0;
	timeout_ns = PyLong_AsLongLong(args[2]);
	if (PyErr_Occurred())
		return NULL;
	deadline_ns = nanotime() + timeout_ns;
	do {
		timeout.tv_sec = timeout_ns / 1000000000;
		timeout.tv_nsec = timeout_ns % 1000000000;
		Py_BEGIN_ALLOW_THREADS
		ready = ppoll(&fd, 1, timeout_ns < 0 ? NULL : &timeout, NULL);
		Py_END_ALLOW_THREADS
		/* A signal breaks the wait in any case: what is left of it goes on. */
		if (timeout_ns >= 0 && ready < 0)
			timeout_ns = Py_MAX(deadline_ns - nanotime(), 0);
	} while (ready < 0 && errno == EINTR && !PyErr_CheckSignals());
	if (PyErr_Occurred())
		return NULL;
	if (ready < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	return PyLong_FromLong(ready ? fd.revents : 0);
}

static PyObject *drop_gil(PyObject *self, PyObject *unused)
{
	Py_BEGIN_ALLOW_THREADS
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

/*
 * Switch: what a goroutine awaits to leave its M. Each await makes one of these, which yields once
 * and is over; a generator would do, and has a frame and the collector's attention besides.
 */
struct switching {
	PyObject_HEAD
	int yielded;
};

static PyObject *switching_next(PyObject *self)
{
	struct switching *one = (struct switching *)self;

	/* NULL without an exception is the end. */
	if (one->yielded)
		return NULL;
	one->yielded = 1;
	Py_RETURN_NONE;
}

static PySendResult switching_send(PyObject *self, PyObject *unused, PyObject **result)
{
	*result = Py_NewRef(Py_None);
	if (((struct switching *)self)->yielded)
		return PYGEN_RETURN;
	((struct switching *)self)->yielded = 1;
	return PYGEN_NEXT;
}

static PyAsyncMethods switching_async = {.am_send = switching_send};
static PyTypeObject switching_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "reference_runtime._native.Switching",
	.tp_basicsize = sizeof(struct switching),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_iter = PyObject_SelfIter,
	.tp_iternext = switching_next,
	.tp_as_async = &switching_async,
};

static PyObject *switch_await(PyObject *self)
{
	struct switching *one = PyObject_New(struct switching, &switching_type);

	if (one)
		one->yielded = 0;
	return (PyObject *)one;
}

/* As tp_new: made once, and awaited by every goroutine on every thread. */
static PyObject *switch_new(PyTypeObject *type, PyObject *args, PyObject *kwds)
{
	PyObject *self = PyType_GenericNew(type, args, kwds);

	if (self)
		make_immortal(self);
	return self;
}

static PyAsyncMethods switch_async = {.am_await = switch_await};
static PyTypeObject switch_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "reference_runtime._native.Switch",
	.tp_basicsize = sizeof(PyObject),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = switch_new,
	.tp_as_async = &switch_async,
};

static PyMethodDef methods[] = {
	{"get_current", get_current, METH_NOARGS, "The calling thread's M, or None."},
	{"set_current", set_current, METH_O, "Say which M the calling thread is."},
	{"burn", burn, METH_O, "Run so many steps of a generator, without the GIL."},
	{"spin_ns", spin_ns, METH_O, "Use the CPU for so many ns, without the GIL."},
	{"endless_loop", endless_loop, METH_VARARGS,
	 "(flag, nosplit): loop until the flag's first byte is not 0."},
	{"poll_one", (PyCFunction)(void (*)(void))poll_one, METH_FASTCALL,
	 "ppoll(2) on one descriptor; the events that are there."},
	{"drop_gil", drop_gil, METH_NOARGS, "Let another thread have the GIL, if one waits."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT, "reference_runtime._native", NULL, -1, methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
	PyObject *self = PyModule_Create(&module);

	if (self && (needs_no_gil(self) || PyModule_AddFunctions(self, preempt_methods) ||
		     PyType_Ready(&switching_type) || PyModule_AddType(self, &switch_type)))
		Py_CLEAR(self);
	return self;
}
