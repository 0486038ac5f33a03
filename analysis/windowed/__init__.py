"""Reads a trace piece by piece, so that a long one needs no more memory than a short one."""
