"""Episodes: each call in which a thread blocked with a P, and the way of that P, in one loop.

**Concepts.** An *episode* begins with the first block of a call, and ends with the call's return
or with the thread. It *watches* its P until it ends: the first ``retake`` or ``handoff`` of that P
is its release. A *way* is what happens to a P from a release on, up to the goroutine that it runs
next: ``handoff``, ``startm``, ``acquirep``, ``run``, or ``pidle``. It is followed no longer than
to P's next block, retake or handoff. A way also begins with a ``handoff`` that a thread does for a
call (``syscall_block``), before anybody knows whether that call will block.

Example, with the times of rows in µs:

    10  block    thread 11 with P 0               an episode begins, and watches P 0
    30  retake   P 0 from 11, by 19               its release; a way begins
    60  run      a goroutine on P 0, thread 12    the way is over
    90  exit     thread 11                        the episode ends; 1 ms later it is done

**What is decided late.** Whether a retake belongs to this call can depend on when the call ended.
If the row of the call was lost, only the thread's next call shows that. So rows are only noted as
they come, and :meth:`~analysis.ptime.engine.noted.OpenEpisode.settle` decides when no later row
can change the result.

**P taken back.** In Go, an M that returns from a system call tries the P that it had before. It
gets P even from another M, if that one is in a system call (exitsyscall with oldp; up to Go 1.25
no function is called for that). A capture without uprobes infers it: a ``retake`` with the reason
``exitsyscall``, after which the taker runs on at once. Where no row tells it, it shows when
another thread blocks with P, or acquires it, while the call still goes on. The time is then the
first return of another thread that had entered its call with P. Without such a return it is only
known that P was ``gone``.
"""

from __future__ import annotations

from librt.vecs import append
from mypy_extensions import i64

from analysis.ptime.engine.noted import (
    RETURN_RACE_NS,
    CallingThread,
    FollowedP,
    OpenEpisode,
    ProcessPs,
    Way,
    give_out,
)
from analysis.ptime.engine.rows import (
    BLOCK,
    NEVER,
    RUNTIME,
    SWITCH,
    SYSCALL,
    TASK,
    WAKEUP,
    Out,
    Rows,
)
from analysis.ptime.engine.tids import Tids
from analysis.ptime.engine.words import (
    ACQUIREP,
    BY_EXITSYSCALL,
    BY_SYSCALL_BLOCK,
    EXIT_SLOW,
    HANDOFF,
    PIDLE,
    RETAKE,
    RUN,
    STARTM,
    TASK_EXIT,
    USE_HANDED_OFF,
)

__all__ = ["Episodes"]


