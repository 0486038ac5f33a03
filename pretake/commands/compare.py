"""``pretake compare``: the figures of many traces, a row each; on a cluster if there is one."""

from __future__ import annotations

import click

from pretake.views import cells, console, duration, table, write_rows


@click.command()
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask scheduler that gets the work. Without one it is done in this process.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(traces: tuple[str, ...], scheduler: str | None, as_json: bool) -> None:
    """Show the figures of many traces in one table, a row each.

    \b
    Examples:
      pretake compare *.pretake
      pretake compare s3://traces/host{1..9}.pretake --scheduler tcp://10.0.0.1:8786

    A TRACE is a folder, or an address that fsspec can open (s3://, gs://, sftp:// …).
    """
    from analysis.answers.cluster import compare_all

    compared = compare_all(traces, scheduler)
    if as_json:
        write_rows(compared)
        return
    head = ("trace", "retake p50", "p90", "p99", "hold p50", "harm", "episodes", "lost")
    rows = [
        (
            row["trace"],
            *(duration(row[f"retake_{name}_ns"]) for name in ("p50", "p90", "p99")),
            duration(row["hold_p50_ns"]),
            duration(row["harm_sum_ns"]),
            f"{row['episodes']:,}",
            f"{row['lost']:,}",
        )
        for row in cells(compared)
    ]
    console().print(table(f"{len(rows)} traces", head, rows))
