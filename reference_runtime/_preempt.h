/*
 * Asynchronous preemption: what the module of kernels (_native.c) and the signal handler
 * (_preempt.c) share.
 */
#ifndef PRETAKE_PREEMPT_H
#define PRETAKE_PREEMPT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

/*
 * Code in this section is at a safe point at every instruction: it holds no lock and no GIL, has
 * nothing half done, and calls nothing. The section's bounds, which the linker tells, are a row
 * of the handler's table.
 */
#define SAFE_POINT __attribute__((section("pretake_safe"), noinline))
/* As go:nosplit: compute kernels too, but in no row of the table. */
#define NOSPLIT __attribute__((section("pretake_nosplit"), noinline))

extern const char __start_pretake_safe[], __stop_pretake_safe[];
extern const char __start_pretake_nosplit[], __stop_pretake_nosplit[];

extern PyMethodDef preempt_methods[];

#endif
