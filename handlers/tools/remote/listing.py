"""What is in a directory of a peer, as the peer tells it: names, types, sizes, times, SHA-256.

One shell script does it, of what POSIX has, with what GNU, busybox or BSD programs can tell in addition. It prints
records that end with NUL, so that a name can be anything; `listing_records` reads them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from handlers.errors import PermanentError, TemporaryError
from handlers.tools.remote.listing_records import Records, RemoteEntry
from handlers.tools.remote.names import checked_directory
from handlers.tools.remote.shell import NoShellThere, stream_remote
from handlers.tools.remote.ssh import Ssh

__all__ = ["RemoteEntry", "RemoteListing", "list_remote"]

_SCRIPT = r"""
LC_ALL=C TZ=UTC; export LC_ALL TZ
token=$1
printf '\000%s begin\000' "$token"
cd "$2" || { printf '%s nodir\000' "$token"; exit 0; }
command -v find >/dev/null || { printf '%s nofind\000' "$token"; exit 0; }

if find . -prune -printf '' 2>/dev/null; then
    printf '%s pairs exact\000' "$token"
    find . ! -name . -printf '%y %m %s %T@\000%p\000'
elif stat -c %f . >/dev/null 2>&1; then
    printf '%s batches\000' "$token"
    find . ! -name . -exec sh -c '
        if out=$(stat -c "%f %s %Y" "$@" 2>/dev/null); then
            printf "%s" "$out"; printf "\000%s" "$@"; printf "\000\000"
        else
            for one do
                out=$(stat -c "%f %s %Y" "$one") && printf "%s\000%s\000\000" "$out" "$one"
            done
        fi; :' sh {} +
elif stat -f %Xp . >/dev/null 2>&1; then
    printf '%s batches\000' "$token"
    find . ! -name . -exec sh -c '
        for one do
            out=$(stat -f "%Xp %z %m" "$one") && printf "%s\000%s\000\000" "$out" "$one"
        done; :' sh {} +
else
    printf '%s pairs\000' "$token"
    failed=0
    for type in d f l p s b c; do
        find . ! -name . -type $type -exec sh -c 'type=$1; shift
            for one do printf "%s\000%s\000" $type "$one"; done' sh $type {} + || failed=$?
    done
    (exit $failed)
fi
found=$?

sums=
if [ "$3" = sums ]; then
    for one in sha256sum 'shasum -a 256' 'sha256 -r'; do
        command -v ${one%% *} >/dev/null && sums=$one && break
    done
fi
if [ -n "$sums" ]; then
    printf '%s sums\000' "$token"
    find . -type f -exec sh -c 'sums=$1; shift
        $sums "$@"; printf "\000%s" "$@"; printf "\000\000"' sh "$sums" {} +
fi
printf '%s end %s\000' "$token" "$found"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteListing:
    """All below one directory of a peer, at about one moment. Nothing in it can be trusted but its form."""

    entries: Mapping[bytes, RemoteEntry]
    """By path relative to the directory; without the directory itself. No path leads out of it, or through a file."""
    has_sums: bool
    """Whether the peer has a program for SHA-256 (and sums were asked for)."""
    exact_times: bool
    """Whether times are as exact as the file system there has them; else in whole seconds."""
    troubles: tuple[str, ...]
    """What the peer's programs complained of, for instance directories they may not read; the last lines."""
    complete: bool
    """Whether the peer's `find` came through without an error."""


def list_remote(
    ssh: Ssh,
    directory: bytes,
    *,
    sums: bool = True,
    deadline: timedelta = timedelta(hours=1),
    checkpoint: Callable[[], None] | None = None,
    max_names: int = 200_000,
    max_bytes: int = 512 << 20,
) -> RemoteListing:
    """One command on the peer, for any POSIX shell with `find`; `directory` is absolute.

    Raises as `run_remote` does; PermanentError for a directory that is not there or cannot be entered, for names that
    cannot be, for more than the limits; NoShellThere; TemporaryError for an answer that breaks off.
    """
    token = secrets.token_hex(16)
    records = Records(token.encode(), max_names=max_names, max_bytes=max_bytes, peer=ssh.host)
    wanted = "sums" if sums else "no-sums"
    argv: list[str | bytes] = ["sh", "-c", _SCRIPT, "sh", token, checked_directory(directory), wanted]

    ended = stream_remote(ssh, argv, records.take, deadline=deadline, checkpoint=checkpoint)
    if not records.begun:
        raise NoShellThere(
            f"{ssh.host} does not run a shell for us (exit code {ended.code}): {ended.stderr or 'it says nothing'}",
            hint="is there a forced command, or sftp only?",
        )
    if records.refusal is not None:
        raise PermanentError(f"{ssh.host}: {records.refusal}: {ended.stderr or directory!r}")
    if records.find_code is None:
        raise TemporaryError(f"the listing of {ssh.host} breaks off (exit code {ended.code})", hint=ended.stderr)
    return RemoteListing(
        entries=records.finish(),
        has_sums=records.has_sums,
        exact_times=records.exact_times,
        troubles=tuple(ended.stderr.splitlines()),
        complete=records.find_code == 0,
    )
