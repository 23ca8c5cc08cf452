"""Writes the page that tells how to restore a chain of tar sets without Holdfast.

Its shell blocks run as they stand, in the set's directory, with coreutils, grep, sed, GNU tar and the codec's program.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from handlers.contract import JSON, printable
from handlers.tools.codecs import Codec

_READERS = {
    Codec.NONE: "cat",
    Codec.ZSTD: "zstd -dc",
    Codec.GZIP: "gzip -dc",
    Codec.BZIP2: "bzip2 -dc",
    Codec.XZ: "xz -dc",
}

_EXTRACT = (
    'tar --extract --file=- --directory="$TARGET" --numeric-owner --preserve-permissions'
    " --acls --xattrs --xattrs-include='*' --warning=no-timestamp"
)
_LET_IN = 'find "$TARGET" -type d -exec chmod u+rwx {} +'
_LEVEL = f"{_EXTRACT} --listed-incremental=/dev/null"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """What the page needs to know of one set."""

    level: int
    name: str
    origin: str
    """Plan, host, time and subject, in one line."""
    directory: str
    """As seen from the directory of the last set."""
    data: str
    reader: str
    parts: frozenset[str]


def guide(manifest_chain: Sequence[Mapping[str, JSON]]) -> str:
    """The page for the last set of this chain, as Markdown. The manifests are those of the chain, oldest first."""
    last = len(manifest_chain) - 1
    levels = [_level(manifest, is_last=at == last) for at, manifest in enumerate(manifest_chain)]
    return "\n".join([*_head(levels), *_check(levels), *_whole(levels), *_single(levels), *_problems(levels[-1])])


def _level(manifest: Mapping[str, JSON], *, is_last: bool) -> _Level:
    parts = manifest["parts"]
    assert isinstance(parts, Sequence)
    records = [part for part in parts if isinstance(part, Mapping)]
    data = next(part for part in records if str(part["name"]).startswith("data.tar"))
    level = manifest["level"]
    assert isinstance(level, int)
    return _Level(
        level=level,
        name=str(manifest["backup_id"]),
        origin=origin(manifest),
        directory="." if is_last else shlex.quote(f"../{manifest['backup_id']}"),
        data=str(data["name"]),
        reader=_READERS[Codec(str(data["codec"]))],
        parts=frozenset(str(part["name"]) for part in records),
    )


def origin(manifest: Mapping[str, JSON]) -> str:
    """Plan, host, time and subject of a set, in one line."""
    plan, host, finished, subject = (
        printable(os.fsencode(str(manifest.get(name, "?")))) for name in ("plan", "host", "finished", "subject")
    )
    return f"Plan `{plan}` on host `{host}`, finished {finished}: `{subject}`."


def _head(levels: Sequence[_Level]) -> list[str]:
    last = levels[-1]
    programs = sorted({level.reader.split()[0] for level in levels} - {"cat"} | {"zstd"})
    page = [
        f"# Restore {last.name}",
        "",
        last.origin,
        "",
        f"Level {last.level}. You need {', '.join(programs)}, GNU tar and the usual small programs; not Holdfast.",
        "Run the commands in the directory of this page, as root if owners are to come back too (without root, leave",
        "out `--xattrs-include='*'`). The target must be an empty directory.",
        "",
    ]
    if len(levels) > 1:
        page += ["This level only holds what changed since the one before. All of these are needed, side by side:", ""]
        page += [f"- level {level.level}: `{level.name}`" for level in levels]
        page += [""]
    return page


def _check(levels: Sequence[_Level]) -> list[str]:
    return [
        "## 1. Check what was stored",
        "",
        *shell(f"(cd {level.directory} && sha256sum -c SHA256SUMS) || exit" for level in levels),
    ]


def _whole(levels: Sequence[_Level]) -> list[str]:
    without_root = [
        "Without root, directories that an older level left read-only are in the way of the next one. Before each",
        f"level but the first: `{_LET_IN}`",
        "",
    ]
    return [
        "## 2. Restore everything",
        "",
        "Oldest first: each level also deletes what was gone when it was made.",
        "",
        *(without_root if len(levels) > 1 else []),
        *shell(
            [
                "TARGET=${TARGET:-/srv/restored}",
                'mkdir -p "$TARGET"',
                *(f"{level.reader} {level.directory}/{level.data} | {_LEVEL} || exit" for level in levels),
            ]
        ),
        "GNU tar goes by the names of users in access control lists, where this machine knows them: if these are other",
        "users here, write `--no-acls` instead of `--acls`, as root. An extended attribute that a directory lost",
        "between two levels is still there afterwards. `holdfast restore` does both right.",
        "",
    ]


def _single(levels: Sequence[_Level]) -> list[str]:
    newest_first = " ".join(level.directory for level in reversed(levels))
    return [
        "## 3. Or a single file",
        "",
        "`index.zst` lists every member with the block of 512 bytes where it starts:",
        "",
        *shell(["zstd -dc ./index.zst | head -n 20"]),
        "This brings back one of them, reading little more than the file itself. Give its name as the listing has it,",
        "between the quotes. The newest level that lists it is taken; one that a later level deleted comes back too.",
        "Of a line with `link to`, a hard link, restore the file that it names.",
        "",
        *shell(
            [
                "TARGET=${TARGET:-/srv/restored}; NAME=${NAME:-./etc/hosts}",
                f"for SET in {newest_first}; do",
                '  BLOCK=$(zstd -dc $SET/index.zst | sed \'s/" -> ".*/"/; s/" link to ".*/"/\' \\',
                '    | grep -F " \\"$NAME\\"" | sed \'s/^block \\([0-9]*\\):.*/\\1/; q\')',
                '  [ -z "$BLOCK" ] || break',
                "done",
                '[ -n "$BLOCK" ] || { echo "no level lists $NAME"; exit 1; }',
                "read -r MAGIC VERSION CODEC FRAME_BYTES <$SET/data.frames",
                'case $CODEC in none) READ=cat ;; *) READ="$CODEC -dc" ;; esac',
                "START=$((BLOCK * 512))",
                'OFFSET=$(sed -n "$((START / FRAME_BYTES + 2)) s/ .*//p" $SET/data.frames)',
                'mkdir -p "$TARGET"',
                'tail -c "+$((OFFSET + 1))" $SET/data.tar* | $READ | tail -c "+$((START % FRAME_BYTES + 1))" \\',
                f"  | {_EXTRACT} \\",
                '    --occurrence=1 "$(printf %s "$NAME" | sed \'s/\\\\"/"/g\')"',
            ]
        ),
        "From a bucket, fetch `data.tar*` from byte `$OFFSET` on instead of the whole part.",
        "",
    ]


def _problems(last: _Level) -> list[str]:
    if "problems.zst" not in last.parts:
        return []
    return [
        "## What is missing",
        "",
        "Some files could not be archived as they should be:",
        "",
        *shell(["zstd -dc ./problems.zst"]),
    ]


def shell(lines: Iterable[str]) -> list[str]:
    """A block of commands."""
    return ["```sh", *lines, "```", ""]
