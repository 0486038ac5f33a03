"""What pip installs, on a machine without a compiler: ``make test-wheel`` (as root).

The machine is this one, with bcc, the kernel's headers, the cache and the clone hidden in a mount
namespace. The environment has the wheel, and the packages that it depends on.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.go import toolchains
from tools.wheels import MACHINES
from tracer.kernel.shipped import archive_name, ship

ROOT: Final = Path(__file__).resolve().parents[2]
HIDDEN: Final = (
    *("/usr/lib/python3/dist-packages/bcc", "/usr/src", "/lib/modules", "/var/cache/pretake"),
    *(str(ROOT / name) for name in ("analysis", "pretake", "reference_runtime", "tracer")),
)
# A child of the shell, so that the first process of the namespace is not the command itself.
_HIDE: Final = "".join(
    f"if [ -d {path} ]; then mount -t tmpfs -o mode=755 none {path} || exit 9; fi\n"
    for path in HIDDEN
)

Run = Callable[..., str]


@pytest.fixture(scope="module", params=["compiled", "interpreted"])
def installed(
    request: pytest.FixtureRequest,
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Run, Path]:
    """How the runtime is built, what runs the command in an empty folder, and that folder."""
    folder = tmp_path_factory.mktemp(request.param)
    # Whoever the tracer becomes has to get to the environment.
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    venv, empty = folder / "venv", folder / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(files[request.param])], check=True)
    packages = sysconfig.get_path("platlib", vars={"base": str(venv), "platbase": str(venv)})
    # What it depends on; a clone that is installed there is not seen, nor Debian's own packages.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("platlib") + "\n")

    def run(*arguments: str, env: dict[str, str] | None = None) -> str:
        script = f'{_HIDE}"$@"; exit $?'
        shell = ["unshare", "--mount", "sh", "-c", script, "sh", str(venv / "bin/pretake")]
        done = subprocess.run(
            [*shell, *arguments],
            cwd=empty,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    return request.param, run, empty


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_byte_code_in_each_file_is_that_of_a_rebuild(
    files: dict[str, Path], tmp_path: Path, machine: str
) -> None:
    ship(tmp_path / "rebuilt", MACHINES[machine])
    rebuilt = (tmp_path / "rebuilt").read_bytes()
    byte_code = f"tracer/bpf/{archive_name(machine)}"
    for wheel in (files["compiled"], files["interpreted"]):
        with zipfile.ZipFile(wheel) as members:
            assert members.read(byte_code) == rebuilt, wheel.name
    with tarfile.open(files["sources"]) as members:
        [name] = [name for name in members.getnames() if name.endswith(byte_code)]
        member = members.extractfile(name)
        assert member is not None
        assert member.read() == rebuilt


def test_the_command_is_the_wheel_s(installed: tuple[str, Run, Path]) -> None:
    how, run, _ = installed
    assert run("--version").split(", ")[-1].strip() == f"reference runtime {how}"


@pytest.mark.timeout(600)
def test_the_doctor_tells_that_the_byte_code_is_used(installed: tuple[str, Run, Path]) -> None:
    _, run, _ = installed
    checks: dict[str, dict[str, Any]] = {c["name"]: c for c in json.loads(run("doctor", "--json"))}
    told = checks["BPF programs"]
    assert (told["ok"], told["mend"]) == (True, "")
    assert told["detail"].startswith("the byte code of this installation, made by bcc ")
    assert "bcc" not in checks
    # Every mode, of which each program is loaded.
    assert {name: c["detail"] for name, c in checks.items() if c["needed"] and not c["ok"]} == {}
    assert [n for n in checks if n.startswith("pretake ") and not checks[n]["ok"]] == []


@pytest.mark.timeout(600)
def test_a_stripped_go_program_is_captured_call_by_call(installed: tuple[str, Run, Path]) -> None:
    _, run, _ = installed
    program = toolchains.build("sleeps", linkage="stripped")
    calls = int(run("record", "-q", "-o", "go.pretake", "--", str(program)))
    rows = [json.loads(line) for line in run("episodes", "go.pretake", "--json").splitlines()]
    assert [row["syscall"] for row in rows].count("nanosleep") == calls
    run("check", "go.pretake")
    run("report", "go.pretake", "-o", "go.html")


@pytest.mark.timeout(600)
def test_a_stripped_go_server_is_captured_while_it_runs(installed: tuple[str, Run, Path]) -> None:
    _, run, _ = installed
    program = toolchains.build("server", linkage="stripped")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(started([program, "serve"]))
        assert server.stdout is not None
        stack.enter_context(started([program, "load", server.stdout.readline().strip()]))
        run("record", "-q", "-o", "server.pretake", "--pid", str(server.pid), "--seconds", "3")
    told = run("callsites", "server.pretake")
    # By the program's own function table, which strip leaves.
    assert "main.readSlowly" in told
    run("check", "server.pretake")


@contextlib.contextmanager
def started(command: list[str | Path]) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended behind."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(1200)
def test_the_demo_runs(installed: tuple[str, Run, Path]) -> None:
    _, run, folder = installed
    run("demo", "--seconds", "0.2")
    assert "plotly" in (folder / "demo/report.html").read_text()
