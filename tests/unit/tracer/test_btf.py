"""The kernel's description of its structs, made by hand (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import struct

import pytest

from tracer.errors import PretakeError
from tracer.kernel.btf import Btf

STRINGS = b"\0task\0pid\0flags\0inner\0deep\0btf_trace_x\0bpf_iter_x\0"


def name(text: str) -> int:
    return STRINGS.index(b"\0" + text.encode() + b"\0") + 1 if text else 0


def row(text: str, kind: int, vlen: int, type_id: int, *trailer: int, flag: int = 0) -> bytes:
    words = (name(text), flag << 31 | kind << 24 | vlen, type_id, *trailer)
    return struct.pack(f"<{len(words)}I", *words)


def member(text: str, type_id: int, bits: int) -> tuple[int, int, int]:
    return name(text), type_id, bits


TYPES = (
    row("", 1, 0, 4, 32),  # 1: int
    row("inner", 4, 2, 16, *member("pid", 1, 0), *member("deep", 1, 64)),  # 2
    row("", 5, 1, 16, *member("", 2, 0)),  # 3: a union with an anonymous struct
    # 4: its second member is a field of 3 bits, from bit 33 on
    row("task", 4, 3, 40, *member("", 3, 64), *member("flags", 1, 3 << 24 | 33),
        *member("inner", 5, 192), flag=1),
    row("task", 8, 0, 2),  # 5: a typedef of 2 that has the name of struct 4
    row("", 13, 3, 0, 0, 0, 0, 1, 0, 1),  # 6: a function of three
    row("", 2, 0, 6),  # 7: a pointer to it
    row("btf_trace_x", 8, 0, 7),  # 8
    row("bpf_iter_x", 12, 0, 6),  # 9
)  # fmt: skip


def blob(types: bytes, cut: int = 0) -> bytes:
    head = struct.pack("<HBBI", 0xEB9F, 1, 0, 24)
    head += struct.pack("<IIII", 0, len(types), len(types), len(STRINGS))
    data = head + types + STRINGS
    return data[: len(data) - cut]


def test_members_are_found_through_what_has_no_name() -> None:
    btf = Btf(blob(b"".join(TYPES)))
    assert btf.offset("task", "pid") == 8
    assert btf.offset("task", "deep") == 16
    assert btf.offset("task", "flags") == 4
    assert btf.offset("task", "inner.deep") == 32
    # Elements of 8 bytes.
    assert btf.offset("task", "inner.deep.0") == 32
    assert btf.offset("task", "inner.deep.3") == 32 + 24
    for struct_name, path in (("task", "nothing"), ("nothing", "pid"), ("task", "pid.deep")):
        with pytest.raises(KeyError):
            btf.offset(struct_name, path)


def test_a_name_is_one_of_its_kind() -> None:
    btf = Btf(blob(b"".join(TYPES)))
    assert btf.has_struct("task")
    assert not btf.has_struct("btf_trace_x")
    assert btf.has_name("btf_trace_x")
    assert not btf.has_name("btf_trace")
    assert btf.attach_id("btf_trace_x") == 8
    assert btf.attach_id("bpf_iter_x") == 9
    with pytest.raises(KeyError):
        btf.attach_id("bpf_iter_y")
    assert btf.tracepoint_arguments("x") == 2
    assert btf.tracepoint_arguments("y") == 0


@pytest.mark.parametrize(
    "data",
    [
        blob(b"".join(TYPES))[:10],
        blob(b"".join(TYPES))[:60],
        blob(b"".join(TYPES[:2])[:-4]),
        blob(b"".join(TYPES)[:-8]),
        b"",
    ],
)
def test_what_is_cut_short_is_told(data: bytes) -> None:
    with pytest.raises(PretakeError, match="cut short"):
        Btf(data)


def test_another_format_is_told() -> None:
    with pytest.raises(PretakeError, match="does not know"):
        Btf(b"\0\0" + blob(b"".join(TYPES))[2:])
