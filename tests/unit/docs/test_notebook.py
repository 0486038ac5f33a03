"""The notebook of the documentation, run from the top beside a trace whose answers are known."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat

from tests.unit.analysis.test_summary import ten_calls

NOTEBOOK = Path(__file__).parents[3] / "docs" / "notebook.ipynb"


def test_notebook_runs_from_the_top(tmp_path: Path) -> None:
    ten_calls(workload={"policy": "sysmon"}).write(tmp_path, "server.pretake")
    book = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "outputs are made, not stored"
    client = nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": tmp_path}})
    client.execute()
    last = book.cells[-1]["outputs"][-1]["data"]["text/plain"]
    # Four of the ten calls were harmful: 10 + 20 + 30 + 40 µs.
    assert last == "(10, 4, 100.0)"
