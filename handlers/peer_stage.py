"""Brings together what other machines, and directories of this one, have collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from handlers.contract import JSON, Control, Difference, Job, Part, Produced, Progress, Restored, SetReader, Sink
from handlers.errors import NothingNew, PermanentError, TemporaryError
from handlers.tools.peers.options import StageOptions
from handlers.tools.peers.verdicts import NAME, Report, Verdict, is_weekly, line_of, required

if TYPE_CHECKING:
    from handlers.abilities import Managed
    from handlers.contents import Contents
    from handlers.tools.peers.ledger import Ledger
    from handlers.tools.peers.staging import Result

TREE = "peers"
"""The tree of a set: a directory for each peer."""


class StageHandler:
    """The handler `stage`."""

    name: ClassVar[str] = "stage"
    Options: ClassVar[type[BaseModel]] = StageOptions

    def max_level(self, options: BaseModel) -> int | None:
        """Every set stands on its own."""
        return 0

    def subject(self, options: BaseModel) -> str:
        """The peers."""
        return f"peers {', '.join(_options(options).peers)}"

    def scope(self, options: BaseModel) -> str:
        """The peers and what is taken of them."""
        return _options(options).model_dump_json(include={"peers"})

    def check(self, options: BaseModel) -> Sequence[str]:
        """Whether local directories can be read, and keys and known hosts are as ssh wants them. Connects to nobody."""
        from handlers.tools.peers.checks import problems

        return problems(_options(options))

    def prepare(self, job: Job) -> PreparedStage:
        """Looks at nothing yet: peers come and go. What a peer has is looked at when it is its turn."""
        options = _options(job.options)
        today = datetime.now(UTC).astimezone()
        return PreparedStage(job, options, is_weekly(options.starting_day, today, full_asked=job.full_asked))

    def restore_guide(self, manifest_chain: Sequence[Mapping[str, JSON]]) -> str:
        """The commands for this set, with coreutils alone."""
        from handlers.tools.trees.guide import guide

        return guide(manifest_chain[-1], TREE)

    def restore(self, chain: Sequence[SetReader], target: Path, paths: Sequence[bytes], control: Control) -> Restored:
        """All peers, each in its directory, or only `paths` such as `web01/dump.sql`."""
        from handlers.tools.trees.restore import restore

        made = chain[-1]
        return restore(
            made.tree(TREE),
            lambda: made.stream(_listing(made)),
            target,
            paths,
            checkpoint=control.checkpoint,
            report=control.report,
        )

    def compare(self, chain: Sequence[SetReader], restored: Path, control: Control) -> Iterator[Difference]:
        """What differs from the set's listing."""
        from handlers.tools.trees.check import compare

        made = chain[-1]
        return compare(
            made.stream(_listing(made)),
            restored,
            checkpoint=control.checkpoint,
            report=lambda size: None,
        )

    def contents(self, chain: Sequence[SetReader], checkpoint: Callable[[], None]) -> Contents:
        """By the listing, and the files as they lie there."""
        from handlers.tools.trees.contents import TreeContents

        made = chain[-1]
        return TreeContents(made.tree(TREE), lambda: made.stream(_listing(made)), made.backup_id, checkpoint)

    def may_lack_some(self, options: BaseModel) -> bool:
        """Where there are several peers: a set holds those that had something new."""
        return len(_options(options).peers) > 1

    def acknowledge(self, options: BaseModel, made: SetReader, control: Control) -> Sequence[str]:
        """Write the stage indicators of the peers that were staged, and that of the whole run; see `Acknowledging`."""
        from handlers.tools.peers.telling import tell

        return tell(_options(options), made, control)

    def actions(self, options: BaseModel) -> Sequence[str]:
        """What managed peers may be made to do."""
        return tuple(_options(options).managed_actions)

    def manage(self, options: BaseModel, action: str, *, full: bool, control: Control) -> Sequence[Managed]:
        """Have each managed peer do it; see `Managing`."""
        from handlers.tools.peers.managing import manage

        return manage(_options(options), action, full=full, control=control)


def _options(options: BaseModel) -> StageOptions:
    assert isinstance(options, StageOptions)
    return options


def _listing(made: SetReader) -> str:
    return made.trees[TREE].listing


