"""What happened: capture of a runtime and of the kernel under it, to a trace on disk."""
