"""Answers the indicators that were brought, each once its request has an outcome.

What is owed is not written down anywhere: the indicator lies there, and the journal knows the outcome. Whoever dies
before answering finds both again at the next start. For the thread of one intake.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from loguru import logger

from config.indicators import Indicators
from handlers.errors import TemporaryError
from worker.events import EventData, Word
from worker.intake.indicator_acts import Acts, Own, carry_out
from worker.intake.indicator_places import Place
from worker.intake.indicator_sighting import Sighting
from worker.intake.spool_dirs import shown
from worker.intake.wire import RequestId
from worker.journal.protocol import Entry

AT_ONCE: Final = 50
"""How many requests the journal is asked about before something else gets its turn."""
LOOK_AGAIN_SECONDS: Final = 5.0
"""Somebody at the command line may have brought a request to its outcome."""
_GONE: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


_Key = tuple[RequestId, Place]
"""A hard link makes one indicator, and one request, in two places."""


@dataclass(slots=True)
class _Owed:
    sighting: Sighting
    place: Place
    refused: bool = False
    told: bool = False
    not_before: float = 0.0


class Answers:
    """What one name in the configuration owes to whom."""

    def __init__(
        self,
        name: str,
        indicators: Indicators,
        *,
        entry: Callable[[RequestId], Entry | None],
        told_by_handler: Callable[[str], bool] = lambda plan: False,
    ) -> None:
        """`entry` asks the journal; `told_by_handler` whether a plan's handler itself tells those whose data is safe.

        Raises PermanentError for an owner that this machine does not know.
        """
        self._name = name
        self._indicators = indicators
        self._entry = entry
        self._told_by_handler = told_by_handler
        self._on_success = Acts.of(indicators.on_success)
        self._on_failure = Acts.of(indicators.on_failure)
        self._owed: dict[_Key, _Owed] = {}
        self._turn: deque[_Key] = deque()
        self._again_at = 0.0

    def expect(self, sighting: Sighting, place: Place) -> None:
        """The indicator is about to be delivered: it is owed an answer."""
        key = (sighting.request_id, place)
        self._owed[key] = _Owed(sighting, place)
        # It may have had its outcome long ago.
        self._turn.append(key)

    def forget(self, sighting: Sighting, place: Place) -> None:
        """It was handed back: nobody takes it for a request now."""
        self._owed.pop((sighting.request_id, place), None)

    def refuse(self, sighting: Sighting, place: Place) -> None:
        """It was refused on arrival: no journal will tell its outcome."""
        key = (sighting.request_id, place)
        if key in self._owed:
            self._owed[key].refused = True
            self._turn.append(key)

    def look_at_all(self) -> None:
        """Something came to its end: ask about every request."""
        self._turn = deque(self._owed)
        self._again_at = time.monotonic() + LOOK_AGAIN_SECONDS

    @property
    def pause(self) -> float:
        """In how many seconds `catch_up` has something to do."""
        if self._turn:
            return 0.0
        return max(0.0, self._again_at - time.monotonic()) if self._owed else LOOK_AGAIN_SECONDS

    def catch_up(self) -> None:
        """Answer what can be answered; some of it, where there is much."""
        if self._owed and not self._turn and time.monotonic() >= self._again_at:
            self.look_at_all()
        for _ in range(min(AT_ONCE, len(self._turn))):
            key = self._turn.popleft()
            owed = self._owed.get(key)
            if owed is None or time.monotonic() < owed.not_before:
                continue
            try:
                done = self._answer(key[0], owed)
            except TemporaryError:
                # The journal is away; whoever needs it more says so.
                self._turn.clear()
                self._again_at = time.monotonic() + LOOK_AGAIN_SECONDS
                return
            if done:
                del self._owed[key]

    def finish(self) -> None:
        """Nothing more will come to its end: answer what can be answered now."""
        for owed in self._owed.values():
            owed.not_before = 0.0
        self.look_at_all()
        while self._turn:
            self.catch_up()

    def _answer(self, request_id: RequestId, owed: _Owed) -> bool:
        """Whether nothing is owed any more."""
        if owed.refused:
            return self._act(request_id, owed, self._on_failure, Word.REFUSED, None)
        entry = self._entry(request_id)
        if entry is None or entry.outcome is None:
            return False
        data = EventData.model_validate_json(entry.outcome)
        outcome = data.original or data.outcome
        partial_counts = outcome is Word.PARTIAL and self._indicators.on_partial == "success"
        acts = self._on_success if outcome is Word.SUCCEEDED or partial_counts else self._on_failure
        if acts is self._on_success and self._told_by_handler(entry.plan):
            # A run may be a success without the peer that has this directory: only the handler knows.
            acts = acts.once_answered
        return self._act(request_id, owed, acts, outcome, data.backup_id)

    def _act(self, request_id: RequestId, owed: _Owed, acts: Acts, outcome: Word, backup_id: str | None) -> bool:
        if not acts.any:
            return True
        line = f"request={request_id} backup={backup_id or '-'} outcome={outcome.value}\n".encode()
        try:
            directory = owed.place.open(to_list=True)
        except OSError as error:
            if error.errno not in _GONE:
                return self._tell(request_id, owed, error)
            done = False
        else:
            try:
                done = carry_out(
                    acts,
                    directory,
                    indicator=self._indicators.name,
                    is_it=owed.sighting.is_it,
                    line=line,
                    own=Own(self._name),
                )
            except OSError as error:
                return self._tell(request_id, owed, error)
            finally:
                os.close(directory)
        logger.info(
            "indicator_answered" if done else "indicator_gone",
            intake=self._name,
            request_id=request_id,
            directory=shown(owed.place.path),
            outcome=outcome.value,
        )
        return True

    def _tell(self, request_id: RequestId, owed: _Owed, error: OSError) -> bool:
        # Once for each indicator: its directory may stay as it is for a long time.
        if not owed.told:
            logger.error(
                "indicator_unanswered",
                intake=self._name,
                request_id=request_id,
                directory=shown(owed.place.path),
                error=error.strerror or str(error),
                next=f"tried again every {self._indicators.scan_seconds:g} seconds; the outcome itself is announced",
                hint="the worker's user has to be allowed to write there, and to give files to others for `owner`",
            )
        owed.told = True
        owed.not_before = time.monotonic() + self._indicators.scan_seconds
        return False
