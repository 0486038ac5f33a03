/*
 * The reader of the sched_out policy: it waits for switches of the runtime's threads, and tells
 * which threads blocked. It is C because it is on the way from a block to the retake, and because
 * it is woken at every switch of every thread: without the GIL it can look at each and go back to
 * sleep, so that only a thread that blocked costs the others anything.
 *
 * Records as in include/uapi/linux/perf_event.h; see tracer/kernel/perf_events.py, which opens the events.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

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

static PyMethodDef methods[] = {
	{"add", add, METH_VARARGS, "Watch a perf event's ring; keep what is returned."},
	{"add_break", add_break, METH_VARARGS, "A descriptor that ends a wait."},
	{"wait_blocked", wait_blocked, METH_VARARGS, "Numbers of the threads that blocked."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT, "reference_runtime._switches", NULL, -1, methods,
};

PyMODINIT_FUNC PyInit__switches(void)
{
	return PyModule_Create(&module);
}
