"""Bugs that a scheduler like this one can have, each as one change of its source."""

from __future__ import annotations

from tests.unit.sim.packages import Mutant

P = "processors.py"
S = "scheduler.py"
Q = "runq.py"
C = "syscalls.py"
A = "preempt.py"
W = "world.py"

MUTANTS = [
    Mutant(
        "a handoff that forgets the run queue",
        P,
        "found = p.runqhead != p.runqtail or self.work_for_others()",
        "found = self.work_for_others()",
    ),
    Mutant(
        "a handoff that forgets the global queue",
        P,
        "found = p.runqhead != p.runqtail or self.work_for_others()",
        "found = p.runqhead != p.runqtail",
    ),
    Mutant(
        "a handoff that loses P",
        P,
        "            runq.pidleput(self.sched, p)\n            p.lost_enter_ns = 0\n",
        "            p.lost_enter_ns = 0\n",
    ),
    Mutant(
        "a P that is retaken although its M is back",
        P,
        "if p.status != P_SYSCALL or loser is None:",
        "if loser is None:",
    ),
    Mutant(
        "an M that takes its P back although it was retaken",
        C,
        "if m.p is p and p.status == P_SYSCALL:",
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
        "            self.monitor_waits = False\n            self.monitor_note.wakeup()",
        "            self.monitor_waits = False",
    ),
    Mutant(
        "a monitor that never retakes",
        "policies/base.py",
        "if p.status == P_SYSCALL and self.sighted_twice(scheduler, p, now_ns):",
        "if False:",
    ),
    Mutant(
        "a wake-up that comes before the goroutine has left its M, lost",
        S,
        "            if not g.token:",
        "            if True:",
    ),
    Mutant(
        "a wake-up that comes before the goroutine has left its M, taken twice",
        S,
        "            g.token = True\n            self.lock.release()\n            return\n",
        "            self.lock.release()\n",
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
        "            runqput(scheduler, p, g)\n        return first",
        "        return first",
    ),
    Mutant(
        "a full queue that drops the newcomer",
        Q,
        "    globrunqput(scheduler.sched, g)\n    scheduler.lock.release()",
        "    scheduler.lock.release()",
    ),
    Mutant(
        "a full queue that drops half of it",
        Q,
        "        globrunqput(scheduler.sched, moved)\n",
        "",
    ),
    Mutant(
        "an M that parks without a last look",
        S,
        "if self.queues_hold_work() and self.take_idle_p(m):",
        "if False:",
    ),
    Mutant(
        "an M that found work and lets nobody look on",
        S,
        "        self.sched.nmspinning -= 1\n        self.lock.release()\n        self.wakep(m)",
        "        self.sched.nmspinning -= 1\n        self.lock.release()",
    ),
    Mutant(
        "a spinning M that is counted for ever",
        P,
        "                if spinning:\n                    sched.nmspinning -= 1\n",
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
        S,
        "        if self.timers.add(when_ns, g):\n            self.wake_poller(when_ns)",
        "        self.timers.add(when_ns, g)",
    ),
    Mutant(
        "nobody waits for timers and descriptors",
        S,
        "if (self.timers.count or self.netpoll_waiters) and self.poller is None:\n"
        "            self.wait_as_poller(m)",
        "if False:\n            self.wait_as_poller(m)",
    ),
    Mutant(
        "a goroutine without a P after its call, forgotten",
        S,
        "            runq.globrunqput(self.sched, g)\n            self.lock.release()\n"
        "            return\n",
        "            self.lock.release()\n            return\n",
    ),
    Mutant(
        "a goroutine that goes on without a P after its call",
        C,
        "    if scheduler.stopping or not scheduler.take_idle_p(m):\n        return False\n",
        "    if scheduler.stopping:\n        return False\n",
    ),
    Mutant(
        "a P that is given away before its M has let go",
        C,
        "    scheduler.releasep(m, p)\n",
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
        "            self.stop(Deadlock([describe(g) for g in runq.all_gs(sched)]))",
        "            pass",
    ),
    Mutant(
        "a mutex that is given to nobody",
        "sync.py",
        "            heir = self.waiting.popleft()",
        "            self.waiting.popleft()",
    ),
    Mutant(
        "a goroutine that stopped at a check, forgotten",
        A,
        "        g.status = G_RUNNABLE\n        runq.globrunqput(self.sched, g)\n"
        "        self.lock.release()\n\n    def take_stopped",
        "        g.status = G_RUNNABLE\n        self.lock.release()\n\n    def take_stopped",
    ),
    Mutant(
        "a goroutine that a signal stopped, forgotten",
        A,
        "            g.status = G_RUNNABLE\n            runq.globrunqput(self.sched, g)\n"
        "        self.lock.release()\n        if alone:",
        "            g.status = G_RUNNABLE\n        self.lock.release()\n        if alone:",
    ),
    Mutant(
        "a stopped goroutine that goes on without its thread",
        A,
        "        if bound is None or stopper is None:\n            return False\n",
        "        return False\n",
    ),
    Mutant(
        "a thread that a signal stopped, and nobody takes its P",
        A,
        "                self.take_from_stopped(m, p, stopper)",
        "                pass",
    ),
    Mutant(
        "a stopped goroutine whose next M keeps P as well",
        A,
        "        self.releasep(m, p)\n        if p.lost_enter_ns:",
        "        if p.lost_enter_ns:",
    ),
    Mutant(
        "a world that starts without its idle Ps",
        W,
        "                    runq.pidleput(self.sched, p)\n        self.lock.release()",
        "                    pass\n        self.lock.release()",
    ),
    Mutant(
        "a world that starts and forgets the busy Ps",
        W,
        "            self.startm(m, p, False)",
        "            pass",
    ),
    Mutant(
        "a stopped world in which whoever looks for work finds some",
        S,
        "            if self.gcwaiting:\n"
        "                self.gcstopm(m)\n                continue\n",
        "",
    ),
    Mutant(
        "a world that does not wait for those in system calls",
        W,
        "                if p.status == P_SYSCALL:\n                    self.retake(m, p, reason)",
        "                if p.status == P_SYSCALL:\n                    self.stopwait -= 1",
    ),
    Mutant(
        "a resumed goroutine that is on no queue",
        W,
        "            g.status = G_RUNNABLE\n            runq.globrunqput(self.sched, g)\n",
        "            g.status = G_RUNNABLE\n",
    ),
    Mutant(
        "a goroutine that runs although it is suspended",
        A,
        "        if g.suspended:\n            g.status = G_PREEMPTED\n"
        "            self.lock.release()\n            self.tell_stop()\n            return True\n",
        "",
    ),
    Mutant(
        "a switch-out that nobody answers",
        "policies/sched_out.py",
        "            if p is not NO_P and p.status == P_SYSCALL:",
        "            if False:",
        ("sched_out", "ums"),
    ),
    Mutant(
        "a thread that blocks, seen and left its P",
        "policies/thread_state.py",
        "if reason >= 0 and scheduler.retake(m, p, reason):",
        "if False:",
        ("thread_state",),
    ),
    Mutant(
        "a watcher that takes a P and does not run it",
        "policies/integrated.py",
        "                scheduler.acquirep(m, p)\n",
        "",
        ("integrated",),
    ),
    Mutant(
        "a watcher that leaves, and nobody is called",
        "policies/integrated.py",
        "                self.watcher = None\n                self.call_watcher(scheduler)\n",
        "",
        ("integrated",),
    ),
]
