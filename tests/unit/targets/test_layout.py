"""The layout's three faces (dataclass, numpy, C) agree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tracer.targets.layout import (
    CALLERS,
    LAYOUT_DTYPE,
    MAX_CALLERS,
    CallerRange,
    RuntimeLayout,
    layout_c_header,
)


def test_what_is_packed_reads_back() -> None:
    layout = RuntimeLayout(
        bias=0x5555_0000_0000,
        sched=0x4321,
        model="psyscall",
        g_tls=-8,
        m_curg=192,
        callers=(CallerRange(10, 20, "retake"), CallerRange(20, 30, "gc")),
    )
    record = layout.pack()
    assert record["bias"] == 0x5555_0000_0000
    assert record["sched"] == 0x4321
    assert record["model"] == 0
    assert record["g_tls"] == -8
    assert record["m_curg"] == 192
    assert record["callers"][:3].tolist() == [
        (10, 20, CALLERS.index("retake")),
        (20, 30, CALLERS.index("gc")),
        (0, 0, 0),
    ]


def test_what_is_not_said_is_unknown() -> None:
    record = RuntimeLayout().pack()
    unknown = {name for name in LAYOUT_DTYPE.names or () if name != "callers" and record[name] < 0}
    known = {"bias", "model", "int_size", "callers"}
    assert unknown == set(LAYOUT_DTYPE.names or ()) - known


def test_a_caller_too_many_is_refused() -> None:
    layout = RuntimeLayout(callers=(CallerRange(0, 1, "other"),) * (MAX_CALLERS + 1))
    with pytest.raises(ValueError, match="room for 16"):
        layout.pack()


def test_the_c_struct_lies_as_the_numpy_type_does(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    prints = [
        f'printf("{name} %zu\\n", offsetof(struct runtime_layout, {name}));'
        for name in LAYOUT_DTYPE.names or ()
    ]
    (tmp_path / "layout.h").write_text(layout_c_header())
    (tmp_path / "main.c").write_text(
        "#include <linux/types.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        '#include "layout.h"\n'
        'int main(void) { printf("size %zu\\n", sizeof(struct runtime_layout));\n'
        + "\n".join(prints)
        + "\nreturn 0; }\n"
    )
    subprocess.run([compiler, "-o", "main", "main.c"], check=True, cwd=tmp_path)
    told = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True).stdout
    in_c = {name: int(number) for name, number in map(str.split, told.splitlines())}
    fields = LAYOUT_DTYPE.fields
    assert fields is not None
    in_numpy = {name: fields[name][1] for name in LAYOUT_DTYPE.names or ()}
    assert in_c == in_numpy | {"size": LAYOUT_DTYPE.itemsize}
