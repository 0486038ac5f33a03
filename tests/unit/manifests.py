"""Manifests of traces, changed by hand: what no capture would write."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["change_manifest"]


def change_manifest(trace: Path, **fields: object) -> None:
    """Put ``fields`` in the place of those of the same name, whatever they are."""
    manifest = trace / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **fields}))
