"""Makes the request that an indicator stands for: the same one however often the same indicator is seen."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from worker.intake.wire import RequestId

_SECOND = 1_000_000_000
_LONGEST_PLAN = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """An indicator as it was at one look."""

    plan: str
    """What it asks for; perhaps no plan's name, where it comes from that of a directory."""
    level: str
    device: int
    inode: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result, *, plan: str, level: str) -> Sighting:
        """The indicator with this status."""
        return cls(plan=plan, level=level, device=found.st_dev, inode=found.st_ino, mtime_ns=found.st_mtime_ns)

    @property
    def request_id(self) -> RequestId:
        """`<plan>-<time>-<inode>-<level>-<device>`: touched again it is another one, seen again it is not."""
        plan = re.sub(r"[^A-Za-z0-9._-]", "_", self.plan)[:_LONGEST_PLAN]
        return RequestId(f"{plan}-{moment(self.mtime_ns)}-{self.inode}-{self.level}-{self.device:x}")

    @property
    def body(self) -> bytes:
        """The request. Nothing in it could differ between two looks at one indicator."""
        plan = self.plan.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return orjson.dumps({"id": self.request_id, "plan": plan, "level": self.level})

    def is_it(self, found: os.stat_result) -> bool:
        """Whether a file with this status is still the same indicator, and was not touched since."""
        return (found.st_dev, found.st_ino, found.st_mtime_ns) == (self.device, self.inode, self.mtime_ns)

    def is_same_file(self, request_id: str) -> bool:
        """Whether that request was for this very indicator.

        On whatever device: its number may be another one after the next start of the machine. And at whatever level:
        that is for the configuration to say, which may have changed since.
        """
        return request_id.count("-") >= 4 and request_id.rsplit("-", 2)[0] == self.request_id.rsplit("-", 2)[0]


def moment(mtime_ns: int) -> str:
    """A file's time as text without hyphens, to the nanosecond: `20261121T182058.123456789Z`."""
    seconds, fraction = divmod(mtime_ns, _SECOND)
    try:
        when = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        # Anybody may set a file's time to what no calendar has.
        return f"{mtime_ns}ns".replace("-", "before")
    return f"{when.year:04}{when:%m%dT%H%M%S}.{fraction:09}Z"
