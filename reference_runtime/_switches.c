/*
 * The reader of the sched_out policy: it waits for switches of the runtime's threads, and tells
 * which threads blocked. It is C because it is on the way from a block to the retake, and because
 * it is woken at every switch of every thread: without the GIL it can look at each and go back to
 * sleep, so that only a thread that blocked costs the others anything.
 *
 * The wait of the upcall policy stands here too: it is woken by a signal that the kernel sends.
 *
 * Records as in include/uapi/linux/perf_event.h; see tracer/kernel/perf_events.py, which opens the events.
 */
#define _GNU_SOURCE
#include "_no_gil.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MOST 64

struct ring {
	Py_buffer map;
	struct perf_event_mmap_page *page;
	int number;
};

/* A record's header, by way of the ring's end. */
static struct perf_event_header header_at(const struct ring *ring, uint64_t position)
{
	const uint8_t *data = (const uint8_t *)ring->map.buf + ring->page->data_offset;
	struct perf_event_header header;

	/* Records are of 8-byte units, so that a header is never cut by the ring's end. */
	memcpy(&header, data + position % ring->page->data_size, sizeof(header));
	return header;
}

/* Drain; whether the newest switch says that the thread blocked. */
static int is_blocked(struct ring *ring)
{
	uint64_t head = __atomic_load_n(&ring->page->data_head, __ATOMIC_ACQUIRE);
	uint64_t tail = ring->page->data_tail;
	int blocked = 0;

	while (tail < head) {
		struct perf_event_header header = header_at(ring, tail);

		if (header.type == PERF_RECORD_SWITCH)
			blocked = (header.misc & PERF_RECORD_MISC_SWITCH_OUT) &&
				  !(header.misc & PERF_RECORD_MISC_SWITCH_OUT_PREEMPT);
		tail += header.size ? header.size : head - tail;
	}
	__atomic_store_n(&ring->page->data_tail, head, __ATOMIC_RELEASE);
	return blocked;
}

static void forget(PyObject *capsule)
{
	struct ring *ring = PyCapsule_GetPointer(capsule, "ring");

	PyBuffer_Release(&ring->map);
	PyMem_RawFree(ring);
}

/*
 * remove(capsule): let go of the ring's memory. Without a GIL an object goes when the thread that made
 * it comes by, which may be long after its last reference was dropped by another.
 */
static PyObject *remove_ring(PyObject *self, PyObject *capsule)
{
	struct ring *ring = PyCapsule_GetPointer(capsule, "ring");

	if (!ring)
		return NULL;
	PyBuffer_Release(&ring->map);
	Py_RETURN_NONE;
}

