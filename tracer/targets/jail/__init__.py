"""The one place where a stranger's file is read: a process that can do nothing else.

As root, the tracer reads every program that a target execs. Whoever makes such a file may make it
so that its parser crashes, never ends, takes all memory, or does what the file wants. So the file
is parsed by a child process that reads this file alone and ends:

- it is uid and gid 65534 without groups and capabilities (where the tracer is an ordinary user,
  it is that user);
- it has one descriptor, that of the file, to read from; it can open nothing, start nothing, send
  no signal, trace nobody and reach no network: seccomp leaves it 16 system calls;
- it has 512 MB of address space, 2 s of CPU time and 2 s in all (more on a machine that is busy),
  after which the kernel ends it;
- its answer is memory of a fixed size, and is checked field by field before it is used.

Example:
    >>> fd = open_program(Path("server"))
    >>> look(fd, Path("server"), deep=True).version
    'go1.27.3'
"""

from tracer.targets.jail.answers import Site
from tracer.targets.jail.client import LookUp, begin_look, is_go, look, sites, warm_up

__all__ = ["LookUp", "Site", "begin_look", "is_go", "look", "sites", "warm_up"]
