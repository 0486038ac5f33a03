"""Debian's kernels, as files: downloaded by apt from the suites that carry them, not installed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.kernels.machine import Machine
from tools.debian import apt_options, cache_folder

__all__ = ["KERNELS", "Image", "Kernel", "fetch"]


@dataclass(frozen=True)
class Kernel:
    """A kernel to test on.

    Args:
        name: its version as people say it.
        suite: of Debian, which carries it.
        packages: regular expressions; the newest package that one matches is taken for each.
        return_flag: what tracer/kernel/return_flag.py finds there: TIF_NEED_FPU_LOAD. The guest
            tries it, and says where it is another.
        refused: what is told there in every mode that needs BPF; empty where all is to work.
        arch: Debian's name of its architecture; of another than this machine's, nothing is there
            that this machine compiled (:mod:`tests.kernels.foreign`).
        flavour: of Debian's for that architecture, as the names of its packages end; empty for
            the usual one.
        many_cpus: a machine with many possible CPUs; None where the emulator has none.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    return_flag: int = 1 << 14
    refused: str = ""
    arch: str = "amd64"
    flavour: str = ""
    many_cpus: Machine | None = None


_SIGNED = r"linux-image-{}[.0-9+a-z-]*-{}"
# Linux 6.1 makes room for as many as it is told. A later one does so only for those that the
# machine has, of which 255 take the emulator minutes before the kernel begins.
_MANY = Machine("1", ("possible_cpus=1024",))

KERNELS = (
    Kernel(
        "5.10",
        "bullseye",
        (_SIGNED.format(r"5\.10", "ARCH"),),
        refused="no task storage for tracing programs, no bpf_task_pt_regs",
    ),
    Kernel("6.1", "bookworm", (_SIGNED.format(r"6\.1", "ARCH"),), many_cpus=_MANY),
    Kernel("6.12", "trixie", (_SIGNED.format(r"6\.12", "ARCH"),)),
    Kernel(
        "7",
        "sid",
        (r"linux-binary-7[.0-9+a-z-]*-ARCH", r"linux-modules-7[.0-9+a-z-]*-ARCH"),
        return_flag=1 << 19,
    ),
    Kernel("arm64", "trixie", (_SIGNED.format(r"6\.12", "ARCH"),), arch="arm64"),
    Kernel(
        "arm64-16k",
        "trixie",
        (_SIGNED.format(r"6\.12", "ARCH-16k"),),
        arch="arm64",
        flavour="16k",
    ),
)
"""The oldest first, then other architectures'. Others are added here: nothing else names one."""

# One thread emulates all CPUs, in turn: with a thread for each, 6.12 ended once with "Oops: int3"
# when it changed its own code while a CPU came up.
_IN_TURN = ("-accel", "tcg,thread=single")
# The oldest CPU that numpy's and Arrow's wheels run on: wide vectors are dear to emulate.
_QEMU = {
    "amd64": ("qemu-system-x86_64", *_IN_TURN, "-cpu", "Nehalem"),
    "arm64": ("qemu-system-aarch64", *_IN_TURN, "-M", "virt", "-cpu", "max,pauth-impdef=on"),
}
_CONSOLES = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
# The kernel does not trust an emulated time-stamp counter, and a look at the clock that it takes
# instead is a call of the emulator's device: import of pandas takes twice as long.
_CLOCKS = {"amd64": ("tsc=reliable", "clocksource=tsc"), "arm64": ()}


@dataclass(frozen=True)
class Image:
    """A kernel's files, below ``folder``."""

    kernel: Kernel
    arch: str
    folder: Path

    @property
    def qemu(self) -> tuple[str, ...]:
        """The emulator and its machine."""
        return _QEMU[self.arch]

    @property
    def console(self) -> str:
        """The serial line's name there."""
        return _CONSOLES[self.arch]

    @property
    def boot_options(self) -> tuple[str, ...]:
        """Words of the kernel's command line."""
        return (f"console={self.console}", *_CLOCKS[self.arch])

    @cached_property
    def vmlinuz(self) -> Path:
        """The kernel itself."""
        return next(self.folder.rglob("vmlinuz*"))

    @cached_property
    def version(self) -> str:
        """As ``uname -r`` tells it."""
        return self._modules_folder.name

    @property
    def busybox(self) -> Path:
        """A static busybox of the guest's architecture."""
        return next(
            p for p in self.folder.rglob("busybox") if p.is_file() and p.parent.name == "bin"
        )

    @property
    def busybox_here(self) -> str:
        """One of this machine's."""
        return "busybox"

    @cached_property
    def _modules_folder(self) -> Path:
        return next(p for p in self.folder.rglob("lib/modules/*") if (p / "kernel").is_dir())

    def modules(self, names: Iterable[str]) -> list[Path]:
        """The files of modules and of what they stand on, in the order they are to be loaded."""
        # From sid on the modules lie below /usr/lib, where depmod does not look.
        base = self._modules_folder.parents[2]
        if base.name == "usr":
            link = base.parent / "lib"
            if not link.exists():
                link.symlink_to("usr/lib")
            base = base.parent
        if not (self._modules_folder / "modules.dep.bin").exists():
            subprocess.run(
                ["depmod", "-b", base, self.version], check=True, stderr=subprocess.DEVNULL
            )
        found: dict[Path, None] = {}
        for name in names:
            told = subprocess.run(
                ["modprobe", "-d", base, "-S", self.version, "--show-depends", name],
                capture_output=True,
                text=True,
                check=False,
            )
            for line in told.stdout.splitlines():
                word, _, path = line.partition(" ")
                if word == "insmod":
                    found.setdefault(Path(path.strip()))
        return list(found)


def fetch(kernel: Kernel) -> Image:
    """Download a kernel, once."""
    arch = kernel.arch
    base = cache_folder()
    folder = base / f"{kernel.name}-{arch}"
    if not (folder / "complete").exists():
        apt = apt_options(kernel.suite, arch)
        names = [
            _newest(apt, pattern.replace("ARCH", arch), kernel.flavour)
            for pattern in kernel.packages
        ]
        packages = folder / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                "apt-get",
                *apt,
                "download",
                "-qq",
                *(f"{n}:{arch}" for n in (*names, "busybox-static")),
            ],
            cwd=packages,
            check=True,
        )
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
            package.unlink()
        (folder / "complete").touch()
    return Image(kernel, arch, folder / "root")


def _newest(apt: list[str], pattern: str, flavour: str) -> str:
    told = subprocess.check_output(
        ["apt-cache", *apt, "search", "--names-only", f"^{pattern}$"], text=True
    )
    names = [line.split()[0] for line in told.splitlines()]
    others = {"cloud", "rt", "dbg", "unsigned", "16k", "64k"} - {flavour}
    names = [n for n in names if not others.intersection(n.split("-"))]
    if not names:
        raise LookupError(f"no package matches {pattern}")
    return max(names, key=lambda n: [int(x) for x in re.findall(r"\d+", n)])
