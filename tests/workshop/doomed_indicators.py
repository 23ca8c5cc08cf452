"""Like `tests.workshop.doomed`, with the steps of an indicator on its way from a touch to its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.workshop import doomed
from tests.workshop.doomed import Instant

STEPS: Final[Mapping[str, Sequence[Instant]]] = {
    "seen": [Instant(where="worker.intake.indicator_answers:Answers.expect")],
    **{step: doomed.STEPS[step] for step in ("journalled", "producing", "committed", "outcome_stored")},
    "answer_written": [Instant(where="worker.intake.indicator_acts:_write")],
    "taken_away": [Instant(where="worker.intake.indicator_acts:_keep", when="before")],
    "answered": [Instant(where="worker.intake.indicator_acts:carry_out")],
}

if __name__ == "__main__":
    doomed.STEPS = STEPS  # type: ignore[misc]
    doomed.main()
