"""A table of offsets other than the shipped one, for a whole capture.

The parser of programs is a process of its own, which reads the shipped table when it starts. So
another server is started, by a module that gives it the test's rows first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tracer.targets.jail import client

__all__ = ["parsed_by"]

_SERVER = """
from tracer.targets import go
from tracer.targets.jail import server
from tracer.targets.jail.server import main
go.shipped_offsets = lambda _: {rows!r}
"""


@contextmanager
def parsed_by(
    rows: Mapping[str, Mapping[str, int]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Have programs parsed by these rows.

    Args:
        rows: the table, by version.
        folder: for the server's module.
        monkeypatch: puts everything back.
    """
    table = {version: dict(row) for version, row in rows.items()}
    (folder / "rows_of_a_test.py").write_text(_SERVER.format(rows=table))
    monkeypatch.syspath_prepend(str(folder))
    jail = client.Jail("rows_of_a_test")
    monkeypatch.setattr(client, "_jail", jail)
    try:
        yield
    finally:
        jail.close()
