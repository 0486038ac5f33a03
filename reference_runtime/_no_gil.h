/*
 * What the C modules need where Python has no GIL (PEP 703): to say that they do without, a lock for
 * what Python's calls share, and objects that all threads use. With a GIL all of it is nothing.
 */
#ifndef PRETAKE_NO_GIL_H
#define PRETAKE_NO_GIL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef Py_GIL_DISABLED

#define SHARED_LOCK(name) static PyMutex name
#define LOCK(name) PyMutex_Lock(&(name))
#define UNLOCK(name) PyMutex_Unlock(&(name))

/* Else the import of the module brings the GIL back, for the whole process. */
static inline int needs_no_gil(PyObject *module)
{
	return PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
}

/* Count the references of an object no more, since it lives as long as the process: the count would
 * be a word for which the threads fight at each use. */
static inline void make_immortal(PyObject *object)
{
	object->ob_tid = _Py_UNOWNED_TID;
	object->ob_ref_local = _Py_IMMORTAL_REFCNT_LOCAL;
	object->ob_ref_shared = 0;
}

#else

#define SHARED_LOCK(name) struct name
#define LOCK(name) ((void)0)
#define UNLOCK(name) ((void)0)

static inline int needs_no_gil(PyObject *module)
{
	(void)module;
	return 0;
}

static inline void make_immortal(PyObject *object)
{
	(void)object;
}

#endif

#endif
