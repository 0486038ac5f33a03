"""Processes whose program nobody could look at: counted, and known later if the file is seen."""

from __future__ import annotations

from tracer.capture.images import Image
from tracer.capture.layouts import ExecImage, FileIdentity
from tracer.capture.unseen import Unseen
from tracer.trace.unknown import Missing


def told_of(inode: int) -> ExecImage:
    return ExecImage(FileIdentity(1, inode, 100, 5), 0x1000, 0x2000, False, 7)


def lines(count: int) -> list[Missing]:
    why = "they ended, or their file was written, before they were looked at"
    return [Missing(f"the runtime of {count} processes", why)]


def test_one_that_is_seen_later_does_not_count() -> None:
    unseen = Unseen()
    assert unseen.missing == []
    first, second, other = Image(7, 1), Image(8, 1), Image(9, 1)
    for image, inode in ((first, 50), (second, 50), (other, 60)):
        unseen.add(image, told_of(inode))
    assert unseen.missing == lines(3)
    assert unseen.take(told_of(50).binary) == [(first, told_of(50)), (second, told_of(50))]
    assert unseen.missing == lines(1)
    assert unseen.take(told_of(50).binary) == []


def test_of_one_that_is_forgotten_only_the_number_stays() -> None:
    unseen = Unseen()
    first, second = Image(7, 1), Image(8, 1)
    unseen.add(first, told_of(50))
    unseen.add(second, told_of(50))
    unseen.add_nameless()
    unseen.forget(first)
    unseen.forget(Image(7, 1))
    assert unseen.missing == lines(3)
    assert unseen.take(told_of(50).binary) == [(second, told_of(50))]
    assert unseen.missing == lines(2)
