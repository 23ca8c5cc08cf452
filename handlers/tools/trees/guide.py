"""Writes the page that tells how to restore a tree of a set without Holdfast.

Its shell blocks run as they stand, in the set's directory, with coreutils and zstd.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from handlers.contract import JSON
from handlers.tools.restore_guide import origin, shell
from handlers.tools.trees.listing import mtree_name, sums_name


def guide(manifest: Mapping[str, JSON], name: str) -> str:
    """The page for a set of which the tree of this name is restored, as Markdown."""
    tree, sums, attributes = (shlex.quote(f"./{part}") for part in (name, sums_name(name), mtree_name(name)))
    page = [
        f"# Restore {manifest['backup_id']}",
        "",
        origin(manifest),
        "",
        f"The files lie as they are in `{name}`, beside this page. You need coreutils and zstd; not Holdfast.",
        "Run the commands in the directory of this page, as root if owners are to come back too. The target must be an",
        "empty directory.",
        "",
        "## 1. Check what was stored",
        "",
        *shell(
            [
                "sha256sum -c SHA256SUMS || exit",
                f'[ -z "$(zstd -dc {sums} | head -c 1)" ] || zstd -dc {sums} | sha256sum -c --quiet || exit',
            ]
        ),
        "Modes, owners, times and links are listed, too. With `mtree` (Debian: mtree-netbsd) this compares all of it:",
        f"`zstd -dc {attributes} | mtree -p {tree}`; and this shows it: `zstd -dc {attributes} | bsdtar -tvf -`.",
        "",
        "## 2. Restore everything",
        "",
        *shell(
            [
                "TARGET=${TARGET:-/srv/restored}",
                'mkdir -p "$TARGET"',
                f'cp -a --no-target-directory -- {tree} "$TARGET"',
            ]
        ),
        "## 3. Or a single file or directory",
        "",
        f"Give its name as `ls {tree}` shows it, between the quotes.",
        "",
        *shell(
            [
                "TARGET=${TARGET:-/srv/restored}; NAME=${NAME:-etc/hosts}",
                'mkdir -p "$TARGET"; TARGET=$(cd -- "$TARGET" && pwd)',
                f'(cd {tree} && cp -a --parents -- "$NAME" "$TARGET")',
            ]
        ),
    ]
    return "\n".join(page)
