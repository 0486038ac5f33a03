"""The simulated host: virtual time and CPUs under the very scheduler that runs on real threads."""
