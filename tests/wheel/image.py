"""The image of ``deploy/Dockerfile``, built and run by podman, as the DaemonSet asks.

podman builds from the file as Docker does, and runs by runc with the seccomp profile that is its
own. Its images and containers are in a folder of the tests' cache: none of the machine's is seen
or changed. Where the base image comes from is the one difference: it is Debian's Python, unpacked,
with the libraries of Debian's slim image that wheels need.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tests.forced import lacking
from tools.debian import cache_folder, unpack_packages

__all__ = ["built", "calls_by_capability", "command", "pod", "told"]

ROOT: Final = Path(__file__).resolve().parents[2]
MANIFEST: Final = ROOT / "deploy/kubernetes/daemonset.yaml"
_FORCE: Final = "PRETAKE_FORCE_IMAGE"
_BASE: Final = "python:3.11-slim"
_NAME: Final = "pretake:test"
_SUITE: Final = "bookworm"
"""Whose Python is 3.11."""
_PACKAGES: Final = (
    "coreutils",
    "dash",
    "findutils",
    "libstdc++6",
    "python-is-python3",
    "python3.11-venv",
)
_DEFAULT_PROFILE: Final = Path("/usr/share/containers/seccomp.json")
_MOST: Final = 4096
_PIP: Final = "[global]\nno-index = true\nfind-links = /wheels-for-pip\n"


def command(*arguments: str | Path) -> list[str]:
    """podman with these arguments, on the images of the tests."""
    store = cache_folder().parent / "image"
    return [
        *("podman", "--root", str(store / "images"), "--runroot", str(store / "run")),
        *("--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "runc"),
        *map(str, arguments),
    ]


def told(*arguments: str | Path) -> str:
    """What podman prints; it has to work."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()


def limits() -> list[str]:
    """Few enough for root that may not raise them: podman asks for a million else."""
    names = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    found = {name: resource.getrlimit(limit)[0] for name, limit in names.items()}
    most = {name: _MOST if value < 0 else min(value, _MOST) for name, value in found.items()}
    return [f"--ulimit={name}={value}:{value}" for name, value in most.items()]


def built(wheel: Path, folder: Path) -> str:
    """The image, made of a wheel; the test is skipped where podman or packages cannot be had.

    Args:
        wheel: the compiled one.
        folder: for what the build needs.
    """
    for program in ("podman", "runc"):
        if shutil.which(program) is None:
            lacking(f"{program} is not installed (apt-get install podman runc)", _FORCE)
    try:
        subprocess.run(command("image", "exists", _BASE), check=True)
    except subprocess.CalledProcessError:
        _import_base(folder / "base")
    # Downloaded out here, by this machine's own settings for pip: none gets into the image.
    wheels, context = folder / "wheels", folder / "context"
    download = [sys.executable, "-m", "pip", "download", "-qq", "--only-binary=:all:"]
    pinned = ["-c", str(ROOT / "constraints.txt"), "-d", str(wheels)]
    subprocess.run([*download, *pinned, f"{wheel}[s3]"], check=True)
    (folder / "pip.conf").write_text(_PIP)
    context.mkdir()
    shutil.copy(wheel, context)
    mounted = [f"--volume={folder / 'pip.conf'}:/etc/pip.conf:ro"]
    mounted += [f"--volume={wheels}:/wheels-for-pip:ro", *limits()]
    options = ["--pull=never", "--network=none", "--layers=false", "-f", "deploy/Dockerfile"]
    subprocess.run(
        command("build", "-q", *options, *mounted, "-t", _NAME, context), cwd=ROOT, check=True
    )
    # That of the run before, if it was another one.
    told("image", "prune", "--force")
    return _NAME


def _import_base(root: Path) -> None:
    try:
        unpack_packages(_SUITE, "amd64", _PACKAGES, root)
    except (OSError, subprocess.CalledProcessError) as error:
        lacking(f"Debian's packages cannot be had: {error}", _FORCE)
    for name in ("doc", "locale", "man"):
        # Debian's slim image is without them as well.
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    archive = root.with_suffix(".tar")
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    told("import", "-q", archive, _BASE)


def calls_by_capability(folder: Path) -> Path:
    """podman's default profile, with ``bpf`` and ``perf_event_open`` for whom they are meant.

    Docker's has allowed them to CAP_BPF and CAP_PERFMON since moby's pull request 43987, and
    containerd's since its 7301. That of Debian's podman asks for CAP_SYS_ADMIN.
    """
    profile = json.loads(_DEFAULT_PROFILE.read_text())
    for call, capability in {"bpf": "CAP_BPF", "perf_event_open": "CAP_PERFMON"}.items():
        for rule in profile["syscalls"]:
            if call in rule["names"]:
                rule["names"].remove(call)
        rule = {"names": [call], "action": "SCMP_ACT_ALLOW", "includes": {"caps": [capability]}}
        profile["syscalls"].append(rule)
    path = folder / "seccomp.json"
    path.write_text(json.dumps(profile))
    return path


def pod(disk: Path, seccomp: Path | None = None) -> tuple[list[str], list[str]]:
    """Options of ``podman run`` that give a container what the DaemonSet does, and its arguments.

    Args:
        disk: stands for the node's file system, where the manifest has a folder of it.
        seccomp: the runtime's default profile, if it is to be another than podman's.
    """
    spec = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    asked = container["securityContext"]
    assert asked["seccompProfile"] == {"type": "RuntimeDefault"}
    options = ["--rm", "--log-driver=none", *limits()]
    # A pod has a network, a host's name and shared memory of its own.
    options += ["--network=none", "--cgroupns=private"]
    options += ["--pid=host"] if spec["hostPID"] else []
    # podman would put writable file systems over it, which Kubernetes does not.
    options += ["--read-only", "--read-only-tmpfs=false"] * asked["readOnlyRootFilesystem"]
    options += [f"--user={asked['runAsUser']}", f"--privileged={str(asked['privileged']).lower()}"]
    options += ["--security-opt=no-new-privileges"] * (not asked["allowPrivilegeEscalation"])
    options += [f"--security-opt=seccomp={seccomp}"] * (seccomp is not None)
    options += [f"--cap-drop={name}" for name in asked["capabilities"]["drop"]]
    options += [f"--cap-add={name}" for name in asked["capabilities"]["add"]]
    options += [f"--memory={_bytes(container['resources']['limits']['memory'])}"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        options.append(_mount(volumes[mount["name"]], mount["mountPath"], disk))
    return options, container["args"]


def _mount(volume: dict[str, Any], place: str, disk: Path) -> str:
    if "hostPath" in volume:
        folder = disk / volume["hostPath"]["path"].lstrip("/")
        folder.mkdir(parents=True, exist_ok=volume["hostPath"]["type"] == "DirectoryOrCreate")
        return f"--volume={folder}:{place}"
    most = _bytes(volume["emptyDir"]["sizeLimit"])
    return f"--mount=type=tmpfs,destination={place},tmpfs-size={most}"


def _bytes(quantity: str) -> int:
    """Kubernetes' quantity, of those that the manifest has."""
    return int(quantity.removesuffix("Mi")) << 20
