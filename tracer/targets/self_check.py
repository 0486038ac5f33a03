"""Whether a running Go process has its P, M and G where assumed offsets say.

Example: a stripped program of go1.27.5 is read by the row of go1.27.3. If ``m.procid`` moved, no P
leads to an M that names a thread of the process, and nothing is read of it.

A look begins at ``runtime.allp``, whose address is told by the program's own code and hangs on no
offset, and goes from each P to the M that has it, from there to its thread and its goroutine, and
back. The process runs meanwhile, so a look can go wrong of itself, and a wrong offset can look
right for once: so it takes several looks, most of which say the same. In a program that blocks
most of the time no P has an M when it is looked at: then Ps are watched for up to 2 ms, until one
runs. A process in which none does proves nothing, and is looked at again.

What a look cannot see is told by the order of the structs alone: ``p.syscalltick``, and fields
that are mostly 0. Their offsets are as good as the rows that they are from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final, Protocol

from tracer.targets.layout import RuntimeLayout
from tracer.trace.unknown import UNKNOWN

__all__ = ["Memory", "SelfCheck"]

_PASSED_AFTER: Final = 4
"""Looks in order, and more of them than others."""
_REFUSED_AFTER: Final = 20
"""Looks out of order, and more than three times as many of them as others."""
_MOST_PS: Final = 1024
"""Ps whose place in ``allp`` is looked at."""
_FOLLOWED_PS: Final = 32
"""Ps of which everything is."""
_WORD: Final = 8
_HIGHEST_GOID: Final = 1 << 48
_HALF: Final = 0xFFFFFFFF
_HIGHEST_M: Final = 1 << 20
_TRIES: Final = 6
_QUEUE_TRIES: Final = 30
_AGAIN: Final = tuple(map(str, range(_TRIES)))
_RUNQ_LENGTH: Final = 256  # len(p.runq), Go 1.1 to 1.27

# runtime2.go: statuses of P to _Pdead; of G, running, in a call, and on the way into or out of it.
_P_IDLE, _P_RUNNING, _P_SYSCALL, _P_GCSTOP, _P_DEAD = range(5)
_P_OF_M: Final = (_P_RUNNING, _P_GCSTOP)
_P_WITHOUT_M: Final = (_P_IDLE, _P_SYSCALL, _P_GCSTOP, _P_DEAD)
_G_SCAN: Final = 0x1000
_G_OF_M: Final = (1, 2, 3, 4, 8, 9)
_G_HIGHEST: Final = 11

_WRONG: Final = {
    # What is seen, and how it is told when it is not so; of several that are, the first.
    "m_procid": "m.procid names no thread of it",
    "g_m": "g.m of m.curg does not lead back",
    "p_id": "p.id is not P's place in allp",
    "g_goid": "m.curg has no goid",
    "g_status": "m.curg has no status of a goroutine",
    "m_p": "m.p is not the P that led there",
    "m_id": "m.id is no number of an M",
    "m_oldp": "m.oldp is no P",
    "m_nextp": "m.nextp is no P",
    "p_status": "p.status is none, or not that of a P that an M has",
    "p_runq": "P's queue of goroutines has an impossible length",
    "p_runnext": "p.runnext is no goroutine",
    "p_timer": "P's timers are due at a negative time",
    "sched_npidle": "sched.npidle is not the number of idle Ps",
    "sched_nmspinning": "sched.nmspinning is more than there are Ps",
    "sched_runqsize": "the global queue's length does not go with its ends",
    "sched_gcwaiting": "sched.gcwaiting is neither true nor false",
}
_PROOF: Final = ("p_id", "p_status", "m_procid", "m_p", "g_m", "g_goid", "g_status")
"""What has to be seen right at least once."""


class Memory(Protocol):
    """What a check reads by."""

    def words(self, chains: Sequence[tuple[int, Sequence[int]]]) -> list[list[int]]:
        """As :func:`tracer.capture.memory.follow`; OSError where the process has ended."""

    def caught(
        self, groups: Sequence[Sequence[tuple[int, Sequence[int]]]]
    ) -> tuple[int, list[list[int]]] | None:
        """As :func:`tracer.capture.memory.caught`; OSError likewise."""

    def threads(self) -> Collection[int]:
        """The process's threads by their own numbers; OSError likewise."""


