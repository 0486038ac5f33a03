"""Which container a process is in, and which pod, from its cgroup's path.

Examples:
    >>> container_of("/system.slice/docker-" + "ab" * 32 + ".scope").container[:4]
    'abab'
    >>> container_of("/system.slice/ssh.service")
    Container(cgroup='/system.slice/ssh.service', container=None, pod=None)

Docker, containerd, CRI-O and podman name a container's cgroup by its id, which is 64 hexadecimal
digits. Kubernetes puts it below one that has the pod's uid in its name. systemd writes the uid's
dashes as underscores.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["NOWHERE", "Container", "container_of"]

_CONTAINER: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_HEX: Final = "[0-9a-f]"
_POD: Final = re.compile(
    rf"pod({_HEX}{{8}}[-_]{_HEX}{{4}}[-_]{_HEX}{{4}}[-_]{_HEX}{{4}}[-_]{_HEX}{{12}}|{_HEX}{{32}})"
    r"(?![0-9a-f])"
)


class Container(NamedTuple):
    """Where a process belongs.

    Args:
        cgroup: its path; None where that is not to be seen.
        container: the innermost container's id; None for none.
        pod: the pod's uid; None for none.
    """

    cgroup: str | None = None
    container: str | None = None
    pod: str | None = None


NOWHERE: Final = Container()
"""Of a process of which nobody knows where it is."""


def container_of(cgroup: str | None) -> Container:
    """What a cgroup's path tells."""
    if cgroup is None:
        return Container(None)
    ids = _CONTAINER.findall(cgroup)
    pods = _POD.findall(cgroup)
    return Container(
        cgroup, ids[-1] if ids else None, pods[-1].replace("_", "-") if pods else None
    )
