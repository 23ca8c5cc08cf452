"""What the kernel does not tell: mounts, lost events, used up watches, closed directories; and very many of them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.workshop.another_user import needs_another_user
from tests.workshop.indicating import Desk, at_work, touch
from tests.workshop.workers import HOLDFAST, Hire, Worker, wait_for
from worker.mounts import kinds_by_device

NEVER = 3600


@pytest.fixture
def collect(tmp_path: Path) -> Path:
    directory = tmp_path / "collect"
    (directory / "web").mkdir(parents=True)
    return directory


@contextmanager
def mounted(directory: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "none", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@needs_another_user
def test_what_is_mounted_over_a_directory_is_seen_at_once(collect: Path) -> None:
    """And what is below it when that is unmounted again; inotify tells of neither."""
    desk = Desk()
    with at_work(desk, collect / "*", scan_seconds=NEVER):
        touch(collect / "web")
        wait_for(lambda: len(desk.deliveries) == 1)
        with mounted(collect / "web"):
            touch(collect / "web")
            wait_for(lambda: len(desk.deliveries) == 2)
            touch(collect / "web")
            wait_for(lambda: len(desk.deliveries) == 3)
        wait_for(lambda: len(desk.deliveries) == 4)
        touch(collect / "web")
        wait_for(lambda: len(desk.deliveries) == 5)

    assert desk.ids[0] == desk.ids[3]
    assert len(set(desk.ids)) == 4


@needs_another_user
def test_mount_over_the_whole_is_seen(collect: Path) -> None:
    """Its directories are others than before."""
    desk = Desk()
    with at_work(desk, collect / "*", scan_seconds=NEVER), mounted(collect):
        (collect / "db").mkdir()
        touch(collect / "db")
        wait_for(lambda: len(desk.deliveries) == 1)


@needs_another_user
def test_changes_below_an_overlay_are_found_by_polling(collect: Path, tmp_path: Path) -> None:
    """The kernel does not tell of what happens in its lower directory."""
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={collect},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
    seen = tmp_path / "seen"
    seen.mkdir()
    touch(collect / "web")
    if subprocess.run(["mount", "-t", "overlay", "-o", layers, "none", str(seen)], capture_output=True).returncode:
        pytest.skip("no overlay on this file system")
    try:
        desk = Desk()
        with at_work(desk, seen / "*", scan_seconds=NEVER, poll_seconds=0.1):
            wait_for(lambda: len(desk.deliveries) == 1)
            os.utime(collect / "web" / "cback.collect")
            wait_for(lambda: len(desk.deliveries) == 2)
    finally:
        subprocess.run(["umount", str(seen)], check=True)


def test_kinds_of_file_systems_are_known_by_device(tmp_path: Path) -> None:
    """As the kernel lists them."""
    table = "36 35 98:0 / /mnt rw - ext4 /dev/root rw\n40 35 0:44 / /nfs\\040x rw shared:1 - nfs4 host:/ rw\nodd\n"

    assert kinds_by_device(table) == {os.makedev(98, 0): "ext4", os.makedev(0, 44): "nfs4"}


def test_lost_events_make_it_look_everywhere(hire: Hire, collect: Path, tmp_path: Path) -> None:
    """The kernel's queue is full while the worker stands still; what was touched after that is found all the same."""
    noisy = collect / "noisy"
    noisy.mkdir()
    worker = _hired(hire, collect, tmp_path)
    worker.start()
    wait_for(lambda: bool(_watches(worker)))
    assert worker.process is not None
    worker.process.send_signal(signal.SIGSTOP)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(limit // 2 + 100):
        (noisy / f"{number % 2}").open("w").close()
    touch(collect / "web")

    worker.process.send_signal(signal.SIGCONT)

    wait_for((collect / "web" / "cback.stage").exists)
    assert worker.stop() == 0


@pytest.mark.skipif(not Path("/proc/sys/user/max_inotify_watches").exists(), reason="limits of user namespaces")
@needs_another_user
def test_used_up_watches_are_told_once_and_polled(hire: Hire, collect: Path, tmp_path: Path) -> None:
    """With what to set; the limit is that of a user namespace of the test's own."""
    for number in range(20):
        (collect / f"peer-{number}").mkdir()
    worker = _hired(hire, collect, tmp_path, scan_seconds=1, poll_seconds=0.2)
    limited = f"echo 8 > /proc/sys/user/max_inotify_watches; exec {HOLDFAST} --config {worker.config} run"
    with worker.log.open("ab") as log:
        worker.process = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "sh", "-c", limited], stdout=log, stderr=log
        )
    wait_for(lambda: b'"indicator_directories_unwatched"' in worker.log.read_bytes() or worker.ended)

    for number in range(20):
        touch(collect / f"peer-{number}")

    for number in range(20):
        wait_for((collect / f"peer-{number}" / "cback.stage").exists)
    assert worker.stop() == 0
    log_lines = [line for line in worker.log.read_bytes().splitlines() if b'"indicator_directories_unwatched"' in line]
    assert len(log_lines) == 1
    assert b"max_user_watches" in log_lines[0]
    assert b"looked at every 0.2 seconds" in log_lines[0]


