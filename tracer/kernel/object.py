"""What the compiler makes of the BPF programs: their instructions, and the maps they use.

An :class:`Object` knows no file descriptor, no address and no kernel, so it can be kept as text,
and made on another machine; it is loaded without bcc (:mod:`tracer.kernel.loaded`).
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["INSTRUCTION", "TASK_STORAGE", "Fitted", "MapShape", "Object", "map_references"]

TASK_STORAGE: Final = 29
"""``enum bpf_map_type`` of a map whose values are on tasks."""

INSTRUCTION: Final = np.dtype([("op", "u1"), ("regs", "u1"), ("off", "<i2"), ("imm", "<i4")])
"""``struct bpf_insn``; ``regs`` has the destination in its lower half."""

_LOAD_IMMEDIATE_64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1
_NUMPY_OF_C: Final = {
    "unsigned char": "u1",
    "char": "i1",
    "signed char": "i1",
    "short": "<i2",
    "unsigned short": "<u2",
    "int": "<i4",
    "unsigned int": "<u4",
    "long": "<i8",
    "unsigned long": "<u8",
    "long long": "<i8",
    "unsigned long long": "<u8",
}


@dataclass(frozen=True)
class MapShape:
    """A map that the programs use, as it is to be created.

    Args:
        name: in the C source.
        kind: ``enum bpf_map_type``.
        key: bytes of a key.
        value: bytes of a value.
        entries: ``max_entries``.
        flags: ``map_flags``.
        description: of the value's type, as bcc tells it.
    """

    name: str
    kind: int
    key: int
    value: int
    entries: int
    flags: int
    description: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of a value: the C struct's, so that it is declared there alone."""
        return _dtype(json.loads(self.description))


@dataclass(frozen=True)
class Object:
    """What the compiler made: for no kernel in particular.

    Args:
        maps: the maps.
        functions: instructions by the function's name; where one refers to a map, its number
            in ``maps`` stands for the file descriptor.
    """

    maps: tuple[MapShape, ...]
    functions: Mapping[str, bytes]

    def linked(self, function: str, map_fds: Mapping[str, int]) -> bytes:
        """A function's instructions with the file descriptors of its maps."""
        code = np.frombuffer(self.functions[function], INSTRUCTION).copy()
        where = map_references(code)
        fds = np.array([map_fds[shape.name] for shape in self.maps], np.int32)
        code["imm"][where] = fds[code["imm"][where]]
        return code.tobytes()

    def to_json(self) -> str:
        """The object as text, to be kept."""
        functions = {
            name: base64.b64encode(code).decode() for name, code in self.functions.items()
        }
        maps = [dataclasses.asdict(shape) for shape in self.maps]
        return json.dumps({"maps": maps, "functions": functions})

    @classmethod
    def from_json(cls, text: str | bytes) -> Object:
        """The object that :meth:`to_json` gave.

        Raises:
            ValueError, KeyError, TypeError: the text is another.
        """
        raw = json.loads(text)
        return Object(
            tuple(MapShape(**shape) for shape in raw["maps"]),
            {name: base64.b64decode(code) for name, code in raw["functions"].items()},
        )


@dataclass(frozen=True)
class Fitted(Object):
    """The same for one kernel, with its offsets (:mod:`tracer.kernel.fitting`).

    Args:
        btf_ids: of what a function is attached to, by the function's name; those that this
            kernel lacks are not there.
        uprobe_links: whether uprobes are to be had without CAP_SYS_ADMIN.
    """

    btf_ids: Mapping[str, int]
    uprobe_links: bool


def map_references(code: np.ndarray) -> np.ndarray:
    """Where instructions load a map; the second half of a wide one never looks like that."""
    wide = (code["op"] == _LOAD_IMMEDIATE_64) & (code["regs"] >> 4 == _PSEUDO_MAP_FD)
    return np.flatnonzero(wide)


def _dtype(description: Any) -> np.dtype[Any]:  # noqa: ANN401 - bcc's JSON
    if isinstance(description, str):
        return np.dtype(_NUMPY_OF_C[description])
    members: list[Any] = []
    for member in description[1]:
        shape = tuple(member[2]) if len(member) > 2 and isinstance(member[2], list) else ()
        members.append((member[0], _dtype(member[1]), shape))
    return np.dtype(members, align=True)
