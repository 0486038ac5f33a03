"""The simulated host: virtual time and CPUs under the same scheduler code that runs on threads."""
