"""The uploader: a process that copies dumps of a watch to an object store.

Example: the watch writes ``["20261127T031507Z-1.pretake"]`` to its input. It copies that dump to
``s3://bucket/prefix/host7/api/20261127T031507Z-1-482113004.pretake``, the manifest last, and
writes a line of JSON that says so.

Each request is done by a child of its own, which imports the store's library, so nothing of a
library for networks stays in memory between two dumps. A child is killed when it has told no
progress for some time: the store hangs. Nothing else can end a call that waits for a socket.

A trace is no trace without its manifest. So what a killed upload leaves at the store is read by
nobody, and the next attempt overwrites it.

It is the user that the tracer becomes. Where root becomes nobody, it keeps CAP_DAC_READ_SEARCH, to
read the library and the credentials, which may be root's: it can read every file, and write none
that nobody may not write. Python's own library alone is loaded before that.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tracer.capture.capabilities import become

__all__ = ["main", "place_of"]

READ_SEARCH: Final = 1 << 2  # linux/capability.h: dac_read_search
_PIECE: Final = 1 << 20
_BLOCK: Final = 5 << 20
"""Bytes of a part of an upload: the least that S3 takes, for it lies in memory."""
_MANIFEST: Final = "manifest.json"
_FLAT: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"})
"""Stores without folders: to make one may make a bucket."""
_PIPE: Final = 1 << 16
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class _UnreadableError(Exception):
    """A dump that is not there, or is none: no fault of the store."""


def place_of(name: str, manifest: dict[str, Any]) -> str:
    """Where a dump goes below the store's address: host, pod or name, and time.

    Args:
        name: of the dump's folder.
        manifest: its manifest.

    Returns:
        ``host/pod/name``: for *pod* the pod's uid if all its processes are of one; else their
        name, if all have the same; else ``several``. The time has the nanoseconds of the
        dump's begin too, so that no two watches of one host give the same name.
    """
    watch = manifest.get("asked", {}).get("watch", {})
    processes = list(watch.get("processes", {}).values())
    pods = {process.get("pod") for process in processes}
    comms = {process.get("comm") for process in processes} - {None}
    if len(pods) != 1 or None in pods:
        pods = comms
    who = "several" if len(pods) > 1 else next(iter(pods), None)
    begin_ns = int(manifest.get("begin_ns") or 0)
    stem = name.removesuffix(".pretake")
    folder = f"{stem}-{begin_ns % 1_000_000_000:09d}.pretake"
    return "/".join((_plain(manifest.get("host")), _plain(who), folder))


def _plain(name: object) -> str:
    """A name as a part of a path, whatever it holds."""
    text = re.sub(r"[^A-Za-z0-9._-]", "_", str(name or "unknown"))
    return text if text.strip(".") else text.replace(".", "_") or "unknown"


def main() -> None:
    """Give up rights, say whether the address can be had, and serve."""
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(signo, signal.SIG_IGN)
    given = json.loads(sys.argv[1])
    if os.geteuid() != given["uid"] and not given["keep"]:
        # Credentials lie in the home of who called sudo, and not in root's.
        os.environ["HOME"] = pwd.getpwuid(given["uid"]).pw_dir
    become(given["uid"], given["gid"], keep=READ_SEARCH if given["keep"] else 0)
    dumps, url = Path(f"/proc/self/fd/{given['folder']}"), str(given["url"])
    timeout_s = float(given["timeout_s"])
    _say(next(_done_by_child(lambda: _check(url), None), {"problem": "it cannot be tried"}))
    text = b""
    while piece := os.read(0, _PIPE):
        text += piece
        *requests, text = text.split(b"\n")
        for request in requests:
            names = [str(name) for name in json.loads(request)]
            for told in _done_by_child(lambda: _upload(url, dumps, names), timeout_s):  # noqa: B023 - it is done before the next
                _say(told)
            _say({"done": True})


def _say(told: dict[str, Any]) -> None:
    try:
        os.write(1, json.dumps(told).encode() + b"\n")
    except BrokenPipeError:
        # The watch has ended, however; what it asked for is done to the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _done_by_child(
    work: Callable[[], Iterator[dict[str, Any]]], timeout_s: float | None
) -> Iterator[dict[str, Any]]:
    """What ``work`` tells in a process of its own; a *problem* if it stops to tell anything.

    Empty things that it tells are progress.
    """
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        # It may wait for ever, and then nobody else would end it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with os.fdopen(writes, "wb", buffering=0) as out:
            try:
                for told in work():
                    out.write(json.dumps(told).encode() + b"\n")
            except BaseException as error:  # libraries of stores raise what they like
                out.write(json.dumps({"problem": _first_line(error)}).encode() + b"\n")
        os._exit(0)
    os.close(writes)
    poll = select.poll()
    poll.register(reads, select.POLLIN)
    text = b""
    try:
        while True:
            if not poll.poll(None if timeout_s is None else timeout_s * 1000):
                yield {"problem": f"it took nothing for {timeout_s:g} s"}
                return
            piece = os.read(reads, _PIPE)
            if not piece:
                return
            *lines, text = (text + piece).split(b"\n")
            yield from (told for line in lines if (told := json.loads(line)))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reads)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _check(url: str) -> Iterator[dict[str, Any]]:
    """Whether the address is one, as far as this is known without the store."""
    try:
        import fsspec
    except ImportError:
        yield {"problem": "fsspec is not installed", "mend": "pip install 'pretake[s3]'"}
        return
    protocol, _ = fsspec.core.split_protocol(url)
    if protocol is None:
        mend = "say for example s3://bucket/prefix or file:///folder"
        yield {"problem": "it has no protocol", "mend": mend}
        return
    try:
        store = fsspec.get_filesystem_class(protocol.split("::")[-1])
    except (ImportError, ValueError) as error:
        yield {"problem": _first_line(error), "mend": "install what fsspec needs for it"}
        return
    if not store._strip_protocol(url).strip("/"):
        yield {"problem": "it names no bucket or folder", "mend": "add one"}
        return
    yield {"ready": True}


def _upload(url: str, dumps: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """Copy dumps, one after the other, up to the first that the store does not take."""
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    yield {}
    for name in names:
        try:
            manifest = _read(dumps / name / _MANIFEST)
            place = f"{root.rstrip('/')}/{_place(name, manifest)}"
            if files.exists(f"{place}/{_MANIFEST}"):
                # An earlier watch was done with it.
                yield {"name": name, "to": files.unstrip_protocol(place), "bytes": 0}
                continue
            nbytes = 0
            for file in _files(dumps / name):
                target = f"{place}/{file.relative_to(dumps / name)}"
                for copied in _copy(files, file, target):
                    nbytes += copied
                    yield {}
        except _UnreadableError as error:
            yield {"name": name, "gone": str(error)}
            continue
        yield {"name": name, "to": files.unstrip_protocol(place), "bytes": nbytes}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _UnreadableError(f"it is not there any more: {error.strerror}") from None


def _place(name: str, manifest: bytes) -> str:
    try:
        return place_of(name, json.loads(manifest))
    except (ValueError, AttributeError, TypeError):
        raise _UnreadableError("its manifest cannot be read") from None


def _files(folder: Path) -> list[Path]:
    """Of a dump, the manifest last."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(found, key=lambda path: (path == folder / _MANIFEST, path))


def _copy(files: Any, file: Path, target: str) -> Iterator[int]:  # noqa: ANN401 - fsspec has no types
    protocol = files.protocol if isinstance(files.protocol, str) else files.protocol[0]
    if protocol not in _FLAT:
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
    try:
        source = file.open("rb")
    except OSError as error:
        raise _UnreadableError(f"it is not there any more: {error.strerror}") from None
    with source:
        # It is there when it was closed, and not at all if this is killed before: on a store.
        sink = files.open(target, "wb", block_size=_BLOCK)
        while piece := source.read(_PIECE):
            sink.write(piece)
            yield len(piece)
        sink.close()
        yield 0


if __name__ == "__main__":
    main()
