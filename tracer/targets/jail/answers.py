"""The answers of the parser in its jail: their format, and the checks that the tracer makes.

The file that is read may have taken over the parser. So an answer is data of a fixed format with
bounds for every number and text. The tracer checks each of them before it becomes an object, and
refuses the whole answer if one is out of bounds. A layout is JSON of at most :data:`LAYOUT_LIMIT`
bytes; sites are arrays, since there may be thousands.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracer.arch import ARCHITECTURES
from tracer.targets.binary import NoRuntime, RuntimeBinary
from tracer.targets.go import GoBinary
from tracer.targets.layout import CALLERS, MAX_CALLERS, MODELS, CallerRange, Probe, RuntimeLayout
from tracer.trace.unknown import UNKNOWN, Missing
from tracer.trace.words import SAFE_POINTS

__all__ = [
    "LAYOUT_LIMIT",
    "Site",
    "layout_from_bytes",
    "layout_to_bytes",
    "sites_from_bytes",
    "sites_to_bytes",
]

LAYOUT_LIMIT: Final = 64 << 10
_MOST_PROBES: Final = 64
_MOST_MISSING: Final = 64
_LONGEST_TEXT: Final = 600
_LONGEST_NAME: Final = 8192
_RUNTIMES: Final = ("go", "reference")
_LARGEST_ADDRESS: Final = 1 << 62
_LARGEST_OFFSET: Final = 1 << 24
_SITES: Final = struct.Struct("<III")
_ROW: Final = np.dtype([("function", "<i4"), ("file", "<i4"), ("line", "<i4"), ("safe", "<i4")])


@dataclass(frozen=True)
class Site:
    """What an instruction of a Go program is.

    Args:
        function: that it lies in; None outside of all Go code.
        file: of its source; None where the function tells none.
        line: in the file.
        preemption: a word of :data:`tracer.trace.words.SAFE_POINTS`.
    """

    function: str | None
    file: str | None
    line: int | None
    preemption: str


def layout_to_bytes(found: RuntimeBinary | NoRuntime) -> bytes:
    """The parser's side of :func:`layout_from_bytes`."""
    if isinstance(found, NoRuntime):
        told: dict[str, Any] = {"why": found.why, "mend": found.mend}
        return json.dumps(told).encode()
    layout = {f.name: getattr(found.layout, f.name) for f in dataclasses.fields(RuntimeLayout)}
    told = {
        "runtime": found.runtime,
        "version": found.version,
        "arch": found.arch,
        "build_id": found.build_id,
        "layout": layout | {"callers": [(c.begin, c.end, c.caller) for c in found.layout.callers]},
        "probes": [(p.symbol, p.file_offset, p.handler, p.emulated) for p in found.probes],
        "missing": [
            [text[:_LONGEST_TEXT] for text in (m.what, m.why, m.mend)] for m in found.missing
        ],
    }
    if isinstance(found, GoBinary):
        told["position_independent"] = found.position_independent
        told["is_library"] = found.is_library
        told["g_tls_slot"] = found.g_tls_slot
        told["has_symbols"] = found.has_symbols
        told["offsets_from"] = found.offsets_from
    return json.dumps(told).encode()


def layout_from_bytes(data: bytes, path: Path, size: int) -> RuntimeBinary | NoRuntime:
    """What the parser tells of a file.

    Args:
        data: its answer.
        path: of the file, for probes.
        size: of the file, bytes: no probe lies beyond.

    Raises:
        ValueError, LookupError, TypeError, RecursionError: it is no such answer.
    """
    if len(data) > LAYOUT_LIMIT:
        raise ValueError("too long")
    told = json.loads(data)
    if not isinstance(told, dict):
        raise ValueError("no object")
    if "why" in told:
        return NoRuntime(_line(told["why"]), _line(told["mend"]))
    runtime = told["runtime"]
    if runtime not in _RUNTIMES:
        raise ValueError("no such runtime")
    build_id = told["build_id"]
    common: dict[str, Any] = {
        "path": path,
        "runtime": runtime,
        "version": _line(told["version"]),
        "arch": _arch(told["arch"]),
        "build_id": None if build_id is None else bytes.fromhex(_line(build_id)).hex(),
        "layout": _layout(told["layout"]),
        "probes": tuple(
            Probe(
                path, _line(symbol), _number(offset, 0, size - 1), _word(handler), emulated is True
            )
            for symbol, offset, handler, emulated in _list(told["probes"], _MOST_PROBES)
        ),
        "missing": tuple(
            Missing(_line(what), _line(why), _line(mend))
            for what, why, mend in _list(told["missing"], _MOST_MISSING)
        ),
    }
    if runtime == "reference":
        return RuntimeBinary(**common)
    offsets_from = told["offsets_from"]
    return GoBinary(
        **common,
        position_independent=_boolean(told["position_independent"]),
        is_library=_boolean(told["is_library"]),
        g_tls_slot=_address(told["g_tls_slot"]),
        has_symbols=_boolean(told["has_symbols"]),
        offsets_from=None if offsets_from is None else _line(offsets_from),
    )


