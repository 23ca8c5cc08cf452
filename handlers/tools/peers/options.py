"""What an operator can ask of the handler `stage`."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from handlers.errors import HoldfastError, PermanentError
from handlers.tools.remote.names import checked_host
from handlers.tools.remote.ssh import Ssh

SSH_PORT = 22
_DAY_SECONDS = 86_400


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path, not {path}")
    if ".." in path.parts or "\0" in str(path):
        raise ValueError(f"must be a path without `..`, not {path}")
    return path


def _file_name(name: str) -> str:
    if name in {".", ".."} or "/" in name or not name.isprintable():
        raise ValueError(f"must be one name in a directory, not {name!r}")
    return name


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
PeerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9_-])?$")]
"""One name in a directory, whatever the file system: it is where the peer's files lie in the set."""
FileName = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_file_name)]
OwnerText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*:[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
ModeText = Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")]
Words = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", min_length=1)], ...], Field(min_length=1)
]
Seconds = Annotated[float, Field(gt=0, le=366 * _DAY_SECONDS, allow_inf_nan=False)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
IgnoreFailures = Literal["none", "all", "daily", "weekly"]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Peer(_Options):
    """What every peer has."""

    collect_directory: AbsolutePath
    """Where the peer puts what is to be staged: an absolute path on the peer."""

    collect_indicator: FileName | None = "cback.collect"
    """The file in that directory that says that it is complete; without it the peer is not ready. `null` for peers that
    signal nothing: they are always ready."""

    stage_indicator: FileName | None = "cback.stage"
    """The file that is written there once the set is committed and verified. `null` to write none."""

    indicator_owner: OwnerText | None = None
    """Whom that file is given to, as `user:group`, names or numbers of the peer; by default it belongs to the user who
    writes it."""

    indicator_mode: ModeText = "0644"
    """The permission bits of that file."""

    again: bool = False
    """Whether to stage once more what was staged before. By default a peer whose stage indicator answers the
    collect indicator that is there has nothing new."""

    stage_indicators: bool = False
    """Whether the indicators in the collect directory itself are staged like other files."""

    ignore_failures: IgnoreFailures = "none"
    """When the run is a success without this peer: never, always, in `daily` runs, in `weekly` runs (see
    `starting_day`)."""

    allow_empty: bool = False
    """Whether there may be nothing to stage. By default an empty collect directory is a failure of this peer."""

    recursive: bool = True
    """Whether directories are staged with all that is in them. Otherwise each one is a problem of this peer."""

    links: Literal["refuse", "keep"] = "refuse"
    """What becomes of symbolic links: `refuse` makes each a problem of this peer, `keep` stages the link itself. None
    is ever followed."""

    deadline_seconds: Seconds = _DAY_SECONDS
    """How long staging this peer may take at most."""

    max_bytes: Annotated[int, Field(ge=1)] | None = None
    """How many bytes the peer's files may have together; with more of them it has failed, and nothing of it is in the
    set. By default there is no limit but the room in the store."""

    managed: bool = False
    """Whether `holdfast manage` has this peer carry out actions."""


class LocalPeer(_Peer):
    """A directory of this machine."""

    kind: Literal["local"]
    """`local`"""

    hard_link: bool = False
    """Whether the set gets hard links to the peer's files, where it lies on the same file system. Fast, and takes no
    room; but who changes a file in place changes the set, which is damaged then. For files that are written once."""


class RemotePeer(_Peer):
    """A directory of another machine, reached by ssh."""

    kind: Literal["remote"]
    """`remote`"""

    host: str | None = None
    """The machine: a host name or an address; by default the peer's name."""

    user: str | None = None
    """Who to be there; by default the name of the user who runs ssh."""

    port: Annotated[int, Field(ge=1, le=65_535)] = SSH_PORT
    """The port of its ssh server."""

    known_hosts: AbsolutePath
    """The file with its host key. A host that is not in it is refused."""

    accept_new_host_key: bool = False
    """Whether the key of a host that is not in `known_hosts` yet is taken at first sight, and written there."""

    identity_file: AbsolutePath | None = None
    """The private key; nobody else may read it, it has no passphrase. No agent is asked, none is forwarded."""

    ssh_config: AbsolutePath | None = None
    """A configuration file of ssh to read, for a jump host for instance. What is set here stands above it."""

    ssh_options: Mapping[str, str] = {}
    """Further options as `ssh_config` has them, of those that cannot undo what is pinned: Ciphers, HostKeyAlias..."""

    local_user: str | None = None
    """Who runs ssh on this side, where the worker is root and its keys are another user's."""

    transfer: Literal["auto", "rsync", "scp", "rcp"] = "auto"
    """How files come: `rsync`, `scp` (its protocol of today, sftp), `rcp` for what `rcp_command` says; `auto` is rsync
    where the peer has it, otherwise scp."""

    rcp_command: Words | None = None
    """A program that is called as rcp is, with its options: `[rcp, -p]`. It finds port and keys for itself."""

    bandwidth_bytes_per_second: Annotated[int, Field(ge=1_024)] | None = None
    """How fast the peer's files may come at most."""

    silence_seconds: Seconds = 300
    """After how long without a byte, or a sign of life, the transfer counts as cut."""

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        try:
            # The peer's name stands in for a host that is not given, and is looked at in `StageOptions`.
            self.ssh("peer")
        except HoldfastError as error:
            raise ValueError(str(error)) from error
        if self.collect_indicator is None and self.stage_indicator is not None:
            raise ValueError("without a collect_indicator nothing tells what a stage_indicator answers: set it to null")
        if (self.transfer == "rcp") != (self.rcp_command is not None):
            raise ValueError("transfer: rcp and rcp_command need each other")
        return self

    def ssh(self, name: str) -> Ssh:
        """How the peer of this name is reached. Raises PermanentError for what ssh would not take."""
        return Ssh(
            host=name if self.host is None else self.host,
            user=self.user,
            port=self.port,
            identity_file=self.identity_file,
            known_hosts=self.known_hosts,
            config_file=self.ssh_config,
            options=self.ssh_options,
            accept_new=self.accept_new_host_key,
            local_user=self.local_user,
        )


Peer = Annotated[LocalPeer | RemotePeer, Field(discriminator="kind")]


class ManagedAction(_Options):
    """Something that managed peers can be made to do."""

    command: Words
    """The program and its arguments, each a text of its own: no shell is asked. `{full}` becomes `--full` when the
    whole is asked for, and is left out otherwise."""

    deadline_seconds: Seconds = 3_600
    """How long it may take on one peer."""


class StageOptions(_Options):
    """What peers have collected, in one set."""

    peers: Annotated[Mapping[PeerName, Peer], Field(min_length=1)]
    """Whose files are staged, each under a name of your choice: `peers/<name>/...` in the set."""

    parallel: Annotated[int, Field(ge=1, le=16)] = 2
    """How many peers are staged at the same time."""

    owner: OwnerText | None = None
    """Whom staged files and directories belong to, as `user:group`, names or numbers. By default they keep owner and
    group by number where the worker is root, and belong to the worker's user otherwise."""

    mode: ModeText | None = None
    """The permission bits of staged files. By default they keep theirs; set-id and sticky bits never stay."""

    directory_mode: ModeText | None = None
    """The permission bits of staged directories. By default they keep theirs; set-id and sticky bits never stay."""

    starting_day: Day = "mon"
    """On this day of the week, by the worker's local time, the run is a weekly one; so is every run for which a full
    backup was asked for. All others are daily ones. Only `ignore_failures` goes by it."""

    done_indicator: AbsolutePath | None = None
    """A file of this machine that is written after a run in which every required peer was staged, once the set is
    committed and verified. It is removed when the next run begins that has something to stage, or fails."""

    managed_actions: Mapping[PeerName, ManagedAction] = {}
    """What managed peers may be made to do, by name: `collect`, `purge`... Nothing else is ever run on them."""

    @field_validator("peers")
    @classmethod
    def _told_apart(cls, peers: Mapping[str, LocalPeer | RemotePeer]) -> Mapping[str, LocalPeer | RemotePeer]:
        problems = []
        seen: dict[str, str] = {}
        for name, peer in peers.items():
            other = seen.setdefault(name.lower(), name)
            if other != name:
                problems.append(f"{other} and {name} are told apart only by case")
            if isinstance(peer, RemotePeer) and peer.host is None:
                try:
                    checked_host(name)
                except PermanentError:
                    problems.append(f"{name} is no host name: say which host it is")
            if peer.collect_indicator is not None and peer.collect_indicator == peer.stage_indicator:
                problems.append(f"{name}: the collect indicator cannot be the stage indicator")
        if problems:
            raise ValueError("; ".join(problems))
        return peers

    @model_validator(mode="after")
    def _links_stay_as_they_are(self) -> Self:
        linked = [name for name, peer in self.peers.items() if isinstance(peer, LocalPeer) and peer.hard_link]
        if linked and (self.owner is not None or self.mode is not None):
            raise ValueError(
                f"owner and mode cannot be set where hard_link is ({', '.join(linked)}): they would be changed for the "
                "peer, too"
            )
        return self

    @model_validator(mode="after")
    def _actions_have_peers(self) -> Self:
        if self.managed_actions and not any(peer.managed for peer in self.peers.values()):
            raise ValueError("managed_actions needs a peer that is managed: managed: true")
        if not self.managed_actions and any(peer.managed for peer in self.peers.values()):
            raise ValueError("managed: true needs managed_actions, the list of what a peer may be made to do")
        return self


def owner_of(text: str) -> tuple[int, int]:
    """User and group of `user:group` on this machine. Raises PermanentError where there is no such user or group."""
    user, _, group = text.partition(":")
    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise PermanentError(f"there is no such user or group on this machine: {text}") from error
    return uid, gid
