"""The page of a set, its commands run as they stand."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from handlers.tools.codecs import Codec
from tests.workshop.tar_levels import Plan
from tests.workshop.tar_sets import tree_of


def page_commands(page: str) -> str:
    """The shell blocks of a page, as they stand."""
    blocks = [block.split("```")[0] for block in page.split("```sh\n")[1:]]
    return "\n".join(blocks)


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_page_of_a_set_restores_its_chain(
    plan: Plan, subject: Path, tmp_path: Path, codec: Codec, shell: str
) -> None:
    """The commands of RESTORE.md, run as they stand, give the tree and one single file."""
    wanted = 'd/sub/ü "q\\n'
    (subject / wanted).write_text("first")
    os.link(subject / "plain", subject / "hard")
    (subject / "link").symlink_to("plain")
    os.setxattr(subject / "plain", "user.key", b"value")
    (subject / "filler").write_bytes(os.urandom(9 << 20))
    plan.back_up(codec=codec, strength=1)
    (subject / "d" / "a").unlink()
    (subject / "d" / "b").write_text("b")
    plan.back_up(codec="zstd")
    (subject / "d" / "sub").chmod(0o700)
    plan.back_up(codec=codec, strength=1)
    last = plan.sets[-1].directory
    page = (last / "RESTORE.md").read_text()
    whole, single = page_commands(page).split("zstd -dc ./index.zst | head -n 20\n")

    environment = {"PATH": os.environ["PATH"], "TARGET": str(tmp_path / "whole")}
    done = subprocess.run([shell, "-eu", "-c", whole], cwd=last, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    quoted = r"./d/sub/\303\274 \"q\\n"
    environment |= {"TARGET": str(tmp_path / "single"), "NAME": quoted}
    done = subprocess.run([shell, "-eu", "-c", single], cwd=last, env=environment, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert tree_of(tmp_path / "whole") == tree_of(subject)
    assert [path for path in (tmp_path / "single").rglob("*") if path.is_file()] == [tmp_path / "single" / wanted]
    assert (tmp_path / "single" / wanted).read_text() == "first"


def test_the_page_notices_a_damaged_part(plan: Plan, tmp_path: Path) -> None:
    """Its first command is the check, and nothing is restored after it failed."""
    plan.back_up()
    last = plan.sets[-1].directory
    with (last / "data.tar.zst").open("r+b") as file:
        file.seek(100)
        file.write(b"xx")
    page = (last / "RESTORE.md").read_text()

    done = subprocess.run(
        ["sh", "-c", page_commands(page)], cwd=last, env={**os.environ, "TARGET": str(tmp_path / "no")}
    )

    assert done.returncode != 0
    assert not (tmp_path / "no").exists()
