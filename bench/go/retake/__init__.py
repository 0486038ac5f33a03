"""Real Go with retake on ``sched_out``: see ``docs/retake-in-go.md``."""
