"""Container and pod from the paths that container runtimes give to cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.capture.cgroups import cgroup_of
from tracer.trace.containers import NOWHERE, Container, container_of

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
UID = "3f2b8c1e-9d4a-4c6b-8e7f-0a1b2c3d4e5f"
UNDER = UID.replace("-", "_")


@pytest.mark.parametrize(
    ("cgroup", "container", "pod"),
    [
        ("/", None, None),
        ("/user.slice/user-1000.slice/session-2.scope", None, None),
        (f"/system.slice/docker-{ID}.scope", ID, None),
        (f"/docker/{ID}", ID, None),
        (f"/docker/{ID}/docker/{OTHER}", OTHER, None),
        (f"/machine.slice/libpod-{ID}.scope/container", ID, None),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDER}.slice/"
            f"cri-containerd-{ID}.scope",
            ID,
            UID,
        ),
        (f"/kubepods/besteffort/pod{UID}/{ID}", ID, UID),
        (f"/kubepods.slice/kubepods-pod{UNDER}.slice/crio-{ID}.scope", ID, UID),
        # A static pod's uid is a digest.
        (f"/kubepods/pod{ID[:32]}/{OTHER}", OTHER, ID[:32]),
        (f"/system.slice/x-{ID}0.scope", None, None),
        ("/podshell.slice", None, None),
    ],
)
def test_a_cgroups_path_tells_container_and_pod(
    cgroup: str, container: str | None, pod: str | None
) -> None:
    assert container_of(cgroup) == Container(cgroup, container, pod)


@pytest.mark.parametrize(
    ("lines", "cgroup"),
    [
        ("0::/a/b\n", "/a/b"),
        ("0::/\n", "/"),
        ("12:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n0::/\n", "/docker/x"),
        ("12:cpu:/\n0::/system.slice/x\n", "/system.slice/x"),
        ("0::/a:b:c\n", "/a:b:c"),
        ("", None),
    ],
)
def test_a_process_is_in_a_cgroup(lines: str, cgroup: str | None, tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(lines)
    assert cgroup_of(7, tmp_path) == cgroup


def test_of_a_process_that_has_ended_nothing_is_known(tmp_path: Path) -> None:
    assert container_of(cgroup_of(7, tmp_path)) == NOWHERE
