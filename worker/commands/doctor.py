"""`holdfast doctor`: named checks, each with a hint."""

from __future__ import annotations

import typer

from worker.commands import console, session
from worker.commands.options import JsonOption


def doctor(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Check everything a worker needs: OK, WARN or FAIL, each with a hint; exit code 1 when one fails."""
    from worker.checks import Verdict, all_checks

    styles: dict[Verdict, console.Style] = {Verdict.OK: "good", Verdict.WARN: "warn", Verdict.FAIL: "bad"}
    failed = 0
    for check in all_checks(lambda: session.load(ctx)):
        failed += check.verdict is Verdict.FAIL
        if as_json:
            told = {"check": check.name, "verdict": check.verdict.value, "message": check.message, "hint": check.hint}
            console.json_line(told)
            continue
        verdict = console.paint(f"{check.verdict:<4}", styles[check.verdict])
        message = console.clean(check.message).replace("\n", "\n      ")
        console.out(f"{verdict}  {check.name}: {message}")
        if check.hint:
            console.out(f"      hint: {console.clean(check.hint)}")
    return 1 if failed else 0
