"""What several processes of the suite build, each for itself or one for all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.go.toolchains import made_once

WORKERS = 4


def test_what_all_use_is_made_by_one_and_is_whole_for_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "programs" / "it"
    together = threading.Barrier(WORKERS)

    def build(worker: int) -> tuple[bool, str]:
        together.wait()
        with made_once(folder) as aside:
            if aside is not None:
                with (aside / "binary").open("w") as binary:
                    binary.writelines(f"{worker}.{piece} " for piece in range(100))
        return aside is not None, (folder / "binary").read_text()

    with ThreadPoolExecutor(WORKERS) as pool:
        told = list(pool.map(build, range(WORKERS)))
    (maker,) = [worker for worker, (made, _) in enumerate(told) if made]
    assert {text for _, text in told} == {"".join(f"{maker}.{piece} " for piece in range(100))}
