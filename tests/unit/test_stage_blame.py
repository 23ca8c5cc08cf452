"""Who is to blame where a file cannot be read or written: the file, the peer, or our own disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.peers.entering import cannot, entered
from handlers.tools.peers.files import NotPossible, our_place
from handlers.tools.peers.pulse import OurDisk
from handlers.tools.peers.side_by_side import stat_at


@pytest.mark.parametrize("code", ["EILSEQ", "EINVAL", "ENAMETOOLONG", "EFBIG", "EOPNOTSUPP"])
def test_what_our_file_system_does_not_take_is_a_trouble_of_one_file(code: str) -> None:
    """The others can be staged all the same."""
    with pytest.raises(NotPossible, match="the file system of the set does not take it") as caught, our_place(b"x"):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    assert caught.value.kind is ProblemKind.OTHER


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EIO", "EROFS", "ENODEV", "ESTALE"])
def test_a_disk_of_ours_that_fails_is_no_fault_of_a_file(code: str) -> None:
    """It would fail for the next one, too."""
    with pytest.raises(OurDisk, match="cannot write x into the set"), our_place(b"x"):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))


def test_a_name_that_cannot_be_is_not_there(tmp_path: Path) -> None:
    """Where names are shorter here than at the peer, a retry looks for one that was never written."""
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert stat_at(directory, b"x" * 300) is None
    finally:
        os.close(directory)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("EIO", TemporaryError),
        ("ESTALE", TemporaryError),
        ("ETIMEDOUT", TemporaryError),
        ("EHOSTDOWN", TemporaryError),
        ("EACCES", PermanentError),
        ("ENOENT", PermanentError),
    ],
)
def test_a_server_that_is_away_may_come_back(code: str, kind: type[Exception]) -> None:
    """What a network file system says then passes; a directory that is not there does not."""
    number = getattr(errno, code)

    assert type(cannot("collect directory /srv", OSError(number, os.strerror(number)))) is kind


def test_a_link_in_the_place_of_a_collect_directory_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write beside it must not choose what is staged."""
    (tmp_path / "link").symlink_to("/etc")

    with pytest.raises(PermanentError, match="Not a directory") as caught:
        entered(tmp_path / "link")

    assert caught.value.hint == "it is a symbolic link: name the directory itself"