class Episodes:
    """Makes episodes from rows.

    Args:
        tells_run: the runtime tells the first goroutine on a P (kind ``run``); else
            ``acquirep`` stands for it.
        tells_handoffs: the trace has handoffs before a call.
        only_pid: the process of threads that no row of table task names; -1 for none.
    """

    def __init__(self, tells_run: bool, tells_handoffs: bool, only_pid: i64) -> None:
        self.tells_run: bool = tells_run
        self.tells_handoffs: bool = tells_handoffs
        self.only_pid: i64 = only_pid
        self.tids: Tids = Tids()
        self.threads: list[CallingThread] = []
        """By the places of ``tids``."""
        self.processes: dict[int, ProcessPs] = {}
        self.open: list[OpenEpisode] = []
        self.serial: i64 = 0
        self.begun: Out = Out()
        """Rows of table block, in the window at hand, that began an episode: in the order of
        their serials."""
        self.done: Out = Out()
        """Columns of :data:`analysis.ptime.engine.noted.EPISODE`."""

    # What the driver calls.

    def know(self, tid: i64, pid: i64) -> None:
        """A thread and its process, before the first row."""
        self.thread(tid).process = self.process(pid)

    def feed(self, tables: list[Rows], until_ns: i64) -> None:
        """Take the rows of one window, and give out what is done.

        Args:
            tables: by :data:`analysis.ptime.engine.rows.COLUMNS`.
            until_ns: every row up to it is here, or was before.
        """
        switch, syscall, task = tables[SWITCH], tables[SYSCALL], tables[TASK]
        block, wakeup, runtime = tables[BLOCK], tables[WAKEUP], tables[RUNTIME]
        # Of one moment they are taken in this order: a block is told with the switch that follows
        # it, and whoever comes onto the CPU then may be the one that takes P; a call returns
        # before the thread's next one blocks.
        while True:
            ns = switch.ts_ns
            first: i64 = SWITCH
            if syscall.ts_ns < ns:
                ns = syscall.ts_ns
                first = SYSCALL
            if task.ts_ns < ns:
                ns = task.ts_ns
                first = TASK
            if block.ts_ns < ns:
                ns = block.ts_ns
                first = BLOCK
            if wakeup.ts_ns < ns:
                ns = wakeup.ts_ns
                first = WAKEUP
            if runtime.ts_ns < ns:
                ns = runtime.ts_ns
                first = RUNTIME
            if ns == NEVER:
                break
            if first == SWITCH:
                self.thread(switch.get(2)).switch_ns = ns
                switch.next()
            elif first == WAKEUP:
                self.on_wakeup(ns, self.thread(wakeup.get(1)))
                wakeup.next()
            elif first == RUNTIME:
                self.on_runtime(ns, runtime)
                runtime.next()
            elif first == SYSCALL:
                self.on_exit(ns, syscall)
                syscall.next()
            elif first == BLOCK:
                self.on_block(ns, block, runtime)
                block.next()
            else:
                self.on_task(ns, task)
                task.next()
        self.give(until_ns, False)

    def close(self) -> None:
        """Give out those that were still open as the trace ended."""
        self.give(NEVER, True)

    # Rows.

    def on_wakeup(self, ns: i64, thread: CallingThread) -> None:
        """A thread was woken."""
        thread.wake_ns = ns
        e = thread.last
        if e is not None and e.wake_ns < 0 and (e.end_ns < 0 or ns <= e.end_ns):
            e.wake_ns = ns

    def on_task(self, ns: i64, row: Rows) -> None:
        """A thread began, changed its program, or ended."""
        thread = self.thread(row.get(1))
        thread.process = self.process(row.get(2))
        if row.get(3) != TASK_EXIT:
            return
        for e in thread.unreturned:
            e.waits = False
            if e.end_ns < 0:
                # It kept its P up to then.
                e.end(ns, True)
        thread.unreturned.clear()

    def on_exit(self, ns: i64, row: Rows) -> None:
        """A call returned."""
        thread = self.thread(row.get(2))
        thread.exit_ns = ns
        thread.exit_enter_ns = row.get(1)
        thread.exit_ret = row.get(5)
        thread.exit_blocks = row.get(4)
        thread.exit_blocked_ns = row.get(6)
        if thread.unreturned:
            for e in thread.unreturned:
                self.end_by_exit(e, thread)
            thread.unreturned.clear()

    def end_by_exit(self, e: OpenEpisode, thread: CallingThread) -> None:
        """The first return of the thread since the block: of this call, or of a later one."""
        ns, entered_ns = thread.exit_ns, thread.exit_enter_ns
        own = entered_ns == e.enter_ns or entered_ns < 0 or e.enter_ns < 0
        # A fault has no entry, and returns from no call: the next one only says that it was over.
        if own and entered_ns <= e.block_ns:
            e.exit_ns = ns
            e.ret = thread.exit_ret
            e.blocks = thread.exit_blocks
            e.blocked_ns = thread.exit_blocked_ns
        e.waits = False
        if e.end_ns < 0:
            e.end(ns if own else entered_ns, own)
        elif own:
            e.end_told = 1
        p = e.p
        if e.exit_ns < 0 or p is None:
            return
        for other in p.watching:
            if (
                other is not e
                and other.back_ns < 0
                and other.thread is not thread
                and other.block_ns < ns
                and (other.end_ns < 0 or ns < other.end_ns)
            ):
                other.back_ns = ns
                other.back_tid = thread.tid
                other.back_switch_ns = thread.switch_ns
                other.back_wake_ns = thread.wake_ns

    def on_block(self, ns: i64, row: Rows, runtime: Rows) -> None:
        """A thread blocked: the first time in its call, an episode may begin."""
        enter_ns, number, use = row.get(1), row.get(3), row.get(4)
        thread = self.thread(row.get(2))
        before_ns = thread.block_ns
        thread.block_ns = ns
        if enter_ns >= 0:
            if enter_ns == thread.call_enter_ns:
                return
            thread.call_enter_ns = enter_ns
        else:
            # A call without an entry is named by the exit before it instead.
            if thread.exit_ns == thread.call_since_ns:
                return
            thread.call_since_ns = thread.exit_ns
        own: Way | None = None
        given = use == USE_HANDED_OFF
        if given:
            self.hand_off_first(ns, thread, runtime)
            own = thread.own
            if own is not None and own.release_ns <= before_ns:
                own = None
            before = thread.last
            if own is None and before is not None and before.number == number:
                before.lost_later()
            if own is None and self.tells_handoffs:
                # A call of the runtime may be several of the kernel.
                return
        elif use < 0 and number < 0:
            return
        before = thread.last
        if before is not None and before.end_ns < 0:
            before.end(enter_ns if enter_ns >= 0 else ns, False)
        e = OpenEpisode(self.serial, thread, ns, enter_ns)
        self.serial += 1
        self.begun.put(row.at // 8)
        self.open.append(e)
        thread.last = e
        thread.unreturned.append(e)
        e.given = given
        e.number = number
        if own is not None:
            e.own = True
            e.way = own
            e.number = own.p
            thread.own = None
        if e.number >= 0:
            p = e.p = thread.process.p(e.number)
            if not given:
                self.cut(p, ns)
            if own is None:
                p.watching.append(e)
        if thread.exit_ns == ns and enter_ns >= 0 and thread.exit_enter_ns == enter_ns:
            # The call returned at this very moment, which is taken first.
            thread.unreturned.pop()
            self.end_by_exit(e, thread)

    def hand_off_first(self, ns: i64, thread: CallingThread, runtime: Rows) -> None:
        """Take this thread's handoff of the same moment, which lies behind the block here."""
        at = runtime.at
        while runtime.ts_ns == ns:
            if (
                runtime.get(2) == thread.tid
                and runtime.get(5) == HANDOFF
                and runtime.get(6) == BY_SYSCALL_BLOCK
            ):
                self.on_own_handoff(ns, thread, runtime.get(3))
            runtime.next()
        runtime.seek(at)

    def on_own_handoff(self, ns: i64, thread: CallingThread, number: i64) -> None:
        """A thread hands its P off for a call that it is about to make."""
        before = thread.own
        if before is not None:
            before.stop(-1)
        way = Way(ns, number)
        way.handoff_ns = ns
        thread.own = way
        if number >= 0:
            thread.process.p(number).ways.append(way)

    def cut(self, p: FollowedP, ns: i64) -> None:
        """A thread blocked with this P: whoever watched or followed it knows enough."""
        away = False
        for e in p.watching:
            if e.is_watching(ns):
                if e.cut_ns < 0 and e.block_ns < ns:
                    e.cut_ns = ns
                    if e.used_ns < 0:
                        e.used_ns = ns
                if e.is_passed():
                    p.pass_by(e, ns)
                    away = True
            else:
                away = True
        if away:
            p.watching = [e for e in p.watching if e.is_watching(ns) and not e.is_passed()]
        for way in p.ways:
            if way.cut_ns < 0 and way.release_ns < ns:
                way.cut_ns = ns
                way.stop(ns)

    def on_runtime(self, ns: i64, row: Rows) -> None:
        """A transition of the runtime."""
        number, kind = row.get(3), row.get(5)
        tid = row.get(2)
        if kind == EXIT_SLOW:
            self.on_exit_slow(ns, self.thread(tid))
            return
        if kind > PIDLE or number < 0:
            return
        thread = self.thread(tid)
        p = thread.process.p(number)
        if kind == RETAKE and row.get(4) >= 0:
            self.thread(row.get(4)).taken_ns = ns
        if p.ways:
            self.follow(p, ns, kind, thread)
        if p.passed and kind in (RETAKE, HANDOFF):
            for e in p.take_passed(ns, row.get(4) if kind == RETAKE else -1):
                self.release(p, e, ns, kind, thread, row)
        if p.watching:
            self.watch(p, ns, kind, thread, row)
        if kind == HANDOFF and row.get(6) == BY_SYSCALL_BLOCK:
            self.on_own_handoff(ns, thread, number)

    def on_exit_slow(self, ns: i64, thread: CallingThread) -> None:
        """A thread found its P gone as it returned."""
        e = thread.last
        if e is not None and e.end_ns < 0:
            e.slows = append(e.slows, ns)
        if not thread.returned:
            return
        stays: list[OpenEpisode] = []
        for over in thread.returned:
            if ns < over.end_ns:
                stays.append(over)
            elif ns <= over.end_ns + RETURN_RACE_NS:
                over.slow_ns = ns
        thread.returned = stays

    def watch(self, p: FollowedP, ns: i64, kind: i64, thread: CallingThread, row: Rows) -> None:
        """Note the first release of a P, and who used it."""
        away = False
        for e in p.watching:
            if not e.is_watching(ns):
                away = True
            elif kind == RETAKE and row.get(4) >= 0 and row.get(4) != e.thread.tid:
                # From a call of another thread, which had it before: a thread that takes P back,
                # and blocks with it at once, is told to have taken it as it blocks. Or which took
                # it from this one, and nobody told.
                if e.used_ns < 0 and e.block_ns < ns:
                    e.used_ns = ns
            elif kind in (RETAKE, HANDOFF):
                if e.next_ns < 0:
                    self.release(p, e, ns, kind, thread, row)
            elif (
                kind in (ACQUIREP, RUN)
                and e.used_ns < 0
                and thread is not e.thread
                and e.block_ns < ns
            ):
                e.used_ns = ns
        if away:
            p.watching = [e for e in p.watching if e.is_watching(ns)]

    def release(
        self, p: FollowedP, e: OpenEpisode, ns: i64, kind: i64, thread: CallingThread, row: Rows
    ) -> None:
        """The first release of a P since the block: note it, and begin its way."""
        e.next_ns = ns
        e.next_kind = kind
        e.next_reason = row.get(6)
        e.next_tid = thread.tid
        e.next_target = row.get(4)
        if thread.switch_ns >= e.block_ns:
            e.notice_ns = thread.switch_ns
        way = Way(ns, e.number)
        if kind == HANDOFF:
            way.handoff_ns = ns
        is_inferred = row.get(1) >= 0
        if e.next_reason == BY_EXITSYSCALL and is_inferred and (e.cut_ns < 0 or e.cut_ns == ns):
            # Told as late as the taker's next block with P, which cuts the way at this moment: no
            # other row says that it ran on with P, having come back from its own call.
            self.goes_on(way, ns, ACQUIREP, thread)
        if e.cut_ns >= 0:
            way.cut_ns = e.cut_ns
            way.stop(e.cut_ns)
        e.way = way
        if way.stop_ns >= ns:
            p.ways.append(way)

    def follow(self, p: FollowedP, ns: i64, kind: i64, thread: CallingThread) -> None:
        """The next thing that happened to a released P."""
        away = False
        for way in p.ways:
            if ns > way.stop_ns:
                away = True
            elif kind == RETAKE:
                if ns > way.release_ns:
                    way.cut_ns = ns
                    way.stop(ns)
            elif kind == HANDOFF:
                if way.handoff_ns < 0:
                    way.handoff_ns = ns
                elif ns > way.handoff_ns:
                    way.cut_ns = ns
                    way.stop(ns)
            elif kind == STARTM:
                if way.startm_ns < 0:
                    way.startm_ns = ns
            elif kind == PIDLE:
                if way.pidle_ns < 0:
                    way.pidle_ns = ns
                    way.stop(ns)
            else:
                self.goes_on(way, ns, kind, thread)
        if away:
            p.ways = [way for way in p.ways if ns <= way.stop_ns]

    def goes_on(self, way: Way, ns: i64, kind: i64, thread: CallingThread) -> None:
        """An M has P, or runs a goroutine on it."""
        if way.runner < 0:
            way.runner = thread.tid
            if thread.switch_ns >= way.release_ns:
                way.oncpu_ns = thread.switch_ns
            if thread.wake_ns >= way.release_ns:
                way.wake_ns = thread.wake_ns
        if kind == ACQUIREP:
            if way.acquirep_ns < 0:
                way.acquirep_ns = ns
        elif way.run_ns < 0:
            way.run_ns = ns
        if (kind == RUN) == self.tells_run:
            way.stop(ns)

    # What is done.

    def give(self, until_ns: i64, everything: bool) -> None:
        """Settle and give out the episodes about which nothing more can come."""
        stays: list[OpenEpisode] = []
        for e in self.open:
            is_over = e.end_ns >= 0 and e.end_ns + RETURN_RACE_NS <= until_ns
            if everything or (is_over and not e.waits):
                e.settle(self.tells_run)
                way = e.way
                if everything or way is None or way.p < 0 or way.stop_ns < NEVER:
                    give_out(self.done, e, self.tells_run)
                    continue
            stays.append(e)
        self.open = stays

    # Where things are kept.

    def process(self, pid: i64) -> ProcessPs:
        """The process of that number."""
        found = self.processes.get(pid)
        if found is None:
            found = ProcessPs(pid)
            self.processes[pid] = found
        return found

    def thread(self, tid: i64) -> CallingThread:
        """The thread of that number."""
        place = self.tids.place(tid)
        if place == len(self.threads):
            self.threads.append(CallingThread(tid, self.process(self.only_pid)))
        return self.threads[place]