/* add(epoll_fd, event_fd, map, number): a capsule that keeps the ring, to be kept as long. */
static PyObject *add(PyObject *self, PyObject *args)
{
	struct ring *ring = PyMem_RawCalloc(1, sizeof(*ring));
	struct epoll_event event = {.events = EPOLLIN};
	int epoll_fd, event_fd;
	PyObject *capsule;

	if (!ring)
		return PyErr_NoMemory();
	if (!PyArg_ParseTuple(args, "iiw*i", &epoll_fd, &event_fd, &ring->map, &ring->number)) {
		PyMem_RawFree(ring);
		return NULL;
	}
	ring->page = ring->map.buf;
	capsule = PyCapsule_New(ring, "ring", forget);
	if (!capsule)
		return NULL;
	event.data.ptr = ring;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event)) {
		Py_DECREF(capsule);
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	return capsule;
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/*
 * wait(epoll_fd, timeout_ns): numbers of the threads that blocked; none after the timeout, or
 * when a descriptor was ready that is no ring (one of those that break the wait).
 */
static PyObject *wait_blocked(PyObject *self, PyObject *args)
{
	struct epoll_event events[MOST];
	int numbers[MOST], blocked = 0, ready = 0, epoll_fd, told = 0;
	long long timeout_ns;
	int64_t end_ns;
	PyObject *list;

	if (!PyArg_ParseTuple(args, "iL", &epoll_fd, &timeout_ns))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	end_ns = now_ns() + timeout_ns;
	while (!blocked && !told) {
		int64_t left_ms = (end_ns - now_ns() + 999999) / 1000000;

		ready = epoll_wait(epoll_fd, events, MOST, left_ms > 0 ? (int)left_ms : 0);
		if (ready <= 0 && (ready == 0 || errno != EINTR))
			break;
		for (int i = 0; i < ready; i++) {
			struct ring *ring = events[i].data.ptr;

			if (!ring)
				told = 1;
			else if (is_blocked(ring))
				numbers[blocked++] = ring->number;
		}
	}
	Py_END_ALLOW_THREADS
	list = PyList_New(blocked);
	for (int i = 0; list && i < blocked; i++)
		PyList_SET_ITEM(list, i, PyLong_FromLong(numbers[i]));
	return list;
}

/* add_break(epoll_fd, fd): a descriptor that ends the wait when it is readable. */
static PyObject *add_break(PyObject *self, PyObject *args)
{
	struct epoll_event event = {.events = EPOLLIN};
	int epoll_fd, fd;

	if (!PyArg_ParseTuple(args, "ii", &epoll_fd, &fd))
		return NULL;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

/* What the program in the kernel shares with us: tracer/bpf/upcall.bpf.c. */
#define THREADS_MOST 1024

struct upcalls {
	uint32_t tgid;
	uint32_t signal;
	uint32_t on_call;
	uint32_t broken;
	uint64_t blocks;
	uint64_t failed;
	uint8_t blocked[THREADS_MOST];
};

static int collect(struct upcalls *state, int threads, int *numbers)
{
	int blocked = 0;

	for (int i = 0; i < threads; i++)
		if (__atomic_load_n(&state->blocked[i], __ATOMIC_SEQ_CST) &&
		    __atomic_exchange_n(&state->blocked[i], 0, __ATOMIC_SEQ_CST))
			numbers[blocked++] = i;
	return blocked;
}

/*
 * wait_upcall(state, threads, timeout_ns): numbers below `threads` of the threads that are blocked
 * in a system call and were not told before; none after the timeout, or for good after
 * break_upcall. One thread at a time; its signal is blocked from then on.
 */
static PyObject *wait_upcall(PyObject *self, PyObject *args)
{
	int numbers[THREADS_MOST], threads, blocked;
	struct upcalls *state;
	struct timespec left;
	long long timeout_ns;
	int64_t end_ns;
	sigset_t signals;
	Py_buffer map;
	PyObject *list;

	if (!PyArg_ParseTuple(args, "w*iL", &map, &threads, &timeout_ns))
		return NULL;
	state = map.buf;
	threads = Py_MIN(threads, THREADS_MOST);
	Py_BEGIN_ALLOW_THREADS
	end_ns = now_ns() + timeout_ns;
	sigemptyset(&signals);
	sigaddset(&signals, (int)state->signal);
	/* On Linux it is this thread's, as pthread_sigmask, which has another place in glibc from
	 * 2.32 on: so a wheel would run on no older one. */
	sigprocmask(SIG_BLOCK, &signals, NULL);
	/* First on call, then a look: a block is either seen here or wakes us. */
	__atomic_store_n(&state->on_call, (uint32_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	while (!(blocked = collect(state, threads, numbers)) &&
	       !__atomic_load_n(&state->broken, __ATOMIC_SEQ_CST)) {
		int64_t left_ns = end_ns - now_ns();

		if (left_ns <= 0)
			break;
		left.tv_sec = left_ns / 1000000000;
		left.tv_nsec = left_ns % 1000000000;
		sigtimedwait(&signals, NULL, &left);
	}
	__atomic_store_n(&state->on_call, 0, __ATOMIC_SEQ_CST);
	Py_END_ALLOW_THREADS
	PyBuffer_Release(&map);
	list = PyList_New(blocked);
	for (int i = 0; list && i < blocked; i++)
		PyList_SET_ITEM(list, i, PyLong_FromLong(numbers[i]));
	return list;
}

/* break_upcall(state): end the wait, and every later one. */
static PyObject *break_upcall(PyObject *self, PyObject *map)
{
	struct upcalls *state;
	uint32_t on_call;
	Py_buffer view;

	if (PyObject_GetBuffer(map, &view, PyBUF_WRITABLE))
		return NULL;
	state = view.buf;
	__atomic_store_n(&state->broken, 1, __ATOMIC_SEQ_CST);
	on_call = __atomic_load_n(&state->on_call, __ATOMIC_SEQ_CST);
	if (on_call)
		syscall(SYS_tgkill, getpid(), on_call, (int)state->signal);
	PyBuffer_Release(&view);
	Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
	{"add", add, METH_VARARGS, "Watch a perf event's ring; keep what is returned."},
	{"remove", remove_ring, METH_O, "Let go of a ring's memory; nobody waits any more."},
	{"add_break", add_break, METH_VARARGS, "A descriptor that ends a wait."},
	{"wait_upcall", wait_upcall, METH_VARARGS, "Numbers of the threads that block in a call."},
	{"break_upcall", break_upcall, METH_O, "End a wait for upcalls."},
	{"wait_blocked", wait_blocked, METH_VARARGS, "Numbers of the threads that blocked."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT, "reference_runtime._switches", NULL, -1, methods,
};

PyMODINIT_FUNC PyInit__switches(void)
{
	PyObject *self = PyModule_Create(&module);

	if (self && needs_no_gil(self))
		Py_CLEAR(self);
	return self;
}
