"""Has a program bring files of a remote peer: rsync, sftp, or one that is called as rcp is."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from handlers.tools.peers.options import RemotePeer
from handlers.tools.peers.outcome import Rules
from handlers.tools.peers.pulse import Pulse
from handlers.tools.peers.wanted import Wanted
from handlers.tools.remote.copied import Copied
from handlers.tools.remote.rcp import copy_with_rcp
from handlers.tools.remote.rsync import Links, Source, copy_with_rsync
from handlers.tools.remote.rsync import Rules as RsyncRules
from handlers.tools.remote.rsync_messages import NoRsyncThere
from handlers.tools.remote.sftp import copy_with_sftp
from handlers.tools.remote.ssh import Ssh
from handlers.tools.removal import remove_below

Program = Literal["rsync", "scp", "rcp"]

_WILD = re.compile(r"([*?\[\\])")


@dataclass(slots=True, kw_only=True)
class Transfer:
    """The copying from one peer."""

    peer: RemotePeer
    ssh: Ssh
    target: Path
    rules: Rules
    pulse: Pulse
    program: Program
    keeps_owners: bool
    bytes_per_second: int | None

    def bring(self, found: Wanted, names: Sequence[bytes] | None, *, resume: bool, checksum: bool = False) -> Copied:
        """Copy all that is wanted, or only these files of it, into target; see the programs for what is raised.

        With `resume` there may be something in target already. With `checksum` it is compared by content.
        """
        if self.program == "rsync":
            try:
                return self._rsync(found, names, checksum=checksum)
            except NoRsyncThere:
                if self.peer.transfer == "rsync":
                    raise
                self.program = "scp"
        directory, deadline = os.fsencode(self.peer.collect_directory), timedelta(seconds=self.pulse.left_seconds)
        if self.program == "scp":
            return copy_with_sftp(
                self.ssh,
                directory,
                self.target,
                found.files if names is None else names,
                resume=resume,
                deadline=deadline,
                checkpoint=self.pulse.beat,
            )
        remove_below(self.target)  # it cannot be asked for single files, nor to go on
        return copy_with_rcp(
            self.peer.rcp_command or (), self.ssh, directory, self.target, deadline=deadline, checkpoint=self.pulse.beat
        )

    def _rsync(self, found: Wanted, names: Sequence[bytes] | None, *, checksum: bool) -> Copied:
        before = (0, 0)

        def heard(files: int, size: int) -> None:
            nonlocal before
            self.pulse.tally.add(max(0, files - before[0]), max(0, size - before[1]))
            before = files, size

        if names is None and not self.rules.recursive:
            names = list(found.entries)
        return copy_with_rsync(
            Source(directory=os.fsencode(self.peer.collect_directory), ssh=self.ssh),
            self.target,
            rules=RsyncRules(
                links=Links.KEEP if self.rules.links else Links.SKIP,
                owners=self.keeps_owners,
                sparse=True,
                checksum=checksum,
                excluded=tuple("/" + _WILD.sub(r"\\\1", os.fsdecode(name)) for name in sorted(self.rules.left_out)),
                silence=timedelta(seconds=self.peer.silence_seconds),
                bytes_per_second=self.bytes_per_second,
            ),
            names=names,
            deadline=timedelta(seconds=self.pulse.left_seconds),
            checkpoint=self.pulse.beat,
            on_progress=heard,
        )


def program_for(peer: RemotePeer) -> Program:
    """What is tried first."""
    if peer.transfer == "auto":
        return "scp" if shutil.which("rsync") is None else "rsync"
    return peer.transfer
