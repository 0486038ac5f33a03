// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Numbers that are known when a program is loaded: where this kernel keeps a field of a struct, and
 * what was asked of the capture. So one compilation serves every kernel, and the byte code can be
 * made where there is a compiler and loaded where there is none.
 *
 * constants.h, made from tracer/kernel/constants.py, has a number for each name. Here it goes into
 * one instruction, of which clang knows nothing; when the program is loaded, the constant's value
 * takes its place there (tracer/kernel/constants.py, `filled`). The verifier then knows the value, so
 * a branch that a kernel does not need costs it nothing.
 *
 * A name is used by these macros only. Anywhere else it is a number without meaning.
 */
#include <linux/types.h>
#include "constants.h"

/* The value of a constant: one instruction, `r = value`. */
#define CONSTANT(name)                                                                            \
	({                                                                                        \
		s64 value_;                                                                       \
		asm("%0 = %1" : "=r"(value_) : "i"(CONSTANT_BASE + (name)));             \
		value_;                                                                           \
	})

/* A field of a kernel struct, at an address whose type the verifier knows: one plain load. */
#define field_u32(address, name)                                                                  \
	({                                                                                        \
		u64 value_;                                                                       \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                             \
			     : "=r"(value_)                                                       \
			     : "r"(address), "i"(FIELD_BASE + (name)));                           \
		(u32)value_;                                                                      \
	})
#define field_u64(address, name)                                                                  \
	({                                                                                        \
		u64 value_;                                                                       \
		asm volatile("%0 = *(u64 *)(%1 + %2)"                                             \
			     : "=r"(value_)                                                       \
			     : "r"(address), "i"(FIELD_BASE + (name)));                           \
		value_;                                                                           \
	})
