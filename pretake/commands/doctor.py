"""``pretake doctor``: what this machine can and cannot do, and the mend."""

from __future__ import annotations

import click

from pretake.views import console, print_json, table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def command(as_json: bool) -> int:
    """Tell what this machine can and cannot do, and how to mend it.

    Exit status 1 if a capture is not possible here.
    """
    from tracer.doctor import diagnose

    checks = diagnose()
    failed = [check for check in checks if not check.ok]
    if as_json:
        print_json(
            [{"name": c.name, "ok": c.ok, "detail": c.detail, "mend": c.mend} for c in checks]
        )
        return int(bool(failed))
    rows = [(c.name, "yes" if c.ok else "NO", c.detail) for c in checks]
    console().print(table("This machine", ("for a capture", "", "found"), rows))
    for check in failed:
        click.echo(f"{check.name}: {check.mend}")
    return int(bool(failed))
