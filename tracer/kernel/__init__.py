"""The kernel side: bpf(2), BTF, compiling and loading the programs, their rings."""