def _layout(told: dict[str, Any]) -> RuntimeLayout:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(RuntimeLayout):
        value = told[field.name]
        if field.name == "model":
            if value not in MODELS:
                raise ValueError("no such model")
        elif field.name == "callers":
            value = tuple(
                CallerRange(_address(begin), _address(end), _caller(caller))
                for begin, end, caller in _list(value, MAX_CALLERS)
            )
        elif field.metadata.get("type") == "<i8":
            _address(value)
        else:
            # g lies below the thread pointer.
            _number(value, -_LARGEST_OFFSET, _LARGEST_OFFSET)
        values[field.name] = value
    return RuntimeLayout(**values)


def _list(value: object, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("no list, or too long a one")
    return value


def _number(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError("a number out of bounds")
    return value


def _address(value: object) -> int:
    return _number(value, UNKNOWN, _LARGEST_ADDRESS)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _line(value: object) -> str:
    """One line of text that a terminal only prints."""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError("no text, or too long a one")
    return "".join(c if c.isprintable() else "?" for c in value)


def _caller(value: object) -> str:
    if value not in CALLERS:
        raise ValueError("no such caller")
    return str(value)


def _arch(value: object) -> str:
    if value not in [arch.name for arch in ARCHITECTURES]:
        raise ValueError("no such architecture")
    return str(value)


def _word(value: object) -> str:
    """A name of a BPF program: whoever attaches it looks it up."""
    if not isinstance(value, str) or not value.isidentifier() or len(value) > 64:
        raise ValueError("no such handler")
    return value


def sites_to_bytes(sites: list[Site]) -> bytes:
    """The parser's side of :func:`sites_from_bytes`."""
    numbers: dict[str, int] = {}
    rows = np.zeros(len(sites), _ROW)
    for i, site in enumerate(sites):
        names = [
            UNKNOWN if name is None else numbers.setdefault(name, len(numbers))
            for name in (site.function, site.file)
        ]
        line = UNKNOWN if site.line is None else site.line
        rows[i] = (*names, line, SAFE_POINTS.index(site.preemption))
    texts = [name.encode("utf-8", "replace") for name in numbers]
    ends = np.cumsum([len(text) for text in texts], dtype="<u4")
    head = _SITES.pack(len(rows), len(texts), sum(map(len, texts)))
    return b"".join((head, rows.tobytes(), ends.astype("<u4").tobytes(), *texts))


def sites_from_bytes(data: bytes, count: int) -> list[Site]:
    """What the parser tells of addresses.

    Args:
        data: its answer.
        count: of the addresses that it was asked for.

    Raises:
        ValueError, LookupError, struct.error: it is no such answer.
    """
    rows_count, texts_count, size = _SITES.unpack_from(data)
    at = _SITES.size + rows_count * _ROW.itemsize
    begin = at + 4 * texts_count
    if rows_count != count or begin + size != len(data):
        raise ValueError("not as many sites as were asked for")
    rows = np.frombuffer(data, _ROW, rows_count, _SITES.size)
    ends = np.frombuffer(data, "<u4", texts_count, at).astype(np.int64)
    lengths = np.diff(ends, prepend=0)
    if (lengths < 0).any() or (lengths > _LONGEST_NAME).any() or ends[-1:].sum() != size:
        raise ValueError("names out of bounds")
    for name, most in (
        ("function", texts_count),
        ("file", texts_count),
        ("line", 1 << 30),
        ("safe", len(SAFE_POINTS)),
    ):
        if (rows[name] < UNKNOWN).any() or (rows[name] >= most).any():
            raise ValueError("a number out of bounds")
    if (rows["safe"] < 0).any():
        raise ValueError("no word")
    texts: list[str | None] = [
        data[begin + end - length : begin + end].decode("utf-8", "replace")
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]
    texts.append(None)  # what UNKNOWN (-1) leads to
    return [
        Site(texts[function], texts[file], None if line < 0 else line, SAFE_POINTS[safe])
        for function, file, line, safe in rows.tolist()
    ]
