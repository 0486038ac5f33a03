"""The image of ``deploy/Dockerfile`` runs as the DaemonSet asks, and its watch names a line.

The server that stalls is in a container of another pod, of another user and in other namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.loaded import load
from tests.go import toolchains
from tests.go.test_watch import RULE, assert_dump_names_the_line, line_with, stall
from tests.kernel.started import Started
from tests.wheel.image import built, calls_by_capability, command, pod, told
from tools.daemonset import CAPABILITIES, METRICS_PORT

POD, OTHER = "3f2b8c1e-9d4a-4c6b-8e7f-0a1b2c3d4e5f", "7c1d9e2f-5b6a-4d3c-9f8e-1a2b3c4d5e6f"
SOMEBODY = 1234
MOST_BYTES = 350_000_000
COMPILERS = ("gcc*", "cc", "clang*", "cc1*", "as", "ld", "libbcc.so*", "libLLVM*", "libclang*")
NUMBERS = {
    "DAC_READ_SEARCH": 2,
    "SYS_PTRACE": 19,
    "PERFMON": 38,
    "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}
"""Of linux/capability.h."""
SCRAPE = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"


@pytest.fixture(scope="module")
def image(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    return built(files["compiled"], tmp_path_factory.mktemp("image"))


@contextlib.contextmanager
def container(
    name: str, uid: str, *run: str | Path, **pipes: int
) -> Iterator[subprocess.Popen[str]]:
    """One that runs, in the cgroup of a pod; it is not there any more behind."""
    group = f"--cgroup-parent=/kubepods/burstable/pod{uid}"
    try:
        with Started(command("run", "--name", name, group, *run), text=True, **pipes) as running:
            yield running
            if running.poll() is None:
                told("kill", "--signal=KILL", name)
    finally:
        subprocess.run(command("rm", "--force", "--ignore", name), capture_output=True, check=True)
        remove_groups(uid)


def remove_groups(uid: str) -> None:
    """podman leaves the cgroups that it made above a container's own."""
    for pod_group in list(Path("/sys/fs/cgroup").rglob(f"pod{uid}")):
        for group in (pod_group / "conmon", pod_group, *pod_group.parents[:2]):
            # It is another pod's too, or has none below it.
            with contextlib.suppress(OSError):
                group.rmdir()


def test_there_is_no_compiler_in_it(image: str) -> None:
    root = Path(told("image", "mount", image))
    try:
        folders = [root / "usr/bin", root / "usr/lib", root / "opt/pretake"]
        found = [
            path
            for folder in folders
            for pattern in COMPILERS
            for path in folder.rglob(pattern)
            if path.is_file()
        ]
    finally:
        told("image", "unmount", image)
    assert found == []


def test_it_is_small(image: str) -> None:
    assert int(told("image", "inspect", "-f", "{{.Size}}", image)) <= MOST_BYTES


@pytest.mark.timeout(600)
def test_its_watch_finds_a_server_of_another_pod_and_names_the_line(
    image: str, tmp_path: Path
) -> None:
    node, app = tmp_path / "node", tmp_path / "app"
    app.mkdir()
    name = f"stalled-{os.getpid()}"
    shutil.copy(toolchains.build("stalled"), app / name)
    (app / name).chmod(0o755)
    os.mkfifo(app / "fifo")
    (app / "fifo").chmod(0o666)
    options, arguments = pod(node, calls_by_capability(tmp_path))
    # podman is a Go program, too; and a rule that only a stall meets.
    assert "--go" in arguments
    arguments += ["--name", name, "--when", RULE, "--seconds", "300", "--after", "1"]
    theirs = ["--network=host", f"--user={SOMEBODY}", "--cap-drop=ALL", f"--volume={app}:/app"]
    theirs += ["--env=GOMAXPROCS=2", "--env=GODEBUG=asyncpreemptoff=1", "--log-driver=none"]
    theirs += [option for option in options if option.startswith("--ulimit")]
    theirs += [f"--entrypoint=/app/{name}", image, "/app/fifo"]
    with container("watch", POD, *options, image, *arguments, stderr=subprocess.PIPE) as watch:
        line_with(watch, "; dumps go to /var/lib/pretake/dumps")
        with container("server", OTHER, *theirs, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            pid, own = int(state("server", "State.Pid")), int(state("watch", "State.Pid"))
            identity = state("server", "Id")
            line_with(watch, f"watching {name} ({pid})")
            assert_it_has_few_rights(own)
            stall(pid, port, app / "fifo")
            line = line_with(watch, RULE)
            page = scraped(own)
        told("kill", "--signal", str(int(signal.SIGTERM)), "watch")
        assert watch.stderr is not None
        watch.stderr.read()
        assert watch.wait() == 0
    (dump,) = (node / "var/lib/pretake/dumps").iterdir()
    assert dump.name in line
    (info,) = [
        row
        for row in page.splitlines()
        if row.startswith("pretake_watch_process_info") and f'pid="{pid}"' in row
    ]
    assert f'container="{identity}"' in info
    assert f'pod="{OTHER}"' in info
    assert_dump_names_the_line(dump)
    # The image reads it as well.
    seen = f"/var/lib/pretake/dumps/{dump.name}"
    view = ["summary", "--json", seen]
    verdict = json.loads(told("run", *options, image, *view))["verdict"]
    assert any("main.go:" in finding["what"] for finding in verdict["findings"])
    for other in (
        ["report", seen, "-o", "/tmp/report.html"],
        ["diff", seen, seen],
        ["factors", seen],
    ):
        told("run", *options, image, *other)
    process = load(dump).manifest.asked["watch"]["processes"][str(pid)]
    assert (process["comm"], process["container"], process["pod"]) == (name, identity, OTHER)


def state(name: str, what: str) -> str:
    """What podman knows of a container."""
    return told("inspect", "-f", f"{{{{.{what}}}}}", name)


def assert_it_has_few_rights(pid: int) -> None:
    """Of the watch, from out here: what the manifest gives, and what it gave up."""
    status = dict(
        line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    assert int(status["CapBnd"], 16) == sum(1 << NUMBERS[name] for name in CAPABILITIES)
    assert int(status["CapEff"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
    (root,) = [options for _, place, _, options, *_ in mounts if place == "/"]
    assert "ro" in root.split(",")


def scraped(pid: int) -> str:
    """The metrics that the pod's port tells, asked in the network of the pod."""
    url = f"http://127.0.0.1:{METRICS_PORT}/metrics"
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", SCRAPE, url]
    return subprocess.check_output(inside, text=True)


def test_a_profile_that_refuses_bpf_is_told_in_one_line(image: str, tmp_path: Path) -> None:
    options, arguments = pod(tmp_path / "node")
    asked = json.loads(Path("/usr/share/containers/seccomp.json").read_text())["syscalls"]
    if any("CAP_BPF" in rule.get("includes", {}).get("caps", ()) for rule in asked):
        pytest.skip("this podman's own profile allows it to CAP_BPF")
    done = subprocess.run(
        command("run", *options, image, *arguments), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "pretake: the seccomp profile of this container refuses bpf: run it with one that allows "
        "bpf to CAP_BPF and perf_event_open to CAP_PERFMON\n"
    )
