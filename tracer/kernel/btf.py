"""Where the running kernel keeps the fields of its structs, from its own BTF.

bcc compiles against whatever kernel headers there are, and those need not be the running
kernel's. So no BPF program here reads a kernel struct through a header: it reads at offsets that
come from ``/sys/kernel/btf/vmlinux``, the kernel's own description of itself (Documentation/bpf/
btf.rst tells the format).
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracer.errors import PretakeError

__all__ = ["VMLINUX_BTF", "Btf", "kernel_btf"]

VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")
"""The running kernel's BTF."""

_MAGIC = 0xEB9F
_POINTER, _STRUCT, _UNION, _ENUM, _TYPEDEF, _VOLATILE, _CONST = 2, 4, 5, 6, 8, 9, 10
_FUNCTION, _PROTOTYPE = 12, 13
_TRANSPARENT = {_TYPEDEF, _VOLATILE, _CONST, 18}  # 18: type tag

# Words of four bytes that follow the three of a type, by kind: so many, and so many for each of
# its vlen.
_TRAILERS = {
    1: (1, 0),  # int
    3: (3, 0),  # array
    _STRUCT: (0, 3),
    _UNION: (0, 3),
    _ENUM: (0, 2),
    _PROTOTYPE: (0, 2),
    14: (1, 0),  # variable
    15: (0, 3),  # data section
    17: (1, 0),  # declaration tag
    19: (0, 3),  # 64-bit enum
}
_FIXED = [_TRAILERS.get(kind, (0, 0))[0] + 3 for kind in range(32)]
_EACH = [_TRAILERS.get(kind, (0, 0))[1] for kind in range(32)]


@dataclass(frozen=True)
class _Type:
    kind: int
    vlen: int
    bitfields: bool
    """Whether the members' offsets carry a bitfield size in their top byte."""
    type_id: int
    trailer: int
    """Where its trailer begins, in words."""


class Btf:
    """Types of one BTF blob.

    Args:
        data: its bytes.

    Raises:
        PretakeError: it is no BTF, or cut short.
    """

    def __init__(self, data: bytes) -> None:
        try:
            magic, _, _, header = struct.unpack_from("<HBBI", data)
            type_offset, type_length, string_offset, string_length = struct.unpack_from(
                "<IIII", data, 8
            )
            if magic != _MAGIC:
                raise PretakeError("the kernel's BTF is in a format that pretake does not know")
            begin = header + string_offset
            self._strings = data[begin : begin + string_length]
            begin = header + type_offset
            words = np.frombuffer(data, "<u4", type_length // 4, begin)
            self._words = words.data
            self._places = np.array(self._scanned(self._words))
        except (struct.error, ValueError, IndexError) as error:
            raise PretakeError(f"the kernel's BTF is cut short ({error})") from error
        self._names = words[self._places]
        self._kinds = words[self._places + 1] >> 24 & 0x1F

    @staticmethod
    def _scanned(words: memoryview) -> list[int]:
        """Where each type begins. A kernel has some 150,000, so nothing else is done here."""
        places = []
        at, end, fixed, each = 0, len(words), _FIXED, _EACH
        while at < end:
            places.append(at)
            info = words[at + 1]
            kind = info >> 24 & 0x1F
            at += fixed[kind] + each[kind] * (info & 0xFFFF)
        if at != end:
            raise IndexError("the last type goes on behind its end")
        return places

    def _of_name(self, kind: int, name: str) -> int | None:
        """The number of the first type of that kind and name."""
        # The first type is number 1: number 0 is void.
        at = self._strings.find(f"\0{name}\0".encode())
        if at < 0:
            return None
        found = np.flatnonzero((self._names == at + 1) & (self._kinds == kind))
        return int(found[0]) + 1 if len(found) else None

    def _type(self, type_id: int) -> _Type:
        if type_id == 0:
            return _Type(0, 0, False, 0, 0)
        at = int(self._places[type_id - 1])
        info = self._words[at + 1]
        return _Type(
            info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31), self._words[at + 2], at + 3
        )

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def offset(self, struct_name: str, path: str) -> int:
        """The offset in bytes of a member, through members and anonymous structs.

        Args:
            struct_name: for example ``task_struct``.
            path: members with dots, for example ``thread.fsbase``. A number is an element of an
                array of 8 bytes, as in ``regs.29``.

        Raises:
            KeyError: this kernel has no such struct or member.

        Example:
            ``kernel_btf().offset("task_struct", "thread.fsbase")``
        """
        type_id = self._of_name(_STRUCT, struct_name)
        if type_id is None:
            raise KeyError(struct_name)
        bits = 0
        for member in path.split("."):
            if member.isdecimal():
                bits += 64 * int(member)
                continue
            found = self._member(type_id, member)
            if found is None:
                raise KeyError(f"{struct_name}.{path}")
            bits += found[0]
            type_id = found[1]
        return bits // 8

    def has_struct(self, name: str) -> bool:
        """Whether this kernel has a struct of that name."""
        return self._of_name(_STRUCT, name) is not None

    def has_name(self, name: str) -> bool:
        """Whether anything in this kernel, a function for example, has that name."""
        return f"\0{name}\0".encode() in self._strings

    def attach_id(self, name: str) -> int:
        """The number of type ``btf_trace_X``, of function ``bpf_iter_X`` or ``bpf_preempt_X``.

        Raises:
            KeyError: this kernel has no such tracepoint, iterator or function.
        """
        kind = _TYPEDEF if name.startswith("btf_trace_") else _FUNCTION
        found = self._of_name(kind, name)
        if found is None:
            raise KeyError(name)
        return found

    def tracepoint_arguments(self, name: str) -> int:
        """How many arguments a raw tracepoint hands to its programs; 0 if there is none."""
        # The kernel declares each as a pointer to a function of them, after one void pointer.
        type_id = self._of_name(_TYPEDEF, f"btf_trace_{name}") or 0
        while (found := self._type(type_id)).kind in (*_TRANSPARENT, _POINTER):
            type_id = found.type_id
        return max(found.vlen - 1, 0) if found.kind == _PROTOTYPE else 0

    def _member(self, type_id: int, wanted: str) -> tuple[int, int] | None:
        """Offset in bits and type of one member of a struct or union."""
        while (found := self._type(type_id)).kind in _TRANSPARENT:
            type_id = found.type_id
        if found.kind not in (_STRUCT, _UNION):
            return None
        for i in range(found.vlen):
            at = found.trailer + 3 * i
            name, member_type, bits = self._words[at : at + 3]
            if found.bitfields:
                bits &= 0xFFFFFF
            if name == 0:
                inner = self._member(member_type, wanted)
                if inner is not None:
                    return bits + inner[0], inner[1]
            elif self._name(name) == wanted:
                return bits, member_type
        return None


@functools.cache
def kernel_btf() -> Btf:
    """The running kernel's own BTF, read once.

    Raises:
        PretakeError: this kernel has none.
    """
    try:
        return Btf(VMLINUX_BTF.read_bytes())
    except OSError as error:
        raise PretakeError(
            f"this kernel does not describe its structs ({VMLINUX_BTF}: {error.strerror})",
            "run a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's and Ubuntu's are",
        ) from error
