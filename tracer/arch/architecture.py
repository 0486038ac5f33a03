"""What has to be known of a processor architecture, and is another thing on each.

Example: ``read`` is call 0 on x86-64 and call 63 on arm64. A trace says in its manifest where it
was made, and a program's ELF header what it was built for; so both are read right on any machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

__all__ = ["HEAD_BYTES", "Architecture"]

HEAD_BYTES = 32
"""How much of a function's begin :meth:`Architecture.emulated_offset` is given."""


class Architecture(ABC):
    """One architecture; the modules of this folder have one instance each.

    Attributes:
        name: as ``uname -m`` and the manifest of a trace tell it.
        title: as people say it.
        goarch: Go's name of it.
        elf_machine: ``e_machine`` of its ELF files.
        calls_table: its table of system calls, by the name that the package ``system_calls`` has
            for it.
        system_calls: numbers of the calls that pretake itself makes, allows or looks for.
        audit: its number in linux/audit.h (``AUDIT_ARCH_``), which seccomp(2) tells.
        quantum: bytes of its shortest instruction, as Go's function table tells it.
        call_instruction_bytes: of the instruction that enters the kernel.
        tls_relocation: type of the ELF relocation by which the loader writes a variable's offset
            from the thread pointer.
        g_without_tls: where g is from the thread pointer in a program without thread-local
            variables; 0, where no variable lies, for a program that has it in a register alone.
        loaders: how the names of its dynamic loaders begin.
        kernel_fields: for a name of ``tracer/kernel/constants.py``, the struct and the path of the
            kernel's field. A number at the end of a path is an element of an array of 8 bytes.
        tells_user_code: whether a flag of a thread tells that it has been in user code since it
            last came on a CPU (:mod:`tracer.kernel.return_flag`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    goarch: ClassVar[str]
    elf_machine: ClassVar[int]
    calls_table: ClassVar[str]
    system_calls: ClassVar[Mapping[str, int]]
    audit: ClassVar[int]
    quantum: ClassVar[int]
    call_instruction_bytes: ClassVar[int]
    tls_relocation: ClassVar[int]
    g_without_tls: ClassVar[int]
    loaders: ClassVar[tuple[str, ...]]
    kernel_fields: ClassVar[Mapping[str, tuple[tuple[str, str], ...]]]
    tells_user_code: ClassVar[bool]

    def nr(self, name: str) -> int:
        """The number of a system call of :attr:`system_calls`."""
        return self.system_calls[name]

    @abstractmethod
    def tls_offset(self, variable: int, segment: tuple[int, int]) -> int:
        """Where a thread-local variable of the program itself is from the thread pointer.

        Args:
            variable: its offset in the thread-local segment.
            segment: the size of that segment and its alignment.
        """

    @abstractmethod
    def calls(self, code: bytes, begin: int, callee: int) -> list[int]:
        """Addresses of the direct call instructions that go to a function.

        Args:
            code: of the caller.
            begin: its address.
            callee: the called function's address.
        """

    @abstractmethod
    def argument(self, code: bytes, begin: int, call: int) -> int | None:
        """The address that a call has for its first argument, put there right before it.

        Args:
            code: of the caller.
            begin: its address.
            call: the call instruction's.

        Returns:
            None where the instructions before the call do something else.
        """

    @abstractmethod
    def loads(self, code: bytes, begin: int) -> set[int]:
        """Addresses of variables of 8 bytes that some code loads into registers.

        Args:
            code: machine code.
            begin: its address.
        """

    @abstractmethod
    def copied_to(self, code: bytes, source: int) -> set[int]:
        """Offsets at which a number is stored that was loaded by the instruction before.

        Args:
            code: machine code.
            source: offset from some register that the 4 bytes were loaded from.

        Returns:
            Offsets from another register that they were stored to.
        """

    @abstractmethod
    def emulated_offset(self, code: bytes) -> int | None:
        """How far on the first instruction is that the kernel emulates under a uprobe.

        A uprobe on any other instruction costs several times as much. Only instructions that leave
        the arguments and the return address alone may stand before it.

        Args:
            code: from a function's first instruction on, or from the place of a probe;
                :data:`HEAD_BYTES` are enough.

        Returns:
            None where there is no such instruction before one that is not known.
        """
