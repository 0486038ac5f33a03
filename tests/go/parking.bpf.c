// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Keeps a thread of `blockread` on its CPU where it enters futex to wait, until another one enters
 * futex to wake somebody; and that one for a while longer. So an M that is about to park is given a P
 * there, and runs with it before the giver goes on, as where the host takes CPUs (test_parking.py).
 */
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf.h>

#define NR_FUTEX 202
#define FUTEX_CMD_MASK 127
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define WAITER_NS 50000000 /* longer than sysmon sleeps, also where it waits for a CPU */
#define WAKER_NS 1000000
#define READINGS 60000 /* of the clock in one run: the verifier follows each of them */

enum {
	WAITER,
	WAKER,
	SIDES,
};
BPF_PROG_ARRAY(again, 1);
BPF_PERCPU_ARRAY(sides, u32, 1);
BPF_ARRAY(until_ns, u64, SIDES);

int keep_on(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	u32 *side = sides.lookup(&zero);
	volatile u64 *end = side ? until_ns.lookup(side) : 0;

	if (!end)
		return 0;
	for (int i = 0; i < READINGS; i++)
		if (bpf_ktime_get_ns() >= *end)
			return 0;
	again.call(ctx, 0);
	return 0;
}

int enter_call(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *registers = (struct pt_regs *)ctx->args[0];
	char name[16] = {}, program[10] = "blockread";
	u64 operation = 0;
	int waiter = WAITER, waker = WAKER, zero = 0;
	u32 *side = sides.lookup(&zero);
	volatile u64 *waiter_ns = until_ns.lookup(&waiter), *waker_ns = until_ns.lookup(&waker);

	if (ctx->args[1] != NR_FUTEX || !side || !waiter_ns || !waker_ns)
		return 0;
	bpf_get_current_comm(name, sizeof(name));
	for (int i = 0; i < sizeof(program); i++)
		if (name[i] != program[i])
			return 0;
	bpf_probe_read_kernel(&operation, sizeof(operation), &registers->si);
	operation &= FUTEX_CMD_MASK;
	if (operation == FUTEX_WAIT) {
		*side = WAITER;
		*waiter_ns = bpf_ktime_get_ns() + WAITER_NS;
	} else if (operation == FUTEX_WAKE) {
		*side = WAKER;
		*waiter_ns = 0;
		*waker_ns = bpf_ktime_get_ns() + WAKER_NS;
	} else {
		return 0;
	}
	again.call(ctx, 0);
	return 0;
}
