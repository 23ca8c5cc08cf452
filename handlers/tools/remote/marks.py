"""Small files in a peer's directory that tell what state it is in: looks at one, writes one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import NewType

from handlers.errors import PermanentError, TemporaryError
from handlers.tools.process import Answer
from handlers.tools.remote.names import checked_directory, is_below
from handlers.tools.remote.shell import NoShellThere, run_remote
from handlers.tools.remote.ssh import Ssh

Identity = NewType("Identity", str)
"""Differs once a file was written anew or touched; means nothing beyond that. Safe in JSON."""

_DEADLINE = timedelta(minutes=5)

# What `stat` gives differs by system; the sum of the content stands in where it has no fractions of seconds.
_COMMON = r"""
LC_ALL=C TZ=UTC; export LC_ALL TZ
token=$1 seen=./$3
say() { printf '\000%s %s\000' "$token" "$1"; exit 0; }
identity() {
    [ -f "$seen" ] || return 1
    facts=$(stat -L -c '%i %s %y' "$seen" 2>/dev/null) || facts=$(stat -L -f '%i %z %Fm' "$seen" 2>/dev/null) ||
        facts=$(ls -ilnL "$seen") || return 1
    sum=$(cksum <"$seen" 2>/dev/null) || sum=unread
    printf '%s %s' "${facts% ./*}" "$sum"
}
cd "$2" || say nodir
now=$(identity) || say gone
"""

# A name without a file is no mark; nothing is printed of what the mark says.
_LOOK = (
    _COMMON
    + r"""
mark=./$4 answer=
if [ -n "$4" ] && [ -f "$mark" ] && [ -r "$mark" ]; then
    while read -r word rest; do
        [ "$word" = answers ] || continue
        [ "$rest" = "$now" ] && { answer=this; break; }
        answer=other
    done <"$mark"
fi
say "seen${answer:+-$answer} $now"
"""
)

# If we die half way, a temporary file stays, and the next one to write removes it: its name is always the same. Two
# writers at once: the second removes the first one's file, whose chown, chmod or mv then fails. If the indicator
# changes after the last look, in the moment before `mv`, nobody can tell: no file system knows such a condition.
_WRITE = (
    _COMMON
    + r"""
