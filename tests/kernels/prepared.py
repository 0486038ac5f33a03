"""The BPF programs, compiled here for another kernel, so that its emulated machine need not.

bcc takes some seconds for each mode, and thirty times as long under emulation. What it makes is
laid into the guest's cache, as if it had been compiled there.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile

from tests.kernels.images import Image
from tracer.capture.doctor import MODES
from tracer.errors import PretakeError
from tracer.kernel.btf import Btf
from tracer.kernel.compiler import compiled_for

__all__ = ["prepare"]


def prepare(image: Image) -> Path:
    """The folder with the programs of all modes, compiled for a kernel, once."""
    folder = image.folder.parent / "programs"
    folder.mkdir(exist_ok=True)
    btf, notes = _described(image.vmlinuz)
    for defines, _ in MODES.values():
        name, make = compiled_for(Btf(btf), notes, image.kernel.return_flag, defines)
        if not (folder / name).exists():
            (folder / name).write_text(make())
    return folder


def _described(vmlinuz: Path) -> tuple[bytes, bytes]:
    """The BTF and the ELF notes of a kernel, from the compressed file that is booted."""
    for plain in _unpacked(vmlinuz.read_bytes()):
        if plain.startswith(b"\x7fELF"):
            elf = ELFFile(io.BytesIO(plain))
            found = [elf.get_section_by_name(name) for name in (".BTF", ".notes")]
            if all(found):
                return found[0].data(), found[1].data()
    raise PretakeError(f"{vmlinuz} is packed in a way that is not known here")


def _unpacked(packed: bytes) -> Iterator[bytes]:
    """What lies in a file, by the magic numbers of the packers that kernels are packed with."""
    for magic, unpack in (
        (b"\xfd7zXZ\0", lambda data: lzma.LZMADecompressor().decompress(data)),
        (b"\x1f\x8b\x08", lambda data: zlib.decompressobj(31).decompress(data)),
        (b"\x28\xb5\x2f\xfd", _zstd),
    ):
        at = packed.find(magic)
        while at >= 0:
            with contextlib.suppress(lzma.LZMAError, zlib.error):
                yield unpack(packed[at:])
            at = packed.find(magic, at + 1)


def _zstd(data: bytes) -> bytes:
    # It complains of what follows the packed part, and has unpacked that.
    return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=False).stdout
