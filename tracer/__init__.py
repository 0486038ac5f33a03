"""Captures a program, its runtime and the kernel under it, into a trace on disk."""