def test_directory_that_is_closed_is_told_once_and_seen_when_it_is_opened(
    hire: Hire, collect: Path, tmp_path: Path
) -> None:
    """For a worker without root's rights."""
    worker = _hired(hire, collect, tmp_path, scan_seconds=0.2)
    touch(collect / "web")
    (collect / "web").chmod(0)
    command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"] if os.geteuid() == 0 else []
    with worker.log.open("ab") as log:
        command += [str(HOLDFAST), "--config", str(worker.config), "run"]
        worker.process = subprocess.Popen(command, stdout=log, stderr=log)
    (collect / "db").mkdir()
    touch(collect / "db")
    wait_for((collect / "db" / "cback.stage").exists)

    (collect / "web").chmod(0o700)

    wait_for((collect / "web" / "cback.stage").exists)
    assert worker.stop() == 0
    assert worker.log.read_bytes().count(b'"indicator_unseen"') == 1


def test_ten_thousand_directories_take_one_inotify_instance_and_no_thread_each(collect: Path) -> None:
    """A few MiB, a scan of under a few seconds, and each is seen at once."""
    for number in range(10_000):
        (collect / f"peer-{number:05}").mkdir()
    process = psutil.Process()
    before, threads = process.memory_info().rss, threading.active_count()
    desk = Desk()

    with at_work(desk, collect / "*", scan_seconds=NEVER):
        touch(collect / "peer-05000")
        wait_for(lambda: len(desk.deliveries) == 1)
        touch(collect / "peer-09999")
        wait_for(lambda: len(desk.deliveries) == 2)
        assert threading.active_count() <= threads + 2
        assert process.memory_info().rss - before < 64 << 20

        used = process.cpu_times().user + process.cpu_times().system
        for number in range(0, 10_000, 10):
            touch(collect / f"peer-{number:05}")
        wait_for(lambda: len(desk.deliveries) == 1002)

    assert len(set(desk.ids)) == 1002
    assert process.cpu_times().user + process.cpu_times().system - used < 10


def _hired(
    hire: Hire, collect: Path, tmp_path: Path, *, scan_seconds: float = NEVER, poll_seconds: float = 5
) -> Worker:
    (tmp_path / "subject").mkdir()
    pool = {
        "directories": [f"{collect}/*"],
        "plan": "web",
        "scan_seconds": scan_seconds,
        "poll_seconds": poll_seconds,
    }
    return hire(tmp_path / "n1", tmp_path / "subject", tmp_path / "store", indicators={"pool": pool})


def _watches(worker: Worker) -> list[str]:
    assert worker.process is not None
    files = Path(f"/proc/{worker.process.pid}/fdinfo").iterdir()
    return [line for file in files for line in file.read_text().splitlines() if line.startswith("inotify wd:3")]
