/*
 * The slot of an M, in which a stop of it is asked for and told: what the signal handler
 * (_preempt.c) and the trace function (_lines.c) share.
 */
#ifndef PRETAKE_SLOT_H
#define PRETAKE_SLOT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

struct slot {
	struct slot *next_free;
	/* Borrowed: the scheduler keeps all of them alive for as long as they stand here. */
	PyObject *m, *p, *g;
	int runs_g;  /* its M is not parked */
	int wanted;  /* a stop is asked for */
	int pending; /* a signal is under way */
	int stopped; /* the thread waits in the handler */
	int go_on;   /* the futex it waits on */
	int traced;  /* a trace function was set at the last request */
	int open;    /* a signal met the interpreter: its outcome is the trace function's to tell */
	PyThreadState *thread;
	uint64_t *own; /* outcomes, of the stopper whose slot it is */
};

/* What becomes of a request. */
enum { STOPPED, NOT_WANTED, UNSAFE_POINT, NOT_RUNNING_G, OUTCOMES };

#pragma GCC visibility push(hidden)

/* The calling thread's. No lazy allocation of thread-local storage: the handler reads it on any
 * thread. */
extern __thread struct slot *preempt_self __attribute__((tls_model("initial-exec")));

/* Count an outcome; in no slot if NULL. */
void preempt_count(struct slot *slot, int outcome);
/* Count that a stop came to nothing, and tell it. */
void preempt_refuse(struct slot *slot, int outcome);
/* Wait right here, until the slot's M is given a P again. */
void preempt_stop_here(struct slot *slot);

/* Have a thread look at its next lines too. Its signal is sent after that: with the GIL held, so that
 * the handler has run before the thread gets to any line; without a GIL, lines wait for it. */
void lines_trace(struct slot *slot);
/* The calling thread looks at its lines no more. */
void lines_trace_no_more(void);
/* The signal that met the interpreter stops nothing. */
void lines_settle(struct slot *slot, int outcome);
/* (runtime, program, library): folders by whose code is in them, and the address of a function of
 * the compiled runtime, or 0; whether lines can stop. */
PyObject *lines_begin(PyObject *module, PyObject *args);

#pragma GCC visibility pop

#endif
