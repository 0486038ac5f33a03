"""Debian's packages as files, of any suite and architecture: downloaded, and never installed.

The suites are added to a private copy of apt's state, so that the machine's own sources stay as
they are.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tracer.kernel.bcc_loader import merge_headers

__all__ = [
    "apt_options",
    "cache_folder",
    "mirror",
    "unpack_headers",
    "unpack_packages",
    "unpack_sources",
]


def cache_folder() -> Path:
    """Where kernels, and what goes with them, stay between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pretake" / "kernels"


def mirror() -> str:
    """The mirror of Debian that this machine uses."""
    form = "$(REPO_URI) $(RELEASE) $(ORIGIN)"
    told = subprocess.check_output(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"], text=True
    )
    rows = [line.split() for line in told.splitlines()]
    return next(row[0] for row in rows if row[2:] == ["Debian"] and "security" not in row[0])


def apt_options(suite: str, arch: str) -> list[str]:
    """Options that make apt know one suite of the mirror that this machine uses, and no other.

    Args:
        suite: of Debian.
        arch: Debian's name of an architecture, or ``source`` for the packages' sources.
    """
    state = cache_folder() / f"apt-{suite}-{arch}"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = state / "sources.list"
    kind = "deb-src" if arch == "source" else "deb"
    sources.write_text(f"{kind} [signed-by={keys}] {mirror()} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": state / "lists",
        # What is installed here is of another suite.
        "Dir::State::status": "/dev/null",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "root",
    }
    if arch != "source":
        options |= {"APT::Architecture": arch, "APT::Architectures": arch}
    apt = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", *apt, "update", "-qq"], check=True)
    return apt


def unpack_packages(suite: str, arch: str, packages: Sequence[str], root: Path) -> None:
    """Make a root file system of packages and all that they depend on; none is configured.

    Raises:
        CalledProcessError: apt has not got them.
    """
    apt = apt_options(suite, arch)
    root.mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        # Packages have their files in either of the two.
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        archives = Path(folder, "archives")
        (archives / "partial").mkdir(parents=True)
        options = ("install", "-y", "-qq", "--download-only", "--no-install-recommends")
        command = ["apt-get", *apt, "-o", f"Dir::Cache={folder}", *options, *packages]
        subprocess.run(command, check=True)
        for package in archives.glob("*.deb"):
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=-1) as files:
                unpack = ["tar", "-x", "--keep-directory-symlink", "-C", root]
                subprocess.run(unpack, stdin=files.stdout, check=True)
    for name in ("dev", "proc", "run", "sys", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)


def unpack_sources(suite: str, package: str, folder: Path) -> None:
    """Put a package's sources, as its authors published them, into a folder.

    Raises:
        CalledProcessError: apt has not got them.
    """
    apt = apt_options(suite, "source")
    with tempfile.TemporaryDirectory(dir=cache_folder()) as files:
        command = ["apt-get", *apt, "source", "-qq", "--download-only", package]
        subprocess.run(command, cwd=files, check=True)
        [sources] = Path(files).glob("*.orig.tar.*z")
        folder.mkdir(parents=True, exist_ok=True)
        unpack = ["tar", "-x", "-f", sources, "--strip-components=1", "-C", folder]
        subprocess.run(unpack, check=True)


def unpack_headers(suite: str, arch: str, folder: Path) -> Path:
    """The headers of a suite's kernel in one tree, as bcc wants them; made once.

    Args:
        suite: of Debian.
        arch: Debian's name of an architecture.
        folder: for the packages' files, and the tree of links to them.

    Raises:
        CalledProcessError: apt has not got them.
        LookupError: the suite has no kernel for the architecture.
    """
    merged = folder / "headers"
    if merged.exists():
        return merged
    apt = apt_options(suite, arch)
    told = subprocess.check_output(
        ["apt-cache", *apt, "depends", f"linux-headers-{arch}"], text=True
    )
    newest = re.search(rf"Depends: (linux-headers-\S+)-{arch}", told)
    if newest is None:
        raise LookupError(f"{suite} has no kernel for {arch}")
    own, common = f"{newest[1]}-{arch}", f"{newest[1]}-common"
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    names = [f"{name}:{arch}" for name in (own, common)]
    subprocess.run(["apt-get", *apt, "download", "-qq", *names], cwd=packages, check=True)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, packages], check=True)
        package.unlink()
    sources = packages / "usr/src"
    return merge_headers(sources / common, sources / own, merged)
