// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Keeps a CPU for itself with interrupts off, for a time of chance, when the CPU's timer event comes
 * (tools/stolen_cpus.py). To the machine's programs it is as if the host had taken the CPU away: no
 * switch, no signal, no time that the kernel counts as anybody else's.
 */
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf_perf_event.h>

#define LEAST_NS 300000
#define SIXTEENTHS 16 /* twice: short times come more often than long ones */
#define READINGS 60000 /* of the clock in one run: the verifier follows each of them */

BPF_PROG_ARRAY(again, 1);
BPF_PERCPU_ARRAY(until_ns, u64, 1);

int keep_on(struct bpf_perf_event_data *ctx)
{
	int zero = 0;
	u64 *end = until_ns.lookup(&zero);

	if (!end)
		return 0;
	for (int i = 0; i < READINGS; i++)
		if (bpf_ktime_get_ns() >= *end)
			return 0;
	again.call(ctx, 0);
	return 0;
}

int steal(struct bpf_perf_event_data *ctx)
{
	int zero = 0;
	u64 *end = until_ns.lookup(&zero);
	u64 share = (bpf_get_prandom_u32() % SIXTEENTHS) * (bpf_get_prandom_u32() % SIXTEENTHS);

	if (!end)
		return 0;
	*end = bpf_ktime_get_ns() + LEAST_NS + share * (MOST_NS / (SIXTEENTHS * SIXTEENTHS));
	again.call(ctx, 0);
	return 0;
}
