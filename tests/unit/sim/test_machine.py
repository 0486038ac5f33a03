"""The simulated kernel by itself: times computed by hand."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from reference_runtime.gmp import G
from reference_runtime.host import READABLE, Note
from reference_runtime.polldesc import PollWaiter
from reference_runtime.sim.costs import Chaos, Costs
from reference_runtime.sim.cpus import BEGIN_NS
from reference_runtime.sim.errors import DeadlockError, LivelockError
from reference_runtime.sim.sim_host import SimHost

US = 1_000
MS = 1_000_000
FREE = {
    "syscall_ns": 0,
    "context_switch_ns": 0,
    "wakeup_ns": 0,
    "wake_call_ns": 0,
    "thread_start_ns": 0,
    "timer_slack_ns": 0,
    "lock_ns": 0,
    "clock_ns": 0,
    "quantum_ns": 0,
}


class Threads:
    """A machine, threads on it, and what they tell."""

    def __init__(self, cpus: int = 1, chaos: Chaos | None = None, **costs: Any) -> None:  # noqa: ANN401 - prices are numbers, spreads and a flag
        self.host = SimHost(cpus, Costs(**{**FREE, **costs}), chaos=chaos, max_events=100_000)
        self.told: list[tuple[str, int]] = []
        self.ended: list[Note] = []

    def start(self, name: str, body: Callable[[], None]) -> None:
        ended = self.host.new_note()
        self.ended.append(ended)

        def run() -> None:
            body()
            ended.wakeup()

        self.host.start_thread(run, name)

    def tell(self, word: str) -> None:
        self.told.append((word, self.host.nanotime() - BEGIN_NS))

    def run(self) -> list[tuple[str, int]]:
        for ended in self.ended:
            self.host.wait_for_end(ended)
        self.host.close()
        return self.told


def test_one_cpu_is_shared_in_slices_that_end_at_ticks() -> None:
    """Slices of 3 ms end at ticks of 4 ms: a runs 0-4, b 4-8, a 8-12 …; each needs 6 ms."""
    threads = Threads(slice_ns=3 * MS, tick_ns=4 * MS)
    for name in "ab":

        def body(name: str = name) -> None:
            threads.host.spin_ns(6 * MS)
            threads.tell(name)

        threads.start(name, body)
    assert threads.run() == [("a", 10 * MS), ("b", 12 * MS)]


def test_two_cpus_run_two_threads() -> None:
    threads = Threads(cpus=2)
    for name in "ab":

        def body(name: str = name) -> None:
            threads.host.spin_ns(6 * MS)
            threads.tell(name)

        threads.start(name, body)
    assert threads.run() == [("a", 6 * MS), ("b", 6 * MS)]


def test_a_wake_up_costs_the_waker_and_takes_its_time() -> None:
    """10 µs of work, 1 µs for the call that wakes, then 3 µs latency and 2 µs switch."""
    threads = Threads(2, wake_call_ns=US, wakeup_ns=3 * US, context_switch_ns=2 * US)
    note = threads.host.new_note()

    def sleeper() -> None:
        note.sleep()
        threads.tell("woken")

    def waker() -> None:
        begin = threads.host.nanotime()
        threads.host.spin_ns(10 * US)
        note.wakeup()
        threads.told.append(("waker", threads.host.nanotime() - begin))
        begins.append(begin - BEGIN_NS)

    begins: list[int] = []
    threads.start("sleeper", sleeper)
    threads.start("waker", waker)
    told = dict(threads.run())
    assert told["waker"] == 11 * US
    assert told["woken"] == begins[0] + 16 * US


def test_a_wake_up_before_the_sleep_is_kept() -> None:
    threads = Threads()
    note = threads.host.new_note()
    slept: list[bool] = []

    def body() -> None:
        note.wakeup()
        note.wakeup()
        slept.append(note.sleep_for(5 * US))
        slept.append(note.sleep_for(5 * US))
        threads.tell("end")

    threads.start("a", body)
    assert threads.run() == [("end", 5 * US)]
    assert slept == [True, False]


def test_a_timer_is_late_by_the_slack() -> None:
    threads = Threads(timer_slack_ns=50 * US)

    def body() -> None:
        threads.host.usleep(20 * US)
        threads.tell("end")

    threads.start("a", body)
    assert threads.run() == [("end", 70 * US)]


def test_a_system_call_can_be_made_dearer() -> None:
    ends = []
    for scale in (1.0, 2.5):
        host = SimHost(1, Costs(**{**FREE, "syscall_ns": 400}).scaled(scale))
        note = host.new_note()

        def body(host: SimHost = host, note: Note = note) -> None:
            host.call(100, -1)
            ends.append(host.nanotime() - BEGIN_NS)
            note.wakeup()

        host.start_thread(body, "a")
        host.wait_for_end(note)
        host.close()
    assert ends == [500, 1_100]


def test_who_waits_for_a_pipe_is_blocked_and_who_computes_is_not() -> None:
    threads = Threads(cpus=3)
    host = threads.host
    tids: dict[str, int] = {}
    pipe: list[int] = []

    def reader() -> None:
        tids["reader"] = host.thread_id()
        pipe.extend(host.pipe())
        assert host.read(pipe[0], 10) == b"hello"
        threads.tell("read")
        assert host.read(pipe[0], 10) == b""

    def worker() -> None:
        tids["worker"] = host.thread_id()
        host.spin_ns(9 * US)

    def watcher() -> None:
        host.spin_ns(3 * US)
        assert host.thread_blocked(tids["reader"])
        assert not host.thread_blocked(tids["worker"])
        assert host.poll(pipe[0], READABLE, 0) == 0
        assert host.write(pipe[1], b"hello") == 5
        host.close_fd(pipe[1])

    for name, body in (("reader", reader), ("worker", worker), ("watcher", watcher)):
        threads.start(name, body)
    threads.run()
    assert [word for word, _ in threads.told] == ["read"]


def test_the_network_poller_gives_back_whose_descriptor_is_ready_once() -> None:
    threads = Threads(cpus=2)
    host = threads.host
    got: list[list[PollWaiter]] = []
    ends = (host.socket_pair(), host.socket_pair())
    waiters = [PollWaiter(G(goid, None, iter(()), "waiter")) for goid in range(2)]

    def poller() -> None:
        for number, (one, _) in enumerate(ends):
            host.netpoll_arm(one, READABLE, waiters[number])
        got.append(host.netpoll(0))
        got.append(host.netpoll(-1))
        threads.tell("ready")
        got.append(host.netpoll(4 * US))
        threads.tell("timeout")
        host.netpoll_break()
        got.append(host.netpoll(-1))

    def writer() -> None:
        host.spin_ns(7 * US)
        host.write(ends[1][1], b"x")

    threads.start("poller", poller)
    threads.start("writer", writer)
    assert threads.run() == [("ready", 7 * US), ("timeout", 11 * US)]
    assert got == [[], [waiters[1]], [], []]


def test_the_kernel_tells_of_every_block_preemption_and_wake() -> None:
    """a is preempted by b at 4 ms; b blocks at 5, a goes on; b's sleep is over at 6."""
    threads = Threads(slice_ns=3 * MS, tick_ns=4 * MS)
    host = threads.host
    names: dict[int, str] = {}
    seen: list[tuple[str, str, int]] = []
    host.machine.on_switch_out.append(
        lambda tid, ns, blocked: seen.append(
            ("block" if blocked else "preempt", names[tid], (ns - BEGIN_NS) // MS)
        )
    )
    host.machine.on_wake.append(
        lambda tid, ns: seen.append(("wake", names[tid], (ns - BEGIN_NS) // MS))
    )

    def a() -> None:
        names[host.thread_id()] = "a"
        host.spin_ns(6 * MS)

    def b() -> None:
        names[host.thread_id()] = "b"
        host.spin_ns(1 * MS)
        host.usleep(1 * MS)

    threads.start("a", a)
    threads.start("b", b)
    threads.run()
    assert seen == [
        ("preempt", "a", 4),
        ("block", "b", 5),
        ("wake", "b", 6),
        ("block", "a", 7),  # it ends
    ]


def test_a_thread_woken_by_the_kernel_itself_takes_over_the_cpu() -> None:
    """As UMS: the upcall runs where the thread blocked, ahead of a thread that waits longer."""
    threads = Threads(wakeup_ns=9 * US)
    host = threads.host
    machine = host.machine
    note = host.new_note()
    upcall = []

    def scheduler() -> None:
        upcall.append(machine.running)
        note.sleep()
        threads.tell("upcall")

    def blocks() -> None:
        machine.on_switch_out.append(lambda *_: machine.wake_here(upcall[0]))
        host.call(2 * US, 50 * US)

    def waits() -> None:
        threads.tell("next")

    threads.start("scheduler", scheduler)
    threads.start("blocks", blocks)
    threads.start("waits", waits)
    begin = threads.run()
    assert [word for word, _ in begin] == ["upcall", "next"]


def test_a_signal_interrupts_a_computation_and_it_goes_on_after_the_handler() -> None:
    threads = Threads(cpus=2, signal_ns=2 * US, tgkill_ns=0)
    host = threads.host
    tids = []

    def handler(signo: int) -> None:
        assert signo == signal.SIGURG
        threads.tell("handler")
        host.machine.pay(1 * US)

    host.on_signal = handler

    def computes() -> None:
        tids.append(host.thread_id())
        host.spin_ns(100 * US)
        threads.tell("end")

    def sends() -> None:
        host.spin_ns(30 * US)
        host.tgkill(tids[0], signal.SIGURG)

    threads.start("computes", computes)
    threads.start("sends", sends)
    assert threads.run() == [("handler", 32 * US), ("end", 101 * US)]


def test_cpu_time_is_what_was_computed() -> None:
    threads = Threads()
    used: list[int] = []

    def body() -> None:
        threads.host.spin_ns(30 * US)
        threads.host.usleep(500 * US)
        threads.host.spin_ns(12 * US)
        used.append(threads.host.thread_cpu_ns())

    threads.start("a", body)
    threads.run()
    assert used == [42 * US]


def test_a_contended_lock_is_had_by_one_at_a_time() -> None:
    """With chaos anywhere, threads lose their CPU with the lock in hand."""
    threads = Threads(cpus=4, chaos=Chaos(one_in=2, away_ns=5 * US, anywhere=True))
    lock = threads.host.new_lock()
    inside: list[int] = []
    most: list[int] = []

    def body() -> None:
        for _ in range(50):
            lock.acquire()
            inside.append(1)
            threads.host.nanotime()
            most.append(len(inside))
            inside.pop()
            lock.release()

    for name in "abcd":
        threads.start(name, body)
    threads.run()
    assert most == [1] * 200


def test_a_deadlock_of_threads_is_told_with_what_each_waits_for() -> None:
    threads = Threads()
    threads.start("x", lambda: threads.host.new_note().sleep())
    with pytest.raises(DeadlockError, match=r"\(x\) waits for its note"):
        threads.run()
    threads.host.close()


def test_a_livelock_is_told() -> None:
    threads = Threads()

    def body() -> None:
        while True:
            threads.host.usleep(US)

    threads.start("x", body)
    with pytest.raises(LivelockError, match="no end"):
        threads.run()
    threads.host.close()


def test_a_thread_that_raises_ends_the_run_with_its_error() -> None:
    threads = Threads()

    def body() -> None:
        raise ZeroDivisionError("in a thread")

    threads.start("x", body)
    with pytest.raises(ZeroDivisionError, match="in a thread"):
        threads.run()
    threads.host.close()


def woken_and_waker(
    threads: Threads, name: str = "sleeper", waker_name: str = "waker"
) -> dict[str, int]:
    """One sleeps; the other wakes it after 10 µs and computes for 10 more; when each is done.

    The one that was woken computes for 5 µs.
    """
    note = threads.host.new_note()

    def sleeper() -> None:
        note.sleep()
        threads.tell("begun")
        threads.host.spin_ns(5 * US)
        threads.tell("woken")

    def waker() -> None:
        threads.host.spin_ns(10 * US)
        note.wakeup()
        threads.host.spin_ns(10 * US)
        threads.tell("waker")

    threads.start(name, sleeper)
    threads.start(waker_name, waker)
    return dict(threads.run())


def test_a_woken_thread_waits_for_a_busy_cpu_or_takes_it() -> None:
    patient = woken_and_waker(Threads())
    assert (patient["waker"], patient["woken"]) == (20 * US, 25 * US)
    taking = woken_and_waker(Threads(preempt_percent=100))
    assert (taking["begun"], taking["woken"], taking["waker"]) == (10 * US, 15 * US, 25 * US)


def test_a_monitor_takes_a_cpu_by_its_own_share() -> None:
    shares = {"preempt_percent": 0, "preempt_by_light_percent": 0, "preempt_light_percent": 100}
    assert woken_and_waker(Threads(**shares), "monitor")["woken"] == 15 * US
    shares = {"preempt_percent": 100, "preempt_by_light_percent": 100, "preempt_light_percent": 0}
    assert woken_and_waker(Threads(**shares), "monitor")["woken"] == 25 * US


def test_who_is_woken_by_a_monitor_takes_a_cpu_by_a_share_of_its_own() -> None:
    shares = {"preempt_percent": 0, "preempt_by_light_percent": 100, "preempt_light_percent": 0}
    assert woken_and_waker(Threads(**shares), waker_name="monitor")["woken"] == 15 * US


def test_a_batch_thread_takes_no_cpu() -> None:
    threads = Threads(preempt_percent=100)
    start = threads.start

    def batch(name: str, body: Callable[[], None]) -> None:
        def polite() -> None:
            threads.host.machine.running.batch = name == "sleeper"
            body()

        start(name, polite)

    threads.start = batch  # type: ignore[method-assign]
    assert woken_and_waker(threads)["woken"] == 25 * US


def test_what_a_wake_up_costs_after_the_other_is_ready_and_on_its_side() -> None:
    """Both begin at 3. Ready at 13 + 1, on a CPU 3 later, in its code 4 later; 2 more to pay."""
    costs = {"wake_call_ns": US, "wake_rest_ns": 2 * US, "wakeup_ns": 3 * US, "unpark_ns": 4 * US}
    told = woken_and_waker(Threads(2, **costs))
    assert (told["begun"], told["waker"]) == (21 * US, 26 * US)


def test_latencies_are_drawn_from_what_was_seen() -> None:
    threads = Threads(2, wakeup_spread_ns=(6 * US,), wakeup_ns=99 * US)
    assert woken_and_waker(threads)["begun"] == 22 * US  # the waker's own start takes 6 too
    threads = Threads(1, timer_spread_ns=(30 * US,), timer_wakeup_spread_ns=(7 * US,))

    def body() -> None:
        threads.host.usleep(20 * US)
        threads.tell("end")

    threads.start("a", body)
    assert threads.run() == [("end", 57 * US)]


def test_a_call_works_before_and_after_it_blocks() -> None:
    threads = Threads()

    def body() -> None:
        threads.host.call(5 * US, 10 * US, 7 * US)
        threads.tell("end")

    threads.start("a", body)
    assert threads.run() == [("end", 22 * US)]


@pytest.mark.parametrize(("gil", "begun_us", "waker_us"), [(False, 12, 42), (True, 44, 47)])
def test_with_an_interpreters_lock_who_was_woken_waits_until_it_is_let_go(
    gil: bool, begun_us: int, waker_us: int
) -> None:
    """10 µs, 2 for the wake-up, and the waker goes on for 30 more with the lock.

    To let it go while somebody waits costs 2 until that one is ready, and 3 more: so the waker
    begins at 2, when the sleeper has let it go, and the sleeper goes on 2 after those 42.
    """
    threads = Threads(2, gil=gil, wake_call_ns=2 * US, gil_signal_ns=5 * US, wakeup_ns=0)
    note = threads.host.new_note()
    host = threads.host

    def sleeper() -> None:
        note.sleep()
        threads.tell("begun")

    def waker() -> None:
        host.spin_ns(10 * US)
        note.wakeup()
        host.machine.pay(30 * US)
        host.usleep(0)
        threads.tell("waker")

    threads.start("sleeper", sleeper)
    threads.start("waker", waker)
    told = dict(threads.run())
    assert (told["begun"], told["waker"]) == (begun_us * US, waker_us * US)
