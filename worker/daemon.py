"""Runs the worker: its threads, its signals, its end.

Threads: one for each intake, one that empties the outbox, one that fills the slots, one for each request that is worked
on. A side thread that ends before its time ends the process: half a worker is worse than none, because nobody notices.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from types import FrameType

from loguru import logger

from handlers.errors import HoldfastError
from worker.announcer import Announcer
from worker.health import HealthFile
from worker.intake.delivery import Delivery, Gate, Intake, Settlement
from worker.intake.held import HeldDeliveries
from worker.intake.wire import RequestId
from worker.journal.protocol import JournalUnavailable
from worker.pipeline import Pipeline
from worker.scheduler import Scheduler
from worker.store_watch import StoreWatch

CANCEL_SECONDS = 10.0
"""How long cancelled work gets to end its programs before we say that it does not."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FORGET_SECONDS = 3600.0
"""Between two looks for requests that are old enough to be forgotten."""
BEAT_SECONDS = 5.0
"""Between two signs of life, and two attempts to take in a delivery that the journal had no room for."""


class Daemon:
    """A worker from its first breath to its last."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        scheduler: Scheduler,
        announcer: Announcer,
        intakes: Sequence[Intake],
        held: HeldDeliveries | None,
        drain: timedelta,
        forget: Callable[[], int],
        is_announced: Callable[[RequestId], bool],
        health: HealthFile,
        store_watch: StoreWatch,
        reload: Callable[[], bool],
    ) -> None:
        """`forget` drops old requests from the journal and says how many; `is_announced` asks it about one.

        `reload` reads the configuration again, see `worker.reload`.
        """
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._announcer = announcer
        self._intakes = intakes
        self._held = held
        self._drain = drain
        self._forget = forget
        self._is_announced = is_announced
        self._health = health
        self._store_watch = store_watch
        self._reload = reload
        self._reload_wanted = threading.Event()
        self._awake = threading.Event()
        self._forget_at = 0.0
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._broken: str | None = None
        self._mutex = threading.Lock()
        self._aside: list[Delivery] = []
        self._journal_away = False

    def run(self, prepare: Callable[[], None] = lambda: None) -> int:
        """Work until SIGTERM or SIGINT; returns the exit code: 0 after a drain, 1 when a part of the worker died.

        `prepare` is done before anything is taken in. SIGHUP has the configuration read again. Signals that come after
        the end change nothing any more.
        """
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        side: list[threading.Thread] = []
        brought: list[threading.Thread] = []
        try:
            self._prepare(prepare)
            if not self._stop.is_set():
                side += [self._start("scheduler", self._scheduler.run), self._start("announcer", self._announcer.run)]
                brought += [self._start(f"intake-{intake.name}", self._run_intake(intake)) for intake in self._intakes]
                logger.info("worker_started", intakes=[intake.name for intake in self._intakes])
            self._watch()
        except Exception as error:  # noqa: BLE001 - this thread's root: it must not leave the others alone
            logger.opt(exception=error).error("thread_died", thread="main")
            self._fail(f"main: {type(error).__name__}: {error}")
        self._end(side, brought)
        self._health.close()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self._broken is not None:
            logger.error("worker_broken", reason=self._broken, next="the process ends; whoever runs it starts it again")
            return 1
        logger.info("worker_stopped")
        return 0

    def _prepare(self, prepare: Callable[[], None]) -> None:
        # In a thread of its own, so that we show signs of life however long it takes.
        thread = self._start("prepare", prepare, lasting=False)
        while thread.is_alive():
            self._health.beat(["it is starting"])
            thread.join(BEAT_SECONDS)

    def _watch(self) -> None:
        while not self._stop.is_set():
            if self._reload_wanted.is_set():
                self._reload_wanted.clear()
                self._reload()
            self._take_in_again()
            self._settle_announced()
            self._forget_old()
            self._health.beat(self._causes())
            self._awake.wait(BEAT_SECONDS)
            self._awake.clear()

    def accept(self, delivery: Delivery) -> None:
        """Take in one delivery; the intakes call this through their gate.

        While the journal cannot be written the delivery is put aside, unsettled, and nothing more is let in: an
        intake's thread must not be kept waiting, it has heartbeats to send.
        """
        try:
            entry = self._pipeline.accept(delivery)
        except JournalUnavailable as error:
            with self._mutex:
                first, self._journal_away = not self._journal_away, True
                self._aside.append(delivery)
            if first:
                logger.error("journal_away", error=str(error), next="nothing is taken in until it can be written")
            return
        if entry is not None:
            with suppress(HoldfastError):  # the scheduler's own thread looks again, and says what is wrong
                self._scheduler.fill()

    def _causes(self) -> list[str]:
        """What keeps us from our work, for whoever asks whether we are ready."""
        causes = [
            f"store {name} is away since {away.since:%Y-%m-%d %H:%M:%S} UTC: {away.error}"
            for name, away in self._store_watch.away().items()
        ]
        causes += [f"intake {intake.name}: {intake.trouble}" for intake in self._intakes if intake.trouble]
        if self._journal_away or self._scheduler.journal_away:
            causes.append("the journal cannot be written: look at the disk of state_dir")
        if waiting := self._scheduler.full_of:
            causes.append(f"nothing more is taken in: {waiting} accepted requests wait and cannot begin (max_accepted)")
        return ["it is stopping", *causes] if self._stop.is_set() else causes

    def _take_in_again(self) -> None:
        with self._mutex:
            aside, self._aside = self._aside, []
        for delivery in aside:
            self._health.beat(self._causes())  # each may take a while to fail
            self.accept(delivery)
        if aside and not self._aside:
            self._journal_away = False
            logger.info("journal_back")
            self.on_room()

    def _settle_announced(self) -> None:
        """The command line of this host shares the outbox: it may have announced what we hold a delivery for."""
        if self._held is not None:
            with suppress(HoldfastError):
                for request_id in self._held.waiting():
                    if self._is_announced(request_id):
                        self._held.settle(request_id)

    def _forget_old(self) -> None:
        if time.monotonic() < self._forget_at:
            return
        self._forget_at = time.monotonic() + FORGET_SECONDS
        try:
            forgotten = self._forget()
        except HoldfastError as error:
            logger.warning("journal_not_pruned", error=str(error), next="tried again in an hour")
        else:
            logger.debug("journal_pruned", requests=forgotten)

    def on_room(self) -> None:
        """A slot became free: whoever brings requests may bring one more."""
        for intake in self._intakes:
            intake.poke()

    def on_bug(self, error: BaseException) -> None:
        """The calling thread dies of this: stop everything.

        It is logged here and not to be raised again: Python would print it after our last line.
        """
        logger.opt(exception=error).error("thread_died", thread=threading.current_thread().name)
        self._fail(f"{threading.current_thread().name}: {type(error).__name__}: {error}")

    def _gate(self) -> Gate:
        def room() -> int:
            try:
                return 0 if self._journal_away else self._scheduler.room()
            except HoldfastError:
                return 0  # the journal is away: whoever needs it next says so

        return Gate(deliver=self.accept, room=room)

    def _run_intake(self, intake: Intake) -> Callable[[], None]:
        return lambda: intake.run(self._gate())

    def _start(self, name: str, body: Callable[[], None], *, lasting: bool = True) -> threading.Thread:
        def root() -> None:
            try:
                body()
            except HoldfastError as error:
                # An intake that can never work, for instance for want of rights, says so with a reason.
                self._fail(f"{name}: {error}")
            except BaseException as error:  # noqa: BLE001 - the root of a thread
                self.on_bug(error)
            else:
                if lasting and not self._stop.is_set():
                    self._fail(f"{name} ended before its time")

        # Not daemonic: the process must not end under a thread that is writing.
        thread = threading.Thread(target=root, name=name)
        thread.start()
        return thread

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A handler runs between any two instructions of the main thread, which may just hold an event's own lock:
        # setting the event here could wait for itself for ever.
        stop = self._hurry if self._stop.is_set() else self._stop
        wanted = self._reload_wanted if number == signal.SIGHUP else stop
        _thread.start_new_thread(self._heed, (wanted,))

    def _heed(self, wanted: threading.Event) -> None:
        wanted.set()
        self._awake.set()

    def _fail(self, reason: str) -> None:
        self._broken = self._broken or reason
        self._heed(self._stop)

    def _end(self, side: Sequence[threading.Thread], brought: Sequence[threading.Thread]) -> None:
        """Nothing new in; let work end, or hand it back; then tell the outcomes; then settle the deliveries."""
        logger.info("worker_drains", seconds=self._drain.total_seconds(), running=len(self._scheduler.running()))
        for intake in self._intakes:
            intake.stop()
        self._scheduler.stop()
        self._health.beat(self._causes())
        if not self._wait_for_work():
            logger.warning("work_cancelled", requests=list(self._scheduler.running().values()))
            self._scheduler.cancel()
            if not self._scheduler.wait_idle(CANCEL_SECONDS):
                logger.warning("work_does_not_end", requests=list(self._scheduler.running().values()))
            # It writes to the journal at its end: that must not be closed before.
            while not self._scheduler.wait_idle(BEAT_SECONDS):
                self._health.beat(self._causes())
        self._announcer.stop()
        for thread in side:
            thread.join()
        try:
            self._announcer.flush_once()
        except HoldfastError as error:
            logger.warning("events_unsent", error=str(error), next="the next start sends them")
        except Exception as error:  # noqa: BLE001 - what killed the announcer's thread must not cut our end short
            logger.opt(exception=error).error("events_unsent", next="the next start sends them")
            self._fail(f"announcer: {type(error).__name__}: {error}")
        finally:
            # Whatever happened: an intake that is not closed waits for ever, and keeps the process with it.
            self._close_intakes(brought)
            self._announcer.close()

    def _close_intakes(self, brought: Sequence[threading.Thread]) -> None:
        with self._mutex:
            aside, self._aside = self._aside, []
        for delivery in aside:
            delivery.settle(Settlement.HAND_BACK)
        if self._held is not None:
            self._held.hand_back()
        for intake in self._intakes:
            intake.close()
        for thread in brought:
            thread.join()

    def _wait_for_work(self) -> bool:
        # In short pieces, so that a second signal is heard: cancel now.
        left = self._drain.total_seconds()
        beat_at = time.monotonic()
        while left > 0 and not self._hurry.is_set():
            piece = min(left, 0.2)
            if self._scheduler.wait_idle(piece):
                return True
            left -= piece
            if time.monotonic() - beat_at > BEAT_SECONDS:
                beat_at = time.monotonic()
                self._health.beat(self._causes())
        return self._scheduler.wait_idle(0)
