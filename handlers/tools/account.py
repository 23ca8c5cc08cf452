"""Another user of this machine, as whom a program is run."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from handlers.errors import PermanentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose rights a program gets, no others: user, group, further groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What tells a program whose it is."""
        return {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name}


def account(name: str) -> Account | None:
    """The user of this name; None when it is ourselves.

    Raises PermanentError where there is no such user, or where we may not become another one.
    """
    try:
        found = pwd.getpwnam(name)
    except KeyError as error:
        raise PermanentError(f"there is no user {name} on this machine") from error
    if found.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise PermanentError(
            f"cannot run programs as user {name}: the worker runs as user {os.geteuid()}",
            hint="only root can become another user: run the worker as that user, or as root",
        )
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Account(
        name=found.pw_name, uid=found.pw_uid, gid=found.pw_gid, groups=tuple(groups), home=Path(found.pw_dir)
    )
