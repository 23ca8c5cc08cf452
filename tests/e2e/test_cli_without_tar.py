"""The whole program on a host whose `tar` is not GNU tar, or that has none; what it stores is unpacked by GNU tar."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workshop import UNPRIVILEGED, Workshop
from tests.workshop.comparer import differences, photograph
from tests.workshop.furnished import furnish

ABSENT = "program tar not found"


class Bare(Workshop):
    """Where PATH leads to one directory of ours."""

    @property
    def tools(self) -> Path:
        """What is on PATH."""
        return self.top / "bin"

    def environment(self) -> dict[str, str]:
        """Without the programs of this machine."""
        return {**super().environment(), "PATH": str(self.tools)}

    def put_busybox(self) -> Path:
        """A `tar` that answers as busybox does."""
        fake = self.tools / "tar"
        fake.write_text(
            "#!/bin/sh\n"
            "case $1 in --version) echo 'tar (busybox) 1.36.1' ;;\n"
            "*) echo 'tar: unrecognized option' >&2; exit 1 ;; esac\n"
        )
        fake.chmod(0o755)
        return fake

    def manifest(self, backup_id: str) -> dict[str, Any]:
        """What the set says of itself."""
        return dict(json.loads((self.store / "web" / backup_id / "manifest.json").read_bytes()))


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    place = Bare(tmp_path)
    place.tools.mkdir()
    yield place
    place.close()


def by_gnu_tar(made: Path, target: Path) -> Path:
    """Unpacked as RESTORE.md says."""
    target.mkdir()
    script = "".join(block.partition("```")[0] for block in (made / "RESTORE.md").read_text().split("```sh\n")[1:3])
    subprocess.run(["bash", "-c", script], cwd=made, env={"PATH": "/usr/bin:/bin", "TARGET": str(target)}, check=True)
    return target


@pytest.mark.parametrize("with_busybox", [False, True])
def test_a_full_backup_is_made_and_says_why(bare: Bare, tmp_path: Path, with_busybox: bool) -> None:
    """It verifies, restores and compares here; and by hand with GNU tar it is the same tree."""
    why = f"{bare.put_busybox()} is not GNU tar" if with_busybox else ABSENT
    (bare.subject / "d" / "sub").mkdir(parents=True)
    for name in ("plain", "d/a", "d/sub/deep"):
        (bare.subject / name).write_text(name * 500)
    furnish(bare.subject)

    made = bare.backup()

    assert bare.manifest(made)["level"] == 0
    assert bare.manifest(made)["tools"] == {"tar": f"internal, because {why}: level 0 only"}
    assert bare.run("verify", made, "--deep").returncode == 0
    assert bare.run("restore", made, str(tmp_path / "ours")).returncode == 0
    expected = photograph(bare.subject)
    assert differences(expected, photograph(tmp_path / "ours")) == []
    assert differences(expected, photograph(by_gnu_tar(bare.store / "web" / made, tmp_path / "by-hand"))) == []


def test_every_backup_is_a_full_one_and_a_level_is_refused(bare: Bare) -> None:
    """With a clear word: exit code 4, as for everything that is refused."""
    bare.backup()

    again = bare.manifest(bare.backup())
    refused = bare.run("backup", "web", "--level", "1")

    assert (again["level"], again["parent"]) == (0, None)
    assert "above level 0, the highest" in again["level_reason"]
    assert refused.returncode == 4
    assert "makes no level above 0" in refused.stderr
    assert "`holdfast doctor` says why" in refused.stderr
    assert len(bare.sets()) == 2


def test_neither_engine_builds_upon_a_set_of_the_other(bare: Bare) -> None:
    """GNU tar goes away, and comes back."""
    (bare.tools / "env").symlink_to("/usr/bin/env")
    gnu = bare.tools / "tar"
    gnu.symlink_to("/usr/bin/tar")
    chain = [bare.manifest(bare.backup())["level"] for _ in range(2)]
    gnu.unlink()
    without = bare.manifest(bare.backup())
    gnu.symlink_to("/usr/bin/tar")
    after = [bare.manifest(bare.backup()) for _ in range(2)]

    assert chain == [0, 1]
    assert (without["level"], without["parent"]) == (0, None)
    assert [made["level"] for made in after] == [0, 1]
    assert after[1]["parent"] == after[0]["backup_id"]


def test_a_plan_that_insists_on_gnu_tar_fails_with_a_hint(bare: Bare) -> None:
    """Rather than to do something else than the operator asked for."""
    bare.config.write_text(bare.config.read_text().replace("options: {root:", "options: {engine: gnu, root:"))

    done = bare.run("backup", "web")

    assert done.returncode == 1
    assert ABSENT in done.stderr
    assert "install GNU tar" in done.stderr


def test_unreadable_files_make_the_outcome_partial(bare: Bare) -> None:
    """As with GNU tar: named, and never called a success."""
    (bare.subject / "secret").write_text("secret")
    (bare.subject / "secret").chmod(0)

    done = bare.run(
        "backup",
        "web",
        "--json",
        prefix=["/usr/bin/env", "PATH=/usr/bin:/bin", *UNPRIVILEGED, "/usr/bin/env", f"PATH={bare.tools}"],
    )

    assert done.returncode == 3
    (made,) = bare.sets()
    problems = json.loads((made / "manifest.json").read_bytes())["problems"]
    assert problems == [{"kind": "unreadable", "path": "secret", "detail": "Cannot open: Permission denied"}]


def test_doctor_says_which_engine_a_plan_uses_and_why(bare: Bare) -> None:
    """And which programs are there for a restore by hand."""
    fake = bare.put_busybox()
    (bare.tools / "xz").symlink_to("/usr/bin/xz")

    found = {line["check"]: line for line in bare.lines("doctor")}

    assert found["tar engine of plan web"]["verdict"] == "WARN"
    assert found["tar engine of plan web"]["message"] == f"internal, because {fake} is not GNU tar: level 0 only"
    assert "install GNU tar" in found["tar engine of plan web"]["hint"]
    assert found["codecs"]["message"] == "for a restore by hand: xz; not here: zstd, gzip, bzip2"


def test_doctor_names_the_version_of_gnu_tar(bare: Bare) -> None:
    """Where it is the one that is used."""
    (bare.tools / "tar").symlink_to("/usr/bin/tar")

    found = {line["check"]: line for line in bare.lines("doctor")}

    assert found["tar engine of plan web"]["verdict"] == "OK"
    assert found["tar engine of plan web"]["message"].startswith("GNU tar 1.")
