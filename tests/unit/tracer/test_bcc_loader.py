"""Kernel headers found and merged, on trees made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.errors import PretakeError
from tracer.kernel import bcc_loader


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_two_trees_become_one_and_the_upper_wins(tmp_path: Path) -> None:
    below = tree(tmp_path / "common", include__linux__a="below", Makefile="below", arch__x="x")
    above = tree(tmp_path / "amd64", include__generated__b="above", Makefile="above")
    merged = bcc_loader.merge_headers(below, above, tmp_path / "merged")
    assert (merged / "include/linux/a").read_text() == "below"
    assert (merged / "include/generated/b").read_text() == "above"
    assert (merged / "Makefile").read_text() == "above"
    # A folder that only one has is one link, so the tree is small.
    assert (merged / "arch").is_symlink()
    assert bcc_loader.merge_headers(below, above, tmp_path / "merged") == merged


@pytest.mark.parametrize("fault", ["tree", "inner", "a link", "all trees", "cache"])
def test_headers_that_others_may_have_changed_are_not_compiled_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o755)
    monkeypatch.setattr(bcc_loader, "cache_folder", lambda: cache)
    below = tree(tmp_path / "common", include__linux__a="below")
    above = tree(tmp_path / "amd64", include__linux__b="above")
    merged = bcc_loader.merge_headers(below, above)
    assert bcc_loader.merge_headers(below, above) == merged
    if fault == "a link":
        merged.rename(tmp_path / "elsewhere")
        merged.symlink_to(tmp_path / "elsewhere")
    else:
        inner = {"tree": ".", "inner": "include/linux", "all trees": "..", "cache": "../.."}
        (merged / inner[fault]).resolve().chmod(0o775)
    with pytest.raises(PretakeError, match=r"compiled from: .*rm -r"):
        bcc_loader.merge_headers(below, above)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without headers."""
    (tmp_path / "src").mkdir()
    monkeypatch.setattr(bcc_loader, "_USR_SRC", tmp_path / "src")
    monkeypatch.setattr(bcc_loader, "_MODULES", tmp_path / "modules")
    return tmp_path


def test_debians_two_packages_of_the_newest_version_are_found(machine: Path) -> None:
    for version in ("6.1.0-9", "6.1.0-56"):
        common = machine / "src" / f"linux-headers-{version}-common"
        tree(common, include__linux__kconfig="")
        (common / "include/linux/kconfig").rename(common / "include/linux/kconfig.h")
        amd64 = machine / "src" / f"linux-headers-{version}-amd64"
        tree(amd64, include__generated__autoconf="")
        (amd64 / "include/generated/autoconf").rename(amd64 / "include/generated/autoconf.h")
    found = bcc_loader.find_headers()
    assert found is not None
    assert [path.name for path in found] == [
        "linux-headers-6.1.0-56-common",
        "linux-headers-6.1.0-56-amd64",
    ]


@pytest.mark.usefixtures("machine")
def test_no_headers_are_told_with_the_mend() -> None:
    assert bcc_loader.find_headers() is None
    with pytest.raises(bcc_loader.PretakeError, match="apt-get install python3-bpfcc"):
        bcc_loader.kernel_source()


def test_a_missing_bcc_is_told_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bcc_loader, "_DIST_PACKAGES", tmp_path)
    bcc_loader.load_bcc.cache_clear()
    with pytest.raises(bcc_loader.PretakeError, match="apt-get install python3-bpfcc"):
        bcc_loader.load_bcc()
