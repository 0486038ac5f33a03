"""The table of kernels: what is written of what a kernel did, and when the run fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernels import images
from tests.kernels import run as runs
from tests.kernels.guest import COMES_PERF, MANY
from tests.kernels.images import Image, Kernel
from tests.kernels.machine import ONE_MAY_COME, Machine
from tests.kernels.run import table, tried, wrong
from tests.kernels.vm import Outcome

KERNEL = Kernel("6.1", "bookworm", ())
REFUSED = Kernel("5.10", "bullseye", (), refused="has no task storage")


def test_a_mode_that_fails_is_wrong() -> None:
    assert wrong(KERNEL, {"live": True, "check": "exit 1: no"}) == ["check"]
    assert wrong(KERNEL, {"live": True, "check": True}) == []


def test_a_refused_kernel_has_to_refuse_and_to_say_why() -> None:
    why = "exit 2: Linux 5.10 has no task storage: run a later one"
    assert wrong(REFUSED, {"live": why, "record --backend perf": True}) == []
    assert wrong(REFUSED, {"live": True, "record --backend perf": True}) == ["live"]
    assert wrong(REFUSED, {"live": "Traceback", "record --backend perf": True}) == ["live"]
    assert wrong(REFUSED, {"live": why, "record --backend perf": why}) == ["record --backend perf"]
    assert wrong(REFUSED, {"live": why, COMES_PERF: True}) == []
    assert wrong(REFUSED, {"live": why, COMES_PERF: "lost"}) == [COMES_PERF]


def test_the_table_has_a_row_for_each_mode_and_each_reason_once() -> None:
    figures = {
        "5.10": {
            "kernel": "5.10.0-32",
            "arch": "x86_64",
            "modes": {"live": "no X", "check": "no X"},
        },
        "6.1": {
            "kernel": "6.1.0-50",
            "arch": "x86_64",
            "modes": {"live": True},
            "verified": {"pretake live": [81819, "go_stw_takes"]},
            "figures": {"possible CPUs": "1024"},
        },
    }
    assert table(figures).splitlines() == [
        "| | 5.10.0-32, x86_64 | 6.1.0-50, x86_64 |",
        "|---|---|---|",
        "| `live` | no (1) | works |",
        "| `check` | no (1) | – |",
        "| possible CPUs | – | 1024 |",
        "| instructions verified, `pretake live` | – | 81,819 |",
        "",
        "1. no X",
    ]


def test_a_page_that_tells_of_more_kernels_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runs, "FIGURES", tmp_path / "figures.json")
    monkeypatch.setattr(runs, "PAGE", tmp_path / "page.md")
    row = {"arch": "x86_64", "modes": {"live": True}}
    six, seven = {"6.1": row | {"kernel": "6.1.0-50"}}, {"6.12": row | {"kernel": "6.12.117"}}
    page = f"# Where\n\n{runs.BEGIN}\n\n{table(six | seven)}\n\n{runs.END}\n\nMore.\n"
    runs.PAGE.write_text(page)
    assert not runs.write(six)
    assert runs.PAGE.read_text() == page
    assert runs.write({"6.12": row | {"kernel": "6.12.118"}})
    assert runs.PAGE.read_text() == page.replace("6.12.117", "6.12.118")


def test_a_mode_that_ends_the_machine_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = Image(KERNEL, "amd64", tmp_path)
    (tmp_path / "lib/modules/6.1.0-50/kernel").mkdir(parents=True)
    boots: list[list[str]] = []

    def boot(
        _image: Image,
        command: str,
        *,
        root: Path,
        inputs: Path,
        machine: Machine,
        quiet_s: float,
        seen: Callable[[str], None],
    ) -> Outcome:
        """A machine on which ``live`` is the end, and ``check`` is well."""
        assert (root, inputs, quiet_s) == (Path("/"), tmp_path, 60 + runs.BOOT_S)
        assert machine == ONE_MAY_COME
        left = [mode for mode in ("doctor", "live", "check") if mode in command.split()]
        boots.append(left)
        told = {"kernel": "6.1.0-50", "arch": "x86_64", "modes": {}, "seconds": {}}
        for mode in left[: left.index("live") if "live" in left else None]:
            told |= {"modes": {**told["modes"], mode: True}, "seconds": {mode: 2.5}}
            seen(json.dumps(told))
        console = "[ 1.0] BUG: kernel NULL pointer\n[ 1.1] Kernel panic\n[ 1.2] Rebooting"
        return Outcome(None, json.dumps(told), "doctor True 2.5", console)

    monkeypatch.setattr(runs, "fetch", lambda _: image)
    monkeypatch.setattr(runs, "prepare", lambda _machine: tmp_path)
    monkeypatch.setattr(runs.toolchains, "build", lambda _, linkage: Path("/program", linkage))
    monkeypatch.setattr(runs, "run", boot)
    known: list[dict[str, bool | str]] = []
    tried(KERNEL, ["doctor", "live", "check"], 60, lambda told: known.append(dict(told["modes"])))
    assert boots == [["doctor", "live", "check"], ["check"]]
    # The first is told before the machine is gone.
    assert known[0] == {"doctor": True}
    why = "the guest ended in it with None: [ 1.0] BUG: kernel NULL pointer"
    assert known[-1] == {"doctor": True, "live": why, "check": True}


def test_many_cpus_are_tried_on_a_machine_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    many = Machine("1,maxcpus=255")
    kernel = Kernel("6.1", "bookworm", (), many_cpus=many)
    (tmp_path / "lib/modules/6.1.0-50/kernel").mkdir(parents=True)
    boots: list[tuple[Machine, list[str]]] = []

    def boot(_image: Image, command: str, *, machine: Machine, **_: object) -> Outcome:
        modes = [mode for mode in ("live", MANY) if mode in command]
        boots.append((machine, modes))
        told = {"kernel": "6.1.0-50", "modes": dict.fromkeys(modes, True)}
        return Outcome(0, json.dumps(told), "", "")

    monkeypatch.setattr(runs, "fetch", lambda _: Image(kernel, "amd64", tmp_path))
    monkeypatch.setattr(runs, "prepare", lambda _machine: tmp_path)
    monkeypatch.setattr(runs.toolchains, "build", lambda _, linkage: Path("/program", linkage))
    monkeypatch.setattr(runs, "run", boot)
    known: list[dict[str, bool | str]] = []
    tried(kernel, ["live", MANY], 60, lambda told: known.append(dict(told["modes"])))
    assert boots == [(ONE_MAY_COME, ["live"]), (many, [MANY])]
    assert known[-1] == {"live": True, MANY: True}


def test_a_package_of_another_flavour_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "".join(
        f"linux-image-6.12.{name} - Linux\n"
        for name in (
            *("9-arm64", "117-arm64", "117-rt-arm64", "118-cloud-arm64", "120-arm64-16k"),
            *("121-arm64-16k-unsigned", "121-arm64-16k-dbg"),
        )
    )
    monkeypatch.setattr(images.subprocess, "check_output", lambda *_args, **_options: told)
    assert images._newest([], "", "") == "linux-image-6.12.117-arm64"
    assert images._newest([], "", "16k") == "linux-image-6.12.120-arm64-16k"
    monkeypatch.setattr(images.subprocess, "check_output", lambda *_args, **_options: "")
    with pytest.raises(LookupError, match="no package matches 64"):
        images._newest([], "64", "64k")
