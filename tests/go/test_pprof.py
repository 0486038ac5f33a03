"""The real ``go tool pprof`` on a capture of a Go program whose calls are known."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

from analysis.formats.pprof import write_pprof
from tests.go import toolchains
from tests.go.capture import capture

READS = 40
NR_READ = 0
TOOLS = ("1.19.8", "1.27.3")


class Made(NamedTuple):
    """A profile, and how many reads of main's blocked with a P."""

    path: Path
    holds: int


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("pprof")
    before = os.environ.get("GOMAXPROCS")
    os.environ["GOMAXPROCS"] = "1"
    try:
        trace = capture(folder / "t.pretake", "blockread", [str(READS)])
    finally:
        os.environ.pop("GOMAXPROCS")
        if before is not None:
            os.environ["GOMAXPROCS"] = before
    write_pprof(trace, folder / "t.pb.gz")
    blocks = trace.frame("block")
    own = (blocks["nr"] == NR_READ) & (blocks["goid"] == 1) & (blocks["p_use"] == "syscall")
    # A read whose timer was due before the thread came to it does not block, and one that lost
    # its CPU on the way may have no P to hold: few of them.
    assert own.sum() > READS / 2
    return Made(folder / "t.pb.gz", int(own.sum()))


def tool(version: str, *arguments: str | Path) -> list[str]:
    return [str(toolchains.goroot(version) / "bin" / "go"), "tool", "pprof", *map(str, arguments)]


def said(version: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        tool(version, *arguments),
        check=True,
        capture_output=True,
        text=True,
        env=toolchains.environment(version),
    )
    return done.stdout


@pytest.fixture(scope="module")
def profile(made: Made) -> Path:
    return made.path


@pytest.mark.parametrize("version", TOOLS)
def test_the_top_is_the_call_that_blocked(version: str, made: Made) -> None:
    top = said(version, "-top", "-cum", "-sample_index=holds", made.path)
    rows = {line.split()[-1]: line.split() for line in top.splitlines()[5:]}
    # Each block of a read is one; what else the runtime blocks in is not main's.
    assert int(rows["pretake.test/timer.Timer.Block"][3]) == made.holds


@pytest.mark.parametrize("version", TOOLS)
def test_peek_tells_who_called(version: str, profile: Path) -> None:
    peek = said(version, "-peek", "Timer.Block", "-sample_index=hold", profile)
    assert re.search(r"main\.main\n.*Timer\.Block", peek, re.DOTALL)
    assert "(read)" in said(version, "-traces", "-sample_index=hold", profile)


@pytest.mark.parametrize("version", TOOLS)
def test_two_profiles_are_subtracted(version: str, profile: Path) -> None:
    top = said(version, "-top", "-sample_index=holds", "-base", profile, profile)
    assert "Showing nodes accounting for 0, 0% of" in top


@pytest.mark.parametrize("version", TOOLS)
def test_labels_choose(version: str, made: Made) -> None:
    asked = ("-top", "-sample_index=holds", "-tagfocus=syscall=read")
    total = re.search(r"accounting for (\d+), ", said(version, *asked, made.path))
    assert total is not None
    assert int(total[1]) == made.holds
    assert "taker" in said(version, "-tags", "-sample_index=holds", made.path)


@pytest.mark.parametrize("version", TOOLS)
def test_the_web_page_stands(version: str, profile: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = subprocess.Popen(
        tool(version, f"-http=127.0.0.1:{port}", "-no_browser", profile),
        env=toolchains.environment(version),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        page = ""
        while not page:
            assert serving.poll() is None
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ui/top") as answer:
                    page = answer.read().decode()
            except urllib.error.URLError:
                # It does not listen yet.
                time.sleep(0.05)
        assert "timer.Timer.Block" in page
    finally:
        # The command go has the tool as its child.
        os.killpg(serving.pid, signal.SIGKILL)
        serving.wait()
