// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * What differs between architectures, and is neither a number nor an offset. Numbers of system calls
 * are in arch.h, which is made from tracer/arch; offsets of registers come with all others.
 *
 * On arm64
 *   - the number of the call is an int in the kernel's copy of the registers;
 *   - a thread of the 32-bit table has a flag, and not a status;
 *   - a function finds its first argument in x0, and its return address in x30;
 *   - Go has g in x28, and in thread-local storage only where C is in the program;
 *   - another CPU may see two stores in another order than they were made in. The value that a ring's
 *     reader looks at is stored by an atomic exchange, which is a barrier too.
 */
#include "arch.h"

#ifdef bpf_target_arm64

#define call_of_registers(regs) ((s64)(s32)field_u32((void *)(regs), OFFSET_REGS_NR))
/* arch/arm64/include/asm/thread_info.h: TIF_32BIT of thread_info.flags. */
#define TASK_STATUS_COMPAT (1 << 22)
#define PROBED_ARGUMENT(ctx) PT_REGS_PARM1(ctx)
#define PROBED_RETURNS_TO(ctx) ((ctx)->regs[30])
#define PUBLISH(place, value) __sync_val_compare_and_swap(place, *(place), value)

#else

#define call_of_registers(regs) ((s64)field_u64((void *)(regs), OFFSET_REGS_NR))
/* arch/x86/include/asm/thread_info.h: TS_COMPAT, the current call came by the 32-bit entry. */
#define TASK_STATUS_COMPAT 0x0002
#define PROBED_ARGUMENT(ctx) ((ctx)->ax)
/* On top of the stack. */
#define PROBED_RETURNS_TO(ctx) runtime_pointer(PT_REGS_SP(ctx), 0)
#define PUBLISH(place, value)                                                                     \
	do {                                                                                      \
		asm volatile("" ::: "memory");                                                    \
		*(place) = (value);                                                               \
	} while (0)

#endif

/* The number of the call that the current thread is in; negative where it is in none. */
#define user_call() call_of_registers(bpf_task_pt_regs(bpf_get_current_task_btf()))
