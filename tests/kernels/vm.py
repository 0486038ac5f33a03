"""Boots a kernel of Debian's under qemu's emulation, and runs one command on it.

The guest's root is this machine's, over 9p, under an overlay in the guest's memory: what runs here
runs there, and nothing that it does is left behind. What it says comes back through a second 9p
share. KVM is not used: the machines that tests run on have none.

Rejected: virtme-ng, which needs udev on the host for kernels whose virtio-serial is a module, as
Debian's.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.kernels.images import Image
from tests.kernels.machine import ONE_MAY_COME, Machine

__all__ = ["Outcome", "run"]

_MODULES = ("virtio_pci", "virtio_mmio", "9pnet_virtio", "9p", "overlay", "virtio_net")

_INIT = """#!/bin/sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /lower /upper /root /out
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in $(cat /modules); do insmod "$module"; done
options=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o "$options,ro,cache=loose" host /lower || poweroff -f
mount -t 9p -o "$options" out /out || poweroff -f
mount -t tmpfs tmpfs /upper
mkdir -p /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work root /root
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/shm /root/dev/pts /root/out
mount -t tmpfs tmpfs /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs tmpfs /root/tmp
mount -t tmpfs tmpfs /root/run
mount -t cgroup2 cgroup /root/sys/fs/cgroup
mount --bind /out /root/out
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    ip addr add 10.0.2.15/24 dev eth0
    ip link set eth0 up
    ip route add default via 10.0.2.2
fi
chroot /root /bin/sh /out/command >/out/stdout 2>/out/stderr
echo $? >/out/status
sync
poweroff -f
"""


@dataclass(frozen=True)
class Outcome:
    """What a command said in the guest; status is None where it never ended."""

    status: int | None
    stdout: str
    stderr: str
    console: str


def run(
    image: Image,
    command: str,
    *,
    root: Path = Path("/"),
    inputs: Path | None = None,
    machine: Machine = ONE_MAY_COME,
    quiet_s: float = 900,
    seen: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Boot a kernel and run a shell script on it.

    Args:
        image: the kernel.
        command: the script; it finds this machine's files at their places, and ``/out`` to leave
            files in, which come back as long as it writes them there.
        root: the root of the guest.
        inputs: a folder whose files are copied to the guest's ``/out/inputs``.
        machine: to boot it on.
        quiet_s: the machine is ended when the script said nothing for so long; emulation is
            thirty times slower than the machine.
        seen: called with all that the script said, whenever it said more.
    """
    with tempfile.TemporaryDirectory(prefix="pretake-vm-") as folder:
        work = Path(folder)
        out = work / "out"
        out.mkdir()
        (out / "command").write_text(command)
        if inputs is not None:
            shutil.copytree(inputs, out / "inputs")
        initrd = _initramfs(image, work)
        console = work / "console"
        shares: list[str] = []
        for tag, path, mode in (("host", root, ",readonly=on"), ("out", out, "")):
            what = f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap{mode}"
            shares += ["-virtfs", what]
        # Whatever the kernel finds wrong with itself ends the machine.
        line = [*image.boot_options, "oops=panic", "panic=-1", "quiet", "mitigations=off"]
        line += machine.options
        argv = [
            *image.qemu,
            *(
                "-smp",
                machine.cpus,
                "-m",
                machine.memory,
                "-nographic",
                "-no-reboot",
                "-nodefaults",
            ),
            *("-serial", f"file:{console}", "-kernel", str(image.vmlinuz), "-initrd", str(initrd)),
            *("-append", " ".join(line)),
            *shares,
        ]
        if machine.network:
            argv += ["-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network"]
        none = subprocess.DEVNULL
        with subprocess.Popen(argv, stdin=none, stdout=none, stderr=none) as emulator:
            try:
                _follow(emulator, out / "stdout", quiet_s, seen)
            finally:
                emulator.kill()
        return Outcome(
            int(_text(out / "status")) if _text(out / "status").strip() else None,
            _text(out / "stdout"),
            _text(out / "stderr"),
            _text(console),
        )


def _follow(
    emulator: subprocess.Popen[bytes], said: Path, quiet_s: float, seen: Callable[[str], None]
) -> None:
    """Return when the emulator ended, or said nothing for too long."""
    before, last_s = "", time.monotonic()
    while emulator.poll() is None and time.monotonic() - last_s < quiet_s:
        with contextlib.suppress(subprocess.TimeoutExpired):
            emulator.wait(1)
        if (text := _text(said)) != before:
            before, last_s = text, time.monotonic()
            seen(text)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _initramfs(image: Image, work: Path) -> Path:
    """A root with busybox and the modules that lead to the real one."""
    tree = work / "initramfs"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(image.busybox, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    names = []
    for module in image.modules(_MODULES):
        plain = tree / module.name.removesuffix(".xz").removesuffix(".zst")
        if module.suffix == ".xz":
            plain.write_bytes(subprocess.check_output(["xz", "-dc", module]))
        else:
            shutil.copy(module, plain)
        names.append(f"/{plain.name}")
    (tree / "modules").write_text("\n".join(names))
    init = tree / "init"
    init.write_text(_INIT)
    init.chmod(0o755)
    packed = work / "initramfs.cpio"
    files = "\n".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
    with packed.open("wb") as output:
        subprocess.run(
            [image.busybox_here, "cpio", "-o", "-H", "newc"],
            input=files.encode(),
            stdout=output,
            stderr=subprocess.DEVNULL,
            cwd=tree,
            check=True,
        )
    return packed
