"""The story of the demonstration, act by act."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from handlers.errors import IntegrityError, PermanentError
from worker.commands import console
from worker.commands.demo_stage import PLAN, Stage
from worker.commands.demo_tree import change, differences, lay_out

if TYPE_CHECKING:
    from config.settings import Settings
    from worker.caller import Letter
    from worker.events import EventData

WAIT_SECONDS = 60.0


class Story:
    """The acts, one after the other; each raises where it does not hold."""

    def __init__(self, built: Stage) -> None:
        self._stage = built

    def tell(self) -> None:
        """All acts."""
        from config.load import load

        built = self._stage
        built.build()
        self._act("The subject: real files of this machine, with a few nasty names and links")
        files, total = lay_out(built.subject)
        self._say(f"{console.many(files, 'file')}, {console.size(total)}")
        self._act("A worker, in a process of its own: holdfast run")
        self._say(f"process {built.start_worker()} listens to the spool {built.top}/state/spool")
        settings = load(built.config, environ={}).settings
        first = self._letter(settings, "backup-on-monday")
        self._act("A request, as any program would make it: one JSON file, moved into the spool")
        full = self._request(settings, first, "succeeded")
        self._told(full)
        self._act("A week of work on these files")
        done = change(built.subject)
        self._say(f"{done.changed} changed, {done.deleted} deleted, {done.renamed} renamed, {done.added} added")
        self._act("The second request: only what changed is stored")
        increment = self._request(settings, self._letter(settings, "backup-on-friday"), "succeeded")
        self._told(increment)
        _expect(increment.level == 1, f"the second backup has level {increment.level}, not 1")
        self._bring_back(increment)
        self._act("The first request once more, as brokers and impatient callers do")
        again = self._request(settings, first, "duplicate")
        self._say(
            f"{again.outcome}: it was {again.original}, and it still is the set {again.backup_id}; nothing was done"
        )
        self._act("The end: SIGTERM")
        code = built.stop_worker()
        _expect(code == 0, f"the worker ended with exit code {code}")
        self._say("the worker finished what it had, and ended with exit code 0")
        self._plain_tools(increment)

    def _bring_back(self, increment: EventData) -> None:
        built = self._stage
        self._act("Verify: every byte read again, the chain restored on trial")
        seen = built.answer("verify", PLAN, "--deep")
        self._say(f"{seen['verdict']}, {seen['seconds']:.1f} s")
        self._act("Restore the chain into a new directory, and compare it with the original by other means")
        target = built.top / "restored"
        back = built.answer("restore", str(increment.backup_id), str(target))
        self._say(f"{console.many(back['files'], 'file')}, {console.size(back['bytes'])}, {back['seconds']:.1f} s")
        began = time.monotonic()
        found = differences(built.subject, target)
        for difference in found[:10]:
            console.error(difference)
        _expect(not found, f"{len(found)} differences between the original and what was restored")
        self._say(f"0 differences: names, contents, modes, times, owners, links ({since(began)})")
        self._act("Restore one single file: its frames alone are read, not the archive")
        name = max(path.name for path in built.subject.glob("*.py"))
        one = built.answer("restore", PLAN, str(built.top / "one"), "--path", name)
        same = (built.top / "one" / name).read_bytes() == (built.subject / name).read_bytes()
        _expect(same, f"{name} came back with another content")
        stored = sum(part.stat().st_size for part in (built.top / "backups" / PLAN).glob("*/*"))
        self._say(f"{name}: {console.size(one['bytes_read'])} read of {console.size(stored)} stored")
        self._act("What is stored")
        for line in built.command("list").splitlines():
            self._say(line)

    def _plain_tools(self, increment: EventData) -> None:
        self._act("And without Holdfast: RESTORE.md in the set has the commands")
        guide = self._stage.top / "backups" / PLAN / str(increment.backup_id) / "RESTORE.md"
        for line in _commands(guide.read_text(), blocks=2):
            self._say(line)
        self._say(f"(... and more, in {guide.relative_to(self._stage.top)})")

    def _letter(self, settings: Settings, event_id: str) -> Letter:
        from handlers.tools.clock import system_clock
        from worker.caller import compose
        from worker.intake.wire import RequestData

        data = RequestData(plan=PLAN, reason="a demonstration")
        return compose(data, node=settings.node, event_id=event_id, now=system_clock())

    def _request(self, settings: Settings, letter: Letter, expected: str) -> EventData:
        from worker.caller import ask

        for data in ask(settings, letter, "spool", seconds=WAIT_SECONDS, on_sent=lambda: None):
            if data.outcome.is_outcome:
                _expect(data.outcome == expected, f"the outcome is {data.outcome}: {data.error}, not {expected}")
                return data
        log = self._stage.log.read_text(errors="replace")
        raise PermanentError(f"no outcome within {WAIT_SECONDS:g} s", hint=log[-2000:])

    def _told(self, data: EventData) -> None:
        counts, took = data.counts, timedelta(0)
        if data.finished is not None and data.started is not None:
            took = data.finished - data.started
        if counts is not None:
            self._say(
                f"{data.outcome}: level {data.level} ({data.level_reason}), {console.many(counts.files, 'member')}, "
                f"{console.size(counts.bytes_in)} -> {console.size(counts.bytes_out)}, {console.duration(took)}"
            )
        self._say(f"set {data.backup_id}, verified: {data.verified}")

    def _act(self, title: str) -> None:
        console.out(f"\n{console.paint(title, 'bold')}")

    def _say(self, text: str) -> None:
        console.out(f"  {console.clean(text)}")


def _commands(guide: str, *, blocks: int) -> list[str]:
    """The lines of a Markdown page's first blocks of code."""
    return [line for block in guide.split("```")[1 : 2 * blocks : 2] for line in block.splitlines()[1:]]


def _expect(held: bool, otherwise: str) -> None:
    if not held:
        raise IntegrityError(otherwise)


def since(began: float) -> str:
    """How long it took."""
    return console.duration(timedelta(seconds=time.monotonic() - began))
