"""What was asked, of whom, and what must come of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson


class Kind(StrEnum):
    """What must come of a request."""

    BACKUP = "backup"
    """One set, one outcome."""
    VERIFY = "verify"
    """No set, one outcome."""
    INVALID = "invalid"
    """Refused."""


@dataclass(slots=True, kw_only=True)
class Asked:
    """Everything that was sent under one id."""

    request_id: str
    kind: Kind
    bodies: list[dict[str, Any]]
    """The first one, and those that wrongly use its id."""
    accepted: set[str] = field(default_factory=set)
    """The reasons given in those that some transport said it has."""
    sent: int = 0


@dataclass(slots=True, kw_only=True)
class Letters:
    """Makes requests at random and remembers them."""

    rng: random.Random
    plans: Sequence[str]
    asked: dict[str, Asked] = field(default_factory=dict)

    def next(self) -> tuple[Asked, bytes]:
        """One more thing to send."""
        old = [asked for asked in self.asked.values() if asked.kind is not Kind.INVALID]
        match self.rng.choices(["new", "again", "conflict", "verify", "invalid"], [50, 20, 8, 12, 10])[0]:
            case "again" if old:
                asked = self.rng.choice(old)
                return asked, orjson.dumps(self.rng.choice(asked.bodies))
            case "conflict" if old:
                asked = self.rng.choice(old)
                asked.bodies.append({**asked.bodies[0], "reason": f"another, {len(asked.bodies)}"})
                return asked, orjson.dumps(asked.bodies[-1])
            case "verify":
                return self._first(Kind.VERIFY, operation="verify")
            case "invalid":
                asked, body = self._first(Kind.INVALID, **self.rng.choice([{"plan": "nobody"}, {"path": "/etc"}]))
                return asked, body
            case _:
                return self.backup(self.rng.choice(self.plans))

    def backup(self, plan: str) -> tuple[Asked, bytes]:
        """A new backup."""
        level = self.rng.choices(["auto", "full", "incremental"], [8, 1, 2])[0]
        return self._first(Kind.BACKUP, plan=plan, level=level)

    def _first(self, kind: Kind, **more: str) -> tuple[Asked, bytes]:
        request_id = f"{kind}-{len(self.asked)}"
        body = {"id": request_id, "plan": self.rng.choice(self.plans), "reason": "the first", **more}
        asked = self.asked[request_id] = Asked(request_id=request_id, kind=kind, bodies=[body])
        return asked, orjson.dumps(body)
