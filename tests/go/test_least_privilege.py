"""A watch with exactly the capabilities of the DaemonSet, in namespaces as a pod has them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.forced import KERNEL, lacking
from tests.go import toolchains
from tests.go.test_watch import free_port, line_with
from tests.kernel.test_watch import answer, dump_by_signal
from tools.daemonset import CAPABILITIES
from tracer.trace.reader import Trace

SOMEBODY = "1234"
_POD = """
mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"
"""


def in_pod(writable: Path, capabilities: Sequence[str]) -> list[str]:
    """What runs a command as a container with ``hostPID`` would: root, but with few rights."""
    for program in ("unshare", "setpriv"):
        if shutil.which(program) is None:
            lacking(f"{program} is not installed", KERNEL)
    kept = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    return [
        *("unshare", "--mount", "--cgroup", "--uts", "--ipc", "sh", "-c", _POD, str(writable)),
        *("setpriv", "--bounding-set", kept, "--inh-caps", "-all", "--no-new-privs"),
        *(sys.executable, "-B", "-m", "pretake"),
    ]


def watched(tmp_path: Path, capabilities: Sequence[str], port: int) -> Trace:
    """A dump of a Go program of somebody's, whom neither root's files nor the watch belong to."""
    tmp_path.chmod(0o755)
    program = tmp_path / "server"
    shutil.copy(toolchains.build("server"), program)
    owner = ["setpriv", "--reuid", SOMEBODY, "--regid", SOMEBODY, "--clear-groups"]
    with contextlib.ExitStack() as stack:
        server = started(stack, [*owner, program, "serve"], stdout=subprocess.PIPE)
        assert server.stdout is not None
        load = [program, "load", server.stdout.readline().strip()]
        started(stack, load, stdout=subprocess.DEVNULL)
        options = ["--pid", str(server.pid), "-o", str(tmp_path / "d"), "--after", "0"]
        command = [*in_pod(tmp_path, capabilities), "watch", *options]
        command += ["--seconds", "1", "--metrics-port", str(port)]
        watch = started(stack, command, stderr=subprocess.PIPE)
        line_with(watch, "; dumps go to ")
        status, page = answer(port, "/metrics", "GET", {})
        assert (status, b"pretake_watch_processes 1.0" in page) == (200, True)
        # Nothing else is for whoever reaches the port.
        assert b'"dump"' not in answer(port, "/dump", "POST", {})[1]
        name = dump_by_signal(watch)
        watch.send_signal(signal.SIGTERM)
        assert watch.wait() == 0
    assert [entry.name for entry in (tmp_path / "d").iterdir()] == [name]
    return Trace(tmp_path / "d" / name)


def started(
    stack: contextlib.ExitStack, command: Sequence[str | Path], **pipes: int
) -> subprocess.Popen[str]:
    """A process that is ended behind."""
    process = stack.enter_context(subprocess.Popen(command, text=True, **pipes))  # type: ignore[call-overload]
    stack.callback(process.kill)
    return process  # type: ignore[no-any-return]


def test_the_capabilities_of_the_daemonset_are_enough(tmp_path: Path) -> None:
    trace = watched(tmp_path, CAPABILITIES, free_port())
    assert trace.manifest.target.runtime == "go"
    assert [m for m in trace.manifest.missing if m.what == "P, M and G"] == []
    blocks = trace.frame("block")
    assert (blocks["p"] >= 0).any()


@pytest.mark.every
def test_and_none_of_them_can_be_left_out(tmp_path: Path) -> None:
    for number, name in enumerate(("SYS_PTRACE", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH")):
        fewer = [capability for capability in CAPABILITIES if capability != name]
        folder = tmp_path / str(number)
        folder.mkdir()
        tmp_path.chmod(0o755)
        missing = watched(folder, fewer, free_port()).manifest.missing
        assert [m.what for m in missing if m.what == "P, M and G"], name
    for name in ("BPF", "PERFMON"):
        fewer = [capability for capability in CAPABILITIES if capability != name]
        command = [*in_pod(tmp_path, fewer), "watch", "--name", "x", "-o", str(tmp_path / "e")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "capture needs root, or CAP_BPF and CAP_PERFMON" in done.stderr, name
