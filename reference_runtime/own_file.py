"""What a user wrote in a file of his own: a program, a policy."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tracer.errors import PretakeError

__all__ = ["load_from_file"]


def load_from_file(target: str, form: str) -> object:
    """What a file calls by a name; None if it calls nothing so.

    Args:
        target: ``path/to/file.py:name``.
        form: how such a target is written, for who wrote another.

    Raises:
        PretakeError: there is no such file, or it does not compile.
    """
    path_text, _, name = target.rpartition(":")
    path = Path(path_text)
    if not path.is_file():
        raise PretakeError(f"there is no file {path_text}", f"give {form}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise PretakeError(f"{path_text} is no Python file", f"give {form}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise PretakeError(
            f"{path_text} does not compile: {error.msg} in line {error.lineno}", "mend it"
        ) from None
    return getattr(module, name, None)
