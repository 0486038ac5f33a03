"""Bugs that a scheduler like this one can have, each as one change of its source."""

from __future__ import annotations

from tests.unit.sim.packages import Mutant

P = "processors.py"
S = "scheduler.py"
Q = "runq.py"
C = "syscalls.py"
A = "stopped.py"
W = "world.py"
R = "ready.py"
N = "netpoll.py"
GO = ("go1.21", "go1.27")

MUTANTS = [
    Mutant(
        "a wait group that wakes nobody who waits",
        "sync.py",
        "                ready(sched, m, wait.g)",
        "                pass",
    ),
    Mutant(
        "a handoff that forgets the run queue",
        P,
        "found = p.runqhead != p.runqtail or work_for_others(sched)",
        "found = work_for_others(sched)",
    ),
    Mutant(
        "a handoff that forgets the global queue",
        P,
        "found = p.runqhead != p.runqtail or work_for_others(sched)",
        "found = p.runqhead != p.runqtail",
    ),
    Mutant(
        "a handoff that loses P",
        P,
        "        runq.pidleput(sched, p)\n        p.lost_enter_ns = 0\n",
        "        p.lost_enter_ns = 0\n",
    ),
    Mutant(
        "a P that is retaken although its M is back",
        P,
        "if not in_syscall(sched, p) or loser is None:",
        "if loser is None:",
    ),
    Mutant(
        "an M that takes its P back although it was retaken",
        C,
        "if m.p is p and in_syscall(sched, p):",
        "m.p = p\n    if True:",
    ),
    Mutant(
        "retake without checking the tick",
        "policies/base.py",
        "if p.seen_syscalltick != p.syscalltick and not turn_is_over:",
        "if p.seen_syscalltick == -1:",
    ),
    Mutant(
        "a monitor that is not woken",
        P,
        "        sched.monitor_waits = False\n        sched.monitor_note.wakeup()",
        "        sched.monitor_waits = False",
    ),
    Mutant(
        "a monitor that never retakes",
        "monitor.py",
        "if reason >= 0 and policy.take(sched, m, p, reason):",
        "if False:",
    ),
    Mutant(
        "a wake-up that comes before the goroutine has left its M, lost",
        S,
        "        if not g.token:",
        "        if True:",
    ),
    Mutant(
        "a wake-up that comes before the goroutine has left its M, taken twice",
        R,
        "        g.token = True\n        sched.lock.release()\n        return False\n",
        "        sched.lock.release()\n",
    ),
    Mutant(
        "no M is woken for a goroutine that is ready",
        P,
        "if sched.npidle == 0 or sched.nmspinning != 0:",
        "if True:",
    ),
    Mutant(
        "a thief that keeps what it stole",
        Q,
        "            runqput(sched, p, g)\n    return first",
        "            pass\n    return first",
    ),
    Mutant(
        "a full queue that drops the newcomer",
        Q,
        "    globrunqput(sched, g)\n    sched.lock.release()",
        "    sched.lock.release()",
    ),
    Mutant(
        "a full queue that drops half of it",
        Q,
        "        globrunqput(sched, moved)\n",
        "",
    ),
    Mutant(
        "an M that parks without a last look",
        S,
        "if queues_hold_work(sched) and take_idle_p(sched, m):",
        "if False:",
    ),
    Mutant(
        "an M that found work and lets nobody look on",
        S,
        "    sched.nmspinning -= 1\n    sched.lock.release()\n    wakep(sched, m)",
        "    sched.nmspinning -= 1\n    sched.lock.release()",
    ),
    Mutant(
        "a spinning M that is counted for ever",
        P,
        "            if spinning:\n                sched.nmspinning -= 1\n",
        "",
    ),
    Mutant(
        "an idle P that stays on the list when it is taken",
        Q,
        "    sched.pidle = p.link\n",
        "    sched.pidle = p\n",
    ),
    Mutant(
        "a poller that is not told of an earlier timer",
        N,
        "    if sched.timers.add(timer):\n        wake_poller(sched, timer.when_ns)",
        "    sched.timers.add(timer)",
    ),
    Mutant(
        "nobody waits for timers and descriptors",
        S,
        "if (sched.timers.count or sched.netpoll_waiters) and sched.poller is None:\n"
        "        wait_as_poller(sched, m)",
        "if False:\n        wait_as_poller(sched, m)",
    ),
    Mutant(
        "a goroutine without a P after its call, forgotten",
        S,
        "        runq.globrunqput(sched, g)\n        sched.lock.release()\n        return\n",
        "        sched.lock.release()\n        return\n",
    ),
    Mutant(
        "a goroutine that goes on without a P after its call",
        C,
        "    if not take_back(sched, m) and not take_idle_p(sched, m):\n        return False\n",
        "",
    ),
    Mutant(
        "a P that is given away before its M has let go",
        C,
        "    releasep(m, p)\n",
        "",
    ),
    Mutant(
        "a global queue that busy Ps never look at",
        S,
        "p.schedtick % GLOBAL_TURN == 0 and",
        "False and",
    ),
    Mutant(
        "no deadlock is ever seen",
        P,
        "        stop_run(sched, Deadlock([describe(g) for g in runq.all_gs(sched)]))",
        "        pass",
    ),
    Mutant(
        "a mutex that is given to nobody",
        "sync.py",
        "            ready(sched, m, heir.g)",
        "            pass",
    ),
    Mutant(
        "a goroutine that stopped at a check, forgotten",
        A,
        "    g.status = G_RUNNABLE\n    runq.globrunqput(sched, g)\n"
        "    sched.lock.release()\n\n\ndef take_stopped",
        "    g.status = G_RUNNABLE\n    sched.lock.release()\n\n\ndef take_stopped",
    ),
    Mutant(
        "a goroutine that a signal stopped, forgotten",
        A,
        "        g.status = G_RUNNABLE\n        runq.globrunqput(sched, g)\n"
        "    sched.lock.release()\n    if alone:",
        "        g.status = G_RUNNABLE\n    sched.lock.release()\n    if alone:",
    ),
    Mutant(
        "a stopped goroutine that goes on without its thread",
        A,
        "    if bound is None or stopper is None:\n        return False\n",
        "    return False\n",
    ),
    Mutant(
        "a thread that a signal stopped, and nobody takes its P",
        A,
        "            take_from_stopped(sched, m, p, stopper)",
        "            pass",
    ),
    Mutant(
        "a stopped goroutine whose next M keeps P as well",
        A,
        "    releasep(m, p)\n    if p.lost_enter_ns:",
        "    if p.lost_enter_ns:",
    ),
    Mutant(
        "a world that starts without its idle Ps",
        W,
        "                runq.pidleput(sched, p)\n    sched.lock.release()",
        "                pass\n    sched.lock.release()",
    ),
    Mutant(
        "a world that starts and forgets the busy Ps",
        W,
        "        startm(sched, m, p, False)",
        "        pass",
    ),
    Mutant(
        "a stopped world in which whoever looks for work finds some",
        S,
        "        if sched.gcwaiting:\n            gcstopm(sched, m)\n            continue\n",
        "",
    ),
    Mutant(
        "a world that does not wait for those in system calls",
        W,
        "            if in_syscall(sched, p):\n                retake(sched, m, p, reason)",
        "            if in_syscall(sched, p):\n                sched.stopwait -= 1",
    ),
    Mutant(
        "a resumed goroutine that is on no queue",
        W,
        "        g.status = G_RUNNABLE\n        runq.globrunqput(sched, g)\n",
        "        g.status = G_RUNNABLE\n",
    ),
    Mutant(
        "a goroutine that runs although it is suspended",
        A,
        "    if g.suspended:\n        g.status = G_PREEMPTED\n"
        "        sched.lock.release()\n        tell_stop(sched)\n        return True\n",
        "",
    ),
    Mutant(
        "a switch-out that nobody answers",
        "policies/sched_out.py",
        "            if p is not NO_P and in_syscall(sched, p):",
        "            if False:",
        ("sched_out", "ums"),
    ),
    Mutant(
        "a thread that blocks, seen and left its P",
        "policies/thread_state.py",
        "        tick = p.syscalltick\n",
        "        return NOT_YET\n",
        ("thread_state",),
    ),
    Mutant(
        "a watcher that takes a P and does not run it",
        "policies/integrated.py",
        "        acquirep(sched, m, p)\n",
        "",
        ("integrated",),
    ),
    Mutant(
        "a watcher that leaves, and nobody is called",
        "policies/integrated.py",
        "        self.watcher = None\n        self.call_watcher(sched)\n",
        "",
        ("integrated",),
    ),
    Mutant(
        "an M on call that is told of a block and does nothing",
        "policies/upcall.py",
        "            if p is NO_P or not in_syscall(sched, p):\n                continue\n",
        "            continue\n",
        ("upcall",),
    ),
    Mutant(
        "a goroutine that was to run next, kicked out of the queue",
        Q,
        "        append(p, kicked)\n        kicked = None\n",
        "        kicked = None\n",
        likes=GO,
    ),
    Mutant(
        "a thief that loses what was to run next",
        Q,
        "        victim.has_next = False\n    victim.lock.release()\n    return g\n",
        "        victim.has_next = False\n    victim.lock.release()\n    return None\n",
        likes=GO,
    ),
    Mutant(
        "an M that takes its P back from another, and leaves it idle",
        C,
        "    acquirep(sched, m, p)\n    return True\n",
        "    return True\n",
        likes=GO,
    ),
    Mutant(
        "goroutines that are dealt out to idle Ps, and nobody is woken",
        N,
        "        startm(sched, m, NO_P, False)\n        dealt -= 1\n",
        "        dealt -= 1\n",
        likes=("go1.21",),
    ),
    Mutant(
        "a P in a call, running as from Go 1.26 on, that nobody knows to be in one",
        P,
        "    return p.status == P_RUNNING and m is not None and m.p is p and "
        "m.curg.status == G_SYSCALL\n",
        "    return False\n",
        likes=("go1.27",),
    ),
]
