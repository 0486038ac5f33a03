"""A trace from a stranger: whatever stands in its files, reading it fails in one line or works.

Damage is done to a whole trace: bytes changed, cut out, put in or repeated, in the manifest or in
a part; or a manifest is made of arbitrary JSON. ``PRETAKE_FUZZ=N`` asks for N examples of each.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tracer.errors import PretakeError
from tracer.trace.made_trace import write_trace
from tracer.trace.manifest import Manifest
from tracer.trace.reader import Trace
from tracer.trace.schema import TABLES

EXAMPLES = int(os.environ.get("PRETAKE_FUZZ", "150"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FILES = ["manifest.json", "task/part-00000.parquet", "syscall/part-00000.parquet"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)
FIELDS = sorted(json.loads(Manifest().to_json()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "x.pretake"
    count = 300
    write_trace(
        path,
        {
            "task": {"ts_ns": list(range(count)), "comm": ["a", "b", "c"] * (count // 3)},
            "syscall": {
                "exit_ns": [n * n for n in range(count)],
                "nr": [n % 7 for n in range(count)],
            },
        },
    )
    return path


def read_all(path: Path) -> bool:
    """Whether the trace could be read; any error but the user's own is one of ours."""
    try:
        trace = Trace(path)
        for table, declared in TABLES.items():
            trace.frame(table)
            assert trace.arrow(table).schema.equals(declared.arrow_schema)
            trace.row_groups(table, declared.columns[0].name)
    except PretakeError as error:
        told = str(error)
    else:
        return True
    assert "\n" not in told
    return False


def damaged(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, new in edits:
        at = int(where * len(data))
        if kind == "change":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "cut":
            data = data[:at] + data[at + 1 + len(new) ** 2 :]
        else:
            data = data[:at]
    return data


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["change", "change", "change", "insert", "cut", "end"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


@FUZZ
@given(name=st.sampled_from(FILES), edits=EDITS)
# Found by this test: a column's name that is no UTF-8.
@example(name=FILES[2], edits=[("change", 0.40625, b"\x80")])
def test_bytes_of_a_file_are_damaged(
    whole: Path, name: str, edits: list[tuple[str, float, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pretake"
        shutil.copytree(whole, path)
        (path / name).write_bytes(damaged((whole / name).read_bytes(), edits))
        read_all(path)


@FUZZ
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=4))
def test_fields_of_a_manifest_are_anything(whole: Path, fields: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pretake"
        shutil.copytree(whole, path)
        manifest = json.loads((whole / "manifest.json").read_text()) | fields
        (path / "manifest.json").write_text(json.dumps(manifest))
        read_all(path)


def test_what_is_not_damaged_is_read(whole: Path) -> None:
    assert read_all(whole)
