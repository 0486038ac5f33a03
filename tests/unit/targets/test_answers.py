"""What the tracer believes of the parser's answers."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.targets.binary import NoRuntime, RuntimeBinary
from tracer.targets.go import GoBinary
from tracer.targets.jail.answers import (
    Site,
    layout_from_bytes,
    layout_to_bytes,
    sites_from_bytes,
    sites_to_bytes,
)
from tracer.targets.layout import CallerRange, Probe, RuntimeLayout
from tracer.trace.unknown import Missing

PATH = Path("server")
SIZE = 1 << 20
BINARY = GoBinary(
    path=PATH,
    runtime="go",
    version="go1.27.3",
    arch="x86_64",
    build_id="0a1b",
    layout=RuntimeLayout(
        sched=0x4321,
        model="psyscall",
        g_tls=-8,
        m_curg=192,
        callers=(CallerRange(10, 20, "retake"),),
    ),
    probes=(Probe(PATH, "runtime.handoffp", 4096, "go_handoffp"),),
    missing=(Missing("p", "stripped", "do not strip it"),),
    position_independent=True,
    is_library=False,
    g_tls_slot=-1,
    has_symbols=False,
    offsets_from="dwarf",
)
REFUSED = (ValueError, LookupError, TypeError, RecursionError)


def test_what_is_told_comes_back() -> None:
    library = RuntimeBinary(
        path=PATH,
        runtime="reference",
        version="compiled",
        arch="aarch64",
        build_id=None,
        layout=RuntimeLayout(int_size=8),
        probes=(),
    )
    for found in (BINARY, library, NoRuntime("a script", "give the program")):
        assert layout_from_bytes(layout_to_bytes(found), PATH, SIZE) == found


def changed(**fields: object) -> bytes:
    return json.dumps(json.loads(layout_to_bytes(BINARY)) | fields).encode()


def layout(**fields: object) -> dict[str, object]:
    return {"layout": json.loads(layout_to_bytes(BINARY))["layout"] | fields}


@pytest.mark.parametrize(
    "fields",
    [
        {"runtime": "none"},
        {"version": 27},
        {"version": "x" * 700},
        {"arch": "riscv64"},
        {"arch": ["x86_64"]},
        {"build_id": "no hexadecimal"},
        {"probes": [["f", SIZE, "go_handoffp"]]},
        {"probes": [["f", -1, "go_handoffp"]]},
        {"probes": [["f", 1.5, "go_handoffp"]]},
        {"probes": [["f", 1, "no handler"]]},
        {"probes": [["f", 1]]},
        {"probes": [["f", 1, "h"]] * 65},
        {"probes": {"f": 1}},
        {"missing": [["a", "b", "c"]] * 65},
        {"has_symbols": 1},
        {"offsets_from": 5},
        {"layout": []},
        layout(model="other"),
        layout(m_curg=1 << 31),
        layout(m_curg=True),
        layout(m_curg=None),
        layout(sched=1 << 63),
        layout(sched=-2),
        layout(callers=[[1, 2, "nobody"]]),
        layout(callers=[[1, 2, "gc"]] * 17),
    ],
)
def test_an_answer_out_of_bounds_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(REFUSED):
        layout_from_bytes(changed(**fields), PATH, SIZE)


def test_an_answer_that_is_too_long_is_not_even_parsed() -> None:
    with pytest.raises(ValueError, match="too long"):
        layout_from_bytes(b" " * (64 << 10) + layout_to_bytes(BINARY), PATH, SIZE)


def test_text_cannot_steer_a_terminal() -> None:
    found = layout_from_bytes(changed(version="go1\x1b[31m\n2"), PATH, SIZE)
    assert isinstance(found, GoBinary)
    assert found.version == "go1?[31m?2"


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(data=st.data())
def test_whatever_is_believed_can_be_packed(data: st.DataObject) -> None:
    told = json.loads(layout_to_bytes(BINARY))
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from([told, told["layout"]]))
        if isinstance(part, dict):
            part[data.draw(st.sampled_from(sorted(part)))] = data.draw(_VALUES)
        if not isinstance(told.get("layout"), dict):
            break
    try:
        found = layout_from_bytes(json.dumps(told).encode(), PATH, SIZE)
    except REFUSED:
        return
    assert isinstance(found, RuntimeBinary)
    found.layout.pack()
    for probe in found.probes:
        assert 0 <= probe.file_offset < SIZE


SITES = [
    Site("main.main", "/src/main.go", 23, "safe"),
    Site("main.é", None, None, "assembly"),
    Site(None, None, None, "no_go"),
    Site("main.main", "/src/other.go", 0, "runtime"),
]


def test_sites_come_back() -> None:
    assert sites_from_bytes(sites_to_bytes(SITES), 4) == SITES
    assert sites_from_bytes(sites_to_bytes([]), 0) == []


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _row(at: int, value: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        return data[: 12 + at] + struct.pack("<i", value) + data[16 + at :]

    return change


@pytest.mark.parametrize(
    "change",
    [_cut, _row(0, 99), _row(0, -2), _row(4, 99), _row(8, -5), _row(12, 5), _row(12, -1)]
    + [_row(64 + at, value) for at in (0, 4, 8) for value in (-1, 1 << 20)]
    + [lambda data: data[:11], lambda _: b"", lambda data: data + b"x"],
)
def test_sites_out_of_bounds_are_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises((*REFUSED, struct.error)):
        sites_from_bytes(change(sites_to_bytes(SITES)), 4)
    with pytest.raises(ValueError, match="asked for"):
        sites_from_bytes(sites_to_bytes(SITES), 3)


@given(st.binary(max_size=400), st.integers(0, 5))
def test_arbitrary_bytes_are_no_sites_or_as_many(data: bytes, count: int) -> None:
    try:
        found = sites_from_bytes(np.array([count], "<u4").tobytes() + data, count)
    except (*REFUSED, struct.error):
        return
    assert len(found) == count


def test_every_field_of_a_layout_travels() -> None:
    told = json.loads(layout_to_bytes(BINARY))["layout"]
    assert set(told) == {field.name for field in dataclasses.fields(RuntimeLayout)}