@dataclass(frozen=True, slots=True)
class PreparedStage:
    """All peers, not looked at yet."""

    job: Job
    options: StageOptions
    weekly: bool

    def describe(self) -> Mapping[str, JSON]:
        """Of each peer whether it is ready, and how much there is to stage."""
        from handlers.tools.peers.survey import survey

        return {"weekly": self.weekly, "peers": survey(self.options, self._required(), self.job.control)}

    def produce(self, sink: Sink) -> Produced:
        """Stage the peers, see `Prepared.produce`.

        Raises PermanentError where none was staged, TemporaryError where another attempt may bring what is missing,
        NothingNew where all that the peers have announced is in a set already.
        """
        from handlers.tools.peers.ledger import Ledger
        from handlers.tools.peers.pulse import Tally
        from handlers.tools.peers.staging import Staging

        control, begun = self.job.control, datetime.now(UTC)
        tree = sink.open_tree(TREE)
        control.started()
        with closing(Ledger()) as ledger:
            results = Staging(
                options=self.options,
                required=self._required(),
                tree=tree,
                leftover=sink.leftover(TREE),
                ledger=ledger,
                tally=Tally(self.job.bandwidth_bytes_per_second),
                last_try=self.job.last_try,
                begin=self._begin_anew,
                bytes_per_second=self.job.bandwidth_bytes_per_second,
            ).run(control)
            self._require_enough(results)
            made = self._listed(sink, tree, results, ledger)
        report = self._report(sink, results, begun)
        control.report(Progress(files=made.files, bytes_in=made.bytes_in, bytes_out=made.bytes_in))
        return replace(made, parts=(*made.parts, report))

    def _listed(self, sink: Sink, tree: Path, results: Sequence[Result], ledger: Ledger) -> Produced:
        """What was staged, with the parts that list it and its problems."""
        from handlers.tools.problem_log import ProblemLog
        from handlers.tools.trees import listing

        log = ProblemLog(sink)
        try:
            for result in results:
                for problem in result.told():
                    log.add(problem)
            listed = listing.write(
                tree,
                TREE,
                sink.open_part,
                known=ledger.known,
                problem=lambda problem: log.add(replace(problem, path=f"{TREE}/{problem.path}")),
                checkpoint=self.job.control.checkpoint,
                report=lambda size: None,
            )
            problems = log.close()
        finally:
            log.abort()
        return Produced(
            parts=(*listed.parts, *([problems] if problems else [])),
            trees=(listed.tree(TREE),),
            files=listed.files,
            bytes_in=sum(result.record.bytes for result in results),
            problems=log.first,
            problem_counts=log.counts,
        )

    def _begin_anew(self) -> None:
        """Nobody must take the indicator of an earlier run for that of this one. Any thread, safe to repeat."""
        from handlers.tools.peers.done import begin

        if self.options.done_indicator is not None:
            begin(self.options.done_indicator, line_of(self.job.plan, self.job.backup_id))

    def _report(self, sink: Sink, results: Sequence[Result], begun: datetime) -> Part:
        report = Report(
            plan=self.job.plan,
            backup_id=self.job.backup_id,
            weekly=self.weekly,
            begun=begun,
            finished=datetime.now(UTC),
            peers=tuple(result.record for result in results),
        )
        out = sink.open_part(NAME)
        out.write(report.encode())
        return out.close()

    def _require_enough(self, results: Sequence[Result]) -> None:
        told = "; ".join(
            f"{r.record.name}: {r.record.reason}" for r in results if r.record.verdict is not Verdict.STAGED
        )
        waiting = [result for result in results if result.may_come_back]
        if waiting and not self.job.last_try and any(result.record.required for result in waiting):
            raise TemporaryError(f"{len(waiting)} of {len(results)} peers may come back: {told}")
        if any(result.record.verdict in {Verdict.STAGED, Verdict.INCOMPLETE} for result in results):
            return
        required = {result.record.verdict for result in results if result.record.required}
        if any(r.record.verdict is Verdict.NOTHING_NEW for r in results) and required <= {Verdict.NOTHING_NEW}:
            raise NothingNew(told)
        if self.job.last_try or not waiting:
            self._begin_anew()  # an earlier run must not be taken for this one, which has failed
        if waiting:
            raise TemporaryError(f"no peer could be staged: {told}")
        raise PermanentError(f"no peer could be staged: {told}")

    def _required(self) -> frozenset[str]:
        return required(self.options.peers, weekly=self.weekly)
