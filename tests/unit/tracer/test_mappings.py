"""/proc/PID/maps, and what tells one file from another."""

from __future__ import annotations

import os
from pathlib import Path

from tracer.capture.layouts import FileIdentity
from tracer.capture.mappings import mappings_of

MAPS = b"""\
00400000-00452000 r-xp 00001000 fe:01 173521                             /srv/a server (deleted)
7f1200000000-7f1200021000 rw-p 00000000 00:00 0
7f12a0000000-7f12a0002000 r--p 00002000 00:2b 7                          /lib/lib\xff.so
7ffd5c5f5000-7ffd5c616000 rw-p 00000000 00:00 0                          [stack]
"""


def test_only_files_are_told() -> None:
    code, library = mappings_of(MAPS)
    assert (code.begin, code.end, code.offset) == (0x400000, 0x452000, 0x1000)
    assert code.executable
    assert (code.device, code.inode) == (os.makedev(0xFE, 1), 173521)
    assert code.path == "/srv/a server (deleted)"
    assert code.name == "map_files/400000-452000"
    assert not library.executable
    assert (library.device, library.inode) == (os.makedev(0, 0x2B), 7)
    assert os.fsencode(library.path) == b"/lib/lib\xff.so"
    assert library.name == "map_files/7f12a0000000-7f12a0002000"


def test_a_file_that_is_written_in_place_is_another(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    before = FileIdentity.of(file.stat())
    assert FileIdentity.of(file.stat()) == before
    os.utime(file, ns=(1, 1))
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    after = FileIdentity.of(file.stat())
    # Same inode, size and time of writing: the time of change is the kernel's own.
    assert (after.device, after.inode, after.size) == (before.device, before.inode, before.size)
    assert after.changed_ns > before.changed_ns


def test_a_file_is_known_for_what_ran_unless_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    ran = FileIdentity.of(file.stat())
    with file.open("rb") as opened:
        assert ran.is_of(os.fstat(opened.fileno()))
        # As "cp -p" does, to the old time of writing.
        before = file.stat()
        file.write_bytes(b"two")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert not ran.is_of(os.fstat(opened.fileno()))
        # Its own contents, though it is gone by now.
        ran = FileIdentity.of(file.stat())
        file.unlink()
        assert ran.is_of(os.fstat(opened.fileno()))


def test_the_key_is_as_the_kernel_counts() -> None:
    identity = FileIdentity(0xFE << 20 | 1, 173521, 99, 1_700_000_000_123_456_789)
    assert identity.key.tolist() == [0xFE00001, 173521, 99, 1_700_000_000, 123_456_789]