class SelfCheck:
    """Looks at one process, as often as is needed.

    Args:
        layout: where the process would have its runtime, its ``bias`` included.

    Attributes:
        passed: whether everything was seen to be where the layout says.
    """

    def __init__(self, layout: RuntimeLayout) -> None:
        self.passed = False
        self._layout = layout
        self._right: set[str] = set()
        self._wrong: Counter[str] = Counter()
        self._in_order = self._out_of_order = 0

    @property
    def refused(self) -> str | None:
        """What was out of place, if that is beyond doubt; else None."""
        if self.passed or self._out_of_order < max(_REFUSED_AFTER, 3 * self._in_order + 1):
            return None
        return self._most_wrong

    @property
    def open(self) -> str:
        """Why it is not decided yet."""
        if self._layout.allp == UNKNOWN:
            return "its code does not tell where its Ps are"
        unseen = [what for what in _PROOF if what not in self._right]
        if self._wrong:
            return f"at times {self._most_wrong}"
        if "m_procid" in unseen:
            return "no P was caught running a goroutine"
        return f"{', '.join(unseen)} could not be confirmed" if unseen else "it was not looked at"

    @property
    def _most_wrong(self) -> str:
        return _WRONG[max(_WRONG, key=lambda what: self._wrong[what])]

    def look(self, memory: Memory) -> None:
        """Look once.

        Raises:
            OSError: the process has ended, or may not be read.
        """
        if self._layout.allp == UNKNOWN:
            return
        right: set[str] = set()
        wrong: set[str] = set()
        for what, is_right in self._seen(memory):
            if is_right is not None:
                (right if is_right else wrong).add(what)
        if wrong:
            self._out_of_order += 1
            self._wrong.update(wrong)
        elif "m_procid" in right:
            self._in_order += 1
            self._right |= right
            enough = max(_PASSED_AFTER, self._out_of_order + 1)
            self.passed = self._in_order >= enough and self._right.issuperset(_PROOF)

    def _seen(self, memory: Memory) -> Iterator[tuple[str, bool | None]]:
        """What was looked at, and whether it is as it must be; None for no answer."""
        layout = self._layout
        ps = _all_ps(memory, layout.allp + layout.bias)
        if not ps:
            return
        for i, words in enumerate(memory.words([(p + layout.p_id, ()) for p in ps])):
            yield "p_id", bool(words) and _low(words[0]) == i
        before = self._sched(memory)
        threads = memory.threads()
        idle = 0
        runs = False
        for p in ps[:_FOLLOWED_PS]:
            told = self._read(memory, p)
            status = _low(told["p_status"][0]) if told["p_status"] else UNKNOWN
            idle += status == _P_IDLE
            has_m = bool(told["m_procid"] and told["m_procid"][0])
            runs = runs or has_m
            yield "p_status", status in (_P_OF_M if has_m else _P_WITHOUT_M)
            yield from self._p(told, p, ps, threads)
        if not runs:
            asked = [self._chains(p) for p in ps[:_FOLLOWED_PS]]
            found = memory.caught([list(chains.values()) for chains in asked])
            if found is not None:
                number, caught = found
                told = dict(zip(asked[number], caught, strict=True))
                yield from self._p(told, ps[number], ps, threads)
        after = self._sched(memory)
        for what, number in after.items():
            if what == "sched_npidle":
                # With more Ps than are counted there is only a bound.
                counted = len(ps) <= _FOLLOWED_PS
                equal = idle in (before[what], number)
                yield what, equal if counted else 0 <= number <= len(ps)
            elif what == "sched_nmspinning":
                yield what, 0 <= number <= len(ps)
            elif what == "sched_gcwaiting":
                yield what, number & 0xFF in (0, 1)
        yield from self._global_queue(memory)

    def _sched(self, memory: Memory) -> dict[str, int]:
        """The fields of ``runtime.sched`` that are known."""
        layout = self._layout
        if layout.sched == UNKNOWN:
            return {}
        fields = {
            name: getattr(layout, name)
            for name in ("sched_npidle", "sched_nmspinning", "sched_gcwaiting")
        }
        known = {name: offset for name, offset in fields.items() if offset != UNKNOWN}
        at = layout.sched + layout.bias
        told = memory.words([(at + offset, ()) for offset in known.values()])
        return {
            name: _low(words[0]) if words else UNKNOWN
            for name, words in zip(known, told, strict=True)
        }

    def _global_queue(self, memory: Memory) -> Iterator[tuple[str, bool | None]]:
        """Its first and last goroutine stand before its length, from Go 1.19 to 1.27."""
        layout = self._layout
        if UNKNOWN in (layout.sched, layout.sched_runqsize):
            return
        at = layout.sched + layout.bias + layout.sched_runqsize
        # Between two of the three words it may change.
        asked = [(at - 2 * _WORD, ()), (at - _WORD, ()), (at, ())] * _QUEUE_TRIES
        told = [words[0] if words else UNKNOWN for words in memory.words(asked)]
        tries = [told[3 * i : 3 * i + 3] for i in range(_QUEUE_TRIES)]
        yield "sched_runqsize", any(_is_queue(*words) for words in tries)

    def _read(self, memory: Memory, p: int) -> dict[str, list[int]]:
        """One P, the M that has it, and what that runs: the words on the way to each field."""
        chains = self._chains(p)
        return dict(zip(chains, memory.words(list(chains.values())), strict=True))

    def _chains(self, p: int) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Where these are. The first one begins at ``p.m``, and ends at what changes soonest."""
        layout = self._layout
        chains: dict[str, tuple[int, tuple[int, ...]]] = {}

        def ask(name: str, base: int, *path: int) -> None:
            if UNKNOWN not in path:
                chains[name] = (base + path[0], path[1:])

        for name in ("m_p", "m_procid", "m_id", "m_oldp", "m_nextp"):
            ask(name, p, layout.p_m, getattr(layout, name))
        # Again and again, since an M that looks for a goroutine has none.
        for again in _AGAIN:
            for name in ("g_m", "g_goid", "g_status"):
                ask(name + again, p, layout.p_m, layout.m_curg, getattr(layout, name))
        ask("p_status", p, layout.p_status)
        ask("head", p, layout.p_runqhead)
        ask("tail", p, layout.p_runqtail)
        ask("next", p, layout.p_runnext, layout.g_goid)
        ask("timer", p, layout.p_timer)
        ask("modified", p, layout.p_timer_modified)
        return chains

    def _p(
        self,
        told: dict[str, list[int]],
        p: int,
        ps: Sequence[int],
        threads: Collection[int],
    ) -> Iterator[tuple[str, bool | None]]:
        """Whether what was read of a P is as it must be."""
        if told.get("head") and told.get("tail"):
            length = (told["tail"][0] - told["head"][0]) & _HALF
            yield "p_runq", length <= _RUNQ_LENGTH
        if told.get("next", [0])[0]:
            yield "p_runnext", len(told["next"]) == 2 and _is_goid(told["next"][1])
        for name in ("timer", "modified"):
            if told.get(name):
                yield "p_timer", told[name][0] >= 0
        if not told["m_procid"] or not told["m_procid"][0]:
            return  # no M has it
        for name in ("m_procid", "m_id", "m_p", "m_oldp", "m_nextp"):
            if name in told:
                m, value = _pair(told[name])
                if m:
                    yield name, self._m_has(name, value, p, ps, threads)
        for again in _AGAIN:
            yield from _of_goroutine({n: told[n + again] for n in ("g_m", "g_goid", "g_status")})

    def _m_has(
        self, name: str, value: int | None, p: int, ps: Sequence[int], threads: Collection[int]
    ) -> bool | None:
        """Whether a field of the M that has ``p`` is as it must be."""
        if value is None:
            return False
        if name == "m_procid":
            # An M that begins has none yet.
            return value in threads if value else None
        if name == "m_id":
            return 0 <= value < _HIGHEST_M
        if value == p:
            return True
        if value == 0 or value in ps:
            # It may have lost P, or have got another one, in between.
            return None
        return False


def _all_ps(memory: Memory, allp: int) -> list[int]:
    """The addresses of all Ps; none where the runtime has not made them yet."""
    told = memory.words([(allp, ()), (allp + _WORD, ())])
    array, length = (words[0] if words else 0 for words in told)
    if array <= 0 or length <= 0:
        return []
    places = [(array + _WORD * i, ()) for i in range(min(length, _MOST_PS))]
    ps = [words[0] if words else 0 for words in memory.words(places)]
    return ps if all(ps) else []


def _of_goroutine(told: dict[str, list[int]]) -> Iterator[tuple[str, bool | None]]:
    """Whether what an M runs is a goroutine of its own; each time M, goroutine and field."""
    for name, words in told.items():
        if len(words) < 2 or not words[1]:
            continue
        if len(words) < 3:
            yield "g_m", False
        elif name == "g_m":
            # Nil: it gives way to another goroutine, as a loop of Gosched does all the time.
            yield name, words[2] == words[0] if words[2] else None
        elif name == "g_goid":
            yield name, _is_goid(words[2])
        else:
            status = _low(words[2]) & ~_G_SCAN
            strange = None if 0 <= status <= _G_HIGHEST else False
            yield name, True if status in _G_OF_M else strange


def _is_queue(first: int, last: int, length: int) -> bool:
    empty = _low(length) == 0
    return (first == 0) == empty and (last == 0) == empty and _low(length) >= 0


def _pair(words: Sequence[int]) -> tuple[int, int | None]:
    """An M, and what its field has; no M for none, None where that could not be read."""
    if not words:
        return 0, None
    return words[0], words[1] if len(words) > 1 else None


def _low(word: int) -> int:
    """The signed number in the lower half of a word."""
    return ((word & _HALF) ^ 0x80000000) - 0x80000000


def _is_goid(value: int) -> bool:
    # From 2**32 on the lower half of one is as good as never 0; of one that is read askew it is.
    return 0 < value < _HIGHEST_GOID and bool(value & _HALF)