failed() { rm -f "$new"; say failed; }
[ "$now" = "$4" ] || say changed
mark=./$5 new=./.$5.holdfast
[ -d "$mark" ] && { echo "$mark is a directory" >&2; say failed; }
umask 077
rm -f "$new" && (set -C && cat >"$new") && { [ -z "$7" ] || chown "$7" "$new"; } && chmod "$6" "$new" || failed
now=$(identity) || { rm -f "$new"; say gone; }
[ "$now" = "$4" ] || { rm -f "$new"; say changed; }
mv -f "$new" "$mark" || failed
say written
"""
)

_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?::[A-Za-z0-9_][A-Za-z0-9_.+-]*)?")
_IDENTITY = re.compile(r"[ -~]{1,400}")


class Marked(StrEnum):
    """What became of a mark to write."""

    WRITTEN = "written"
    CHANGED = "changed"
    """Not written: the indicator is another one by now."""
    GONE = "gone"
    """Not written: there is no indicator any more, or no directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A file to write."""

    name: str
    content: bytes = b""
    mode: int = 0o644
    owner: str | None = None
    """`user`, `user:group` or numbers, as chown takes them; None leaves it to the peer."""

    def __post_init__(self) -> None:
        _checked_name(self.name)
        if self.owner is not None and not _OWNER.fullmatch(self.owner):
            raise PermanentError(f"not an owner for {self.name}: {self.owner!r}", hint="user, or user:group")


def look_at_indicator(
    ssh: Ssh, directory: bytes, name: str, *, checkpoint: Callable[[], None] | None = None
) -> Identity | None:
    """Which indicator is there; None where there is none (any regular file of that name is one, empty or not).

    Raises as `run_remote` does; PermanentError where there is no such directory or it may not be entered; NoShellThere.
    """
    seen = look_at_answer(ssh, directory, name, None, checkpoint=checkpoint)
    return None if seen is None else seen[0]


def look_at_answer(
    ssh: Ssh, directory: bytes, name: str, mark: str | None, *, checkpoint: Callable[[], None] | None = None
) -> tuple[Identity, bool | None] | None:
    """Which indicator is there, and whether the mark has a line `answers IDENTITY` with it; see `look_at_indicator`.

    None instead of the second where there is no mark, or none that says what it answers.
    """
    arguments: list[str | bytes] = [checked_directory(directory), _checked_name(name)]
    arguments.append("" if mark is None else _checked_name(mark))
    verdict, said = _ask(ssh, _LOOK, arguments, checkpoint=checkpoint)
    match verdict.partition(" "):
        case ("seen", _, identity):
            return _checked_identity(ssh, identity), None
        case ("seen-this" | "seen-other" as seen, _, identity):
            return _checked_identity(ssh, identity), seen == "seen-this"
        case ("gone", _, _):
            return None
        case ("nodir", _, _):
            raise PermanentError(f"{ssh.host}: the directory is not there, or cannot be entered: {said}")
    raise _senseless(ssh, verdict)


def write_mark(
    ssh: Ssh,
    directory: bytes,
    mark: Mark,
    *,
    indicator: str,
    identity: Identity,
    checkpoint: Callable[[], None] | None = None,
) -> Marked:
    """Write the mark in one step (a reader sees it whole or not at all), only while the indicator is that one.

    Safe to repeat. Raises as `run_remote` does; PermanentError where it cannot be written there; NoShellThere.
    """
    arguments: list[str | bytes] = [
        checked_directory(directory),
        _checked_name(indicator),
        _checked_identity(ssh, identity),
        mark.name,
        f"{mark.mode:04o}",
        mark.owner or "",
    ]
    verdict, said = _ask(ssh, _WRITE, arguments, content=mark.content, checkpoint=checkpoint)
    match verdict:
        case "written":
            return Marked.WRITTEN
        case "changed":
            return Marked.CHANGED
        case "gone" | "nodir":
            return Marked.GONE
        case "failed":
            raise PermanentError(f"{ssh.host}: cannot write {mark.name}: {said or 'nobody says why'}")
    raise _senseless(ssh, verdict)


def _ask(
    ssh: Ssh,
    script: str,
    arguments: Sequence[str | bytes],
    *,
    content: bytes = b"",
    checkpoint: Callable[[], None] | None,
) -> tuple[str, str]:
    """The script's verdict, and what it wrote to stderr."""
    token = secrets.token_hex(16)
    answer = run_remote(
        ssh,
        ["sh", "-c", script, "sh", token, *arguments],
        input=content,
        deadline=_DEADLINE,
        checkpoint=checkpoint,
    )
    return _verdict(ssh, token.encode(), answer), answer.stderr


def _verdict(ssh: Ssh, token: bytes, answer: Answer) -> str:
    # The login scripts there may print something before.
    for record in answer.stdout.split(b"\0"):
        if record.startswith(token + b" "):
            return record.removeprefix(token + b" ").decode("ascii", "backslashreplace")
    if answer.code in {129, 130, 137, 143}:
        raise TemporaryError(f"{ssh.host}: the command was ended by signal {answer.code - 128}")
    raise NoShellThere(
        f"{ssh.host} does not run a shell for us (exit code {answer.code}): {answer.stderr or 'it says nothing'}",
        hint="is there a forced command, or sftp only?",
    )


def _checked_name(name: str) -> str:
    if not is_below(name.encode()) or "/" in name:
        raise PermanentError(f"not the name of a file: {name!r}")
    return name


def _checked_identity(ssh: Ssh, identity: str) -> Identity:
    if not _IDENTITY.fullmatch(identity):
        raise _senseless(ssh, identity)
    return Identity(identity)


def _senseless(ssh: Ssh, said: str) -> PermanentError:
    return PermanentError(f"{ssh.host} gives an answer that makes no sense: {said[:200]!r}")
