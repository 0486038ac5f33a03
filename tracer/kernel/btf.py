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

from tracer.errors import PretakeError

__all__ = ["VMLINUX_BTF", "Btf", "kernel_btf"]

VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")
"""The running kernel's BTF."""

_MAGIC = 0xEB9F
_POINTER, _STRUCT, _UNION, _ENUM, _TYPEDEF, _VOLATILE, _CONST = 2, 4, 5, 6, 8, 9, 10
_FUNCTION, _PROTOTYPE = 12, 13
# Of the types that programs are attached to, by kind: how their names begin.
_ATTACHED = {_TYPEDEF: (b"btf_trace_",), _FUNCTION: (b"bpf_iter_", b"bpf_preempt_")}
_NOTHING = b"\0\0"
_TRANSPARENT = {_TYPEDEF, _VOLATILE, _CONST, 18}  # 18: type tag

# Bytes that follow the 12 bytes of a type, as (fixed, for each of its vlen).
_TRAILERS = {
    1: (4, 0),  # int
    3: (12, 0),  # array
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    _ENUM: (0, 8),
    _PROTOTYPE: (0, 8),
    14: (4, 0),  # variable
    15: (0, 12),  # data section
    17: (4, 0),  # declaration tag
    19: (0, 12),  # 64-bit enum
}


@dataclass(frozen=True)
class _Type:
    kind: int
    vlen: int
    bitfields: bool
    """Whether the members' offsets carry a bitfield size in their top byte."""
    type_id: int
    trailer: int


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
            type_offset, type_length, string_offset, _ = struct.unpack_from("<IIII", data, 8)
            if magic != _MAGIC:
                raise PretakeError("the kernel's BTF is in a format that pretake does not know")
            self._data = data
            self._strings = header + string_offset
            self._types = [_Type(0, 0, False, 0, 0)]
            self._structs: dict[str, int] = {}
            self._attached: dict[str, int] = {}
            self._scan(header + type_offset, header + type_offset + type_length)
        except struct.error as error:
            raise PretakeError(f"the kernel's BTF is cut short ({error})") from error

    def _scan(self, at: int, end: int) -> None:
        while at < end:
            name, info, type_id = struct.unpack_from("<III", self._data, at)
            kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
            if kind == _STRUCT and name:
                self._structs.setdefault(self._name(name), len(self._types))
            elif self._data.startswith(_ATTACHED.get(kind, _NOTHING), self._strings + name):
                self._attached[self._name(name)] = len(self._types)
            self._types.append(_Type(kind, vlen, bool(info >> 31), type_id, at + 12))
            fixed, each = _TRAILERS.get(kind, (0, 0))
            at += 12 + fixed + each * vlen

    def _name(self, offset: int) -> str:
        begin = self._strings + offset
        return self._data[begin : self._data.index(b"\0", begin)].decode()

    def offset(self, struct_name: str, path: str) -> int:
        """The offset in bytes of a member, through members and anonymous structs.

        Args:
            struct_name: for example ``task_struct``.
            path: members with dots, for example ``thread.fsbase``.

        Raises:
            KeyError: this kernel has no such struct or member.

        Example:
            ``kernel_btf().offset("task_struct", "thread.fsbase")``
        """
        type_id = self._structs[struct_name]
        bits = 0
        for member in path.split("."):
            found = self._member(type_id, member)
            if found is None:
                raise KeyError(f"{struct_name}.{path}")
            bits += found[0]
            type_id = found[1]
        return bits // 8

    def has_struct(self, name: str) -> bool:
        """Whether this kernel has a struct of that name."""
        return name in self._structs

    def has_name(self, name: str) -> bool:
        """Whether anything in this kernel, a function for example, has that name."""
        return f"\0{name}\0".encode() in self._data

    def attach_id(self, name: str) -> int:
        """The number of type ``btf_trace_X``, of function ``bpf_iter_X`` or ``bpf_preempt_X``.

        Raises:
            KeyError: this kernel has no such tracepoint, iterator or function.
        """
        return self._attached[name]

    def tracepoint_arguments(self, name: str) -> int:
        """How many arguments a raw tracepoint hands to its programs; 0 if there is none."""
        # The kernel declares each as a pointer to a function of them, after one void pointer.
        type_id = self._attached.get(f"btf_trace_{name}", 0)
        while (found := self._types[type_id]).kind in (*_TRANSPARENT, _POINTER):
            type_id = found.type_id
        return max(found.vlen - 1, 0) if found.kind == _PROTOTYPE else 0

    def _member(self, type_id: int, wanted: str) -> tuple[int, int] | None:
        """Offset in bits and type of one member of a struct or union."""
        while (found := self._types[type_id]).kind in _TRANSPARENT:
            type_id = found.type_id
        if found.kind not in (_STRUCT, _UNION):
            return None
        for i in range(found.vlen):
            name, member_type, bits = struct.unpack_from(
                "<III", self._data, found.trailer + 12 * i
            )
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
