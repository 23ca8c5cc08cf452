"""The lock between processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from handlers.tools.lock import Lock

PROJECT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from handlers.tools.lock import Lock
lock = Lock.try_hold(Path(sys.argv[1]))
print(lock is not None, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the lock is."""
    return tmp_path / "lock"


def test_one_holder_at_a_time(path: Path) -> None:
    """The second gets nothing until the first lets go, in the same process, too."""
    first = Lock.try_hold(path)
    assert first is not None

    assert Lock.try_hold(path) is None
    first.release()
    second = Lock.try_hold(path)

    assert second is not None
    second.release()


def test_a_released_lock_stays_released(path: Path) -> None:
    """Letting go twice does not take the lock from its next holder."""
    first = Lock.try_hold(path)
    assert first is not None
    first.release()
    second = Lock.try_hold(path)

    first.release()
    first.remove()

    assert second is not None
    assert path.exists()
    assert Lock.try_hold(path) is None
    second.release()


def test_leaving_the_block_releases(path: Path) -> None:
    """Also by an error."""
    held = Lock.try_hold(path)
    assert held is not None

    with pytest.raises(ZeroDivisionError), held:
        raise ZeroDivisionError

    with Lock.try_hold(path) or pytest.fail("still held"):
        assert path.exists()


def test_the_kernel_frees_the_lock_of_a_killed_process(path: Path) -> None:
    """No file has to be removed by hand."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        during = Lock.try_hold(path)
        process.send_signal(signal.SIGKILL)

    after = Lock.try_hold(path)

    assert during is None
    assert after is not None
    after.release()


def test_a_program_that_we_start_does_not_keep_the_lock(path: Path) -> None:
    """It may outlive us."""
    lock = Lock.try_hold(path)
    assert lock is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as process:
        lock.release()

        again = Lock.try_hold(path)

        process.communicate(b"\n")
    assert again is not None
    again.release()


def test_a_removed_lock_leaves_no_file(path: Path) -> None:
    """The next holder makes a new one."""
    lock = Lock.try_hold(path)
    assert lock is not None

    lock.remove()

    assert not path.exists()
    with Lock.try_hold(path) or pytest.fail("still held"):
        assert path.exists()


def test_removing_never_lets_two_in(path: Path) -> None:
    """Threads that hold and remove the same lock in turns are never inside together."""
    inside = 0
    most = 0
    rounds = 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal inside, most, rounds
        done = 0
        while done < 200:
            lock = Lock.try_hold(path)
            if lock is None:
                continue
            with counting:
                inside += 1
                most = max(most, inside)
            done += 1
            with counting:
                inside -= 1
                rounds += 1
            lock.remove()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (rounds, most) == (800, 1)
    assert not path.exists()


def test_a_lock_in_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """It is not taken for a lock that somebody else holds."""
    with pytest.raises(FileNotFoundError):
        Lock.try_hold(tmp_path / "missing" / "lock")
