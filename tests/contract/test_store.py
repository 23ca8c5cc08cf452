"""What every store promises, held against each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.contract import BackupId, Part, PlanName
from worker.manifest import MANIFEST
from worker.stores.local import LocalStore
from worker.stores.memory import MemoryStore
from worker.stores.protocol import AlreadyCommitted, Draft, SetMissing, SetName, Store

MiB = 1 << 20


def local(folder: Path) -> Store:
    """A store in a directory."""
    folder.joinpath("store").mkdir()
    return LocalStore("nas", folder / "store")


def memory(_: Path) -> Store:
    """A store in memory."""
    return MemoryStore("nas")


STORES: dict[str, Callable[[Path], Store]] = {"local": local, "memory": memory}


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each store in turn, empty."""
    return STORES[request.param](tmp_path)


def named(backup_id: str = "first", plan: str = "photos") -> SetName:
    """The name of a set."""
    return SetName(plan=PlanName(plan), backup_id=BackupId(backup_id))


def write(draft: Draft, name: str, content: bytes) -> Part:
    """One part, written and closed."""
    part = draft.open_part(name)
    part.write(content)
    return part.close()


def committed(store: Store, name: SetName, content: bytes = b"content", manifest: bytes = b"{}") -> SetName:
    """A set with one part, `data`, and one small file, `RESTORE.md`."""
    draft = store.draft(name)
    write(draft, "data", content)
    draft.commit({"RESTORE.md": b"tar"}, manifest)
    return name


def test_a_store_has_its_configured_name(store: Store) -> None:
    """It is the one in messages."""
    assert store.name == "nas"


def test_a_committed_set_is_there_whole(store: Store) -> None:
    """Parts, small files and manifest, byte by byte."""
    name = committed(store, named(), b"\x00\xff" * 3, b'{"format":1}')

    assert store.exists(name)
    assert list(store.names()) == [name]
    assert store.read(name, "data") == b"\x00\xff" * 3
    assert store.read(name, "RESTORE.md") == b"tar"
    assert store.read(name, MANIFEST) == b'{"format":1}'


def test_a_part_tells_its_size_and_its_digest(store: Store) -> None:
    """Of exactly the bytes that were written, however they were cut."""
    draft = store.draft(named())

    part = draft.open_part("data")
    lengths = [part.write(b"abc"), part.write(bytearray(b"")), part.write(memoryview(b"defg")[1:])]
    told = part.close()

    assert lengths == [3, 0, 3]
    assert told == Part(name="data", size_bytes=6, sha256=hashlib.sha256(b"abcefg").hexdigest())
    draft.discard()


def test_a_buffer_can_be_used_again_after_a_write(store: Store) -> None:
    """What was written is what it held then."""
    draft = store.draft(named())
    part = draft.open_part("data")
    buffer = bytearray(b"first")

    part.write(buffer)
    buffer[:] = b"later"
    part.write(memoryview(buffer))
    part.close()
    draft.commit({}, b"{}")

    assert store.read(named(), "data") == b"firstlater"


def test_a_large_part_comes_back_as_it_was(store: Store) -> None:
    """Far beyond every buffer, and early write-back, on the way."""
    draft = store.draft(named())
    part = draft.open_part("data")
    chunk = bytes(range(256)) * 4096 * 4

    for _ in range(20):
        part.write(chunk)
    told = part.close()
    draft.commit({}, b"{}")

    digest = hashlib.sha256()
    lengths = []
    for piece in store.stream(named(), "data"):
        digest.update(piece)
        lengths.append(len(piece))
    assert told.size_bytes == sum(lengths) == store.size(named(), "data") == 80 * MiB
    assert digest.hexdigest() == told.sha256
    assert max(lengths) <= 8 * MiB


def test_several_parts_are_written_at_once(store: Store) -> None:
    """In turns; each keeps its own bytes."""
    draft = store.draft(named())
    one, other = draft.open_part("one"), draft.open_part("other")

    for part, chunk in [(one, b"1"), (other, b"a"), (one, b"2"), (other, b"b")]:
        part.write(chunk)
    told = [one.close(), other.close()]
    draft.commit({}, b"{}")

    assert [part.name for part in told] == ["one", "other"]
    assert (store.read(named(), "one"), store.read(named(), "other")) == (b"12", b"ab")


def test_nothing_is_visible_before_the_commit(store: Store) -> None:
    """Neither the set, nor its name, nor any of its files."""
    draft = store.draft(named())
    write(draft, "data", b"content")

    assert not store.exists(named())
    assert list(store.names()) == []
    assert list(store.names(PlanName("photos"))) == []
    with pytest.raises(SetMissing):
        store.read(named(), "data")
    draft.discard()


def test_the_first_commit_of_a_name_wins(store: Store) -> None:
    """The second is told so, and leaves the first set as it is."""
    first, second = store.draft(named()), store.draft(named())
    write(first, "data", b"first")
    write(second, "data", b"second")
    write(second, "more", b"second")

    second.commit({}, b"[2]")
    with pytest.raises(AlreadyCommitted, match="photos/first"):
        first.commit({}, b"[1]")
    first.discard()

    assert (store.read(named(), MANIFEST), store.read(named(), "data")) == (b"[2]", b"second")
    assert store.size(named(), "more") == 6


def test_a_discarded_draft_leaves_nothing(store: Store) -> None:
    """Also with a part still open, also twice; the name can be used again."""
    draft = store.draft(named())
    write(draft, "data", b"content")
    draft.open_part("open").write(b"half")

    draft.discard()
    draft.discard()

    assert list(store.names()) == []
    assert store.sweep() == 0
    committed(store, named())


def test_discarding_after_the_commit_does_nothing(store: Store) -> None:
    """Callers may always discard at the end."""
    draft = store.draft(named())
    draft.commit({}, b"{}")

    draft.discard()

    assert store.exists(named())


def test_a_finished_draft_takes_nothing_more(store: Store) -> None:
    """A committed set never changes."""
    draft = store.draft(named())
    draft.commit({}, b"{}")

    with pytest.raises(ValueError, match="committed or discarded"):
        draft.open_part("late")
    with pytest.raises(ValueError, match="committed or discarded"):
        draft.commit({}, b"{}")


def test_a_set_with_an_open_part_is_not_committed(store: Store) -> None:
    """Its last bytes may not be durable."""
    draft = store.draft(named())
    draft.open_part("data")

    with pytest.raises(ValueError, match="still open, or failed: data"):
        draft.commit({}, b"{}")

    draft.discard()
    assert not store.exists(named())


def test_a_closed_part_takes_no_more(store: Store) -> None:
    """Its digest has been given out."""
    draft = store.draft(named())
    part = draft.open_part("data")
    part.close()

    with pytest.raises(ValueError, match="closed"):
        part.write(b"more")
    with pytest.raises(ValueError, match="closed"):
        part.close()
    draft.discard()


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "/etc/passwd", ".hidden", "a\x00b", "a\nb", MANIFEST])
def test_a_harmful_part_name_is_refused(store: Store, name: str) -> None:
    """Nothing can be written outside the set, nor over its manifest."""
    draft = store.draft(named())

    with pytest.raises(ValueError, match=r"name|manifest"):
        draft.open_part(name)
    with pytest.raises(ValueError, match=r"name|manifest"):
        draft.commit({name: b""}, b"{}")

    draft.discard()
    assert not store.exists(named())


def test_a_name_is_used_once_in_a_set(store: Store) -> None:
    """Neither two parts, nor a part and a small file, share it."""
    draft = store.draft(named())
    write(draft, "data", b"content")

    with pytest.raises(ValueError, match="data"):
        draft.open_part("data")
    with pytest.raises(ValueError, match="data"):
        draft.commit({"data": b"other"}, b"{}")
    draft.discard()


@pytest.mark.parametrize(("plan", "backup_id"), [("..", "a"), ("a", ".."), (".holdfast", "a"), ("a/b", "c"), ("a", "")])
def test_a_harmful_set_name_is_refused(store: Store, plan: str, backup_id: str) -> None:
    """It can name no place outside the store, nor the store's own."""
    with pytest.raises(ValueError, match="name"):
        store.draft(named(backup_id, plan))
    with pytest.raises(ValueError, match="name"):
        store.exists(named(backup_id, plan))
    with pytest.raises(ValueError, match="name"):
        store.expire(named(backup_id, plan))


def test_names_are_told_by_plan(store: Store) -> None:
    """All of them, or those of one plan; an unknown plan has none."""
    photos = {committed(store, named(str(number), "photos")) for number in range(3)}
    letters = {committed(store, named("1", "letters"))}

    assert set(store.names()) == photos | letters
    assert set(store.names(PlanName("photos"))) == photos
    assert list(store.names(PlanName("music"))) == []
    assert list(store.names(PlanName("../photos"))) == []


def test_what_is_missing_is_told_apart_from_what_is_empty(store: Store) -> None:
    """No set, no such file, an empty file."""
    name = committed(store, named(), b"")

    assert store.read(name, "data") == b""
    assert list(store.stream(name, "data")) == []
    for missing, file in [(name, "other"), (named("other"), "data"), (named("first", "other"), "data")]:
        with pytest.raises(SetMissing):
            store.read(missing, file)
        with pytest.raises(SetMissing):
            list(store.stream(missing, file))
        with pytest.raises(SetMissing):
            store.read_range(missing, file, 0, 1)
        with pytest.raises(SetMissing):
            store.size(missing, file)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=64), offset=st.integers(0, 80), length=st.integers(0, 80))
def test_a_range_is_the_slice_of_the_file(store: Store, content: bytes, offset: int, length: int) -> None:
    """Shorter only at the end, empty beyond it."""
    name = committed(store, named(hashlib.sha256(content + bytes([offset, length])).hexdigest()), content)

    assert store.read_range(name, "data", offset, length) == content[offset : offset + length]
    store.expire(name)


def test_an_impossible_range_is_a_bug(store: Store) -> None:
    """It is not quietly read as something else."""
    name = committed(store, named())

    with pytest.raises(ValueError, match="range"):
        store.read_range(name, "data", -1, 1)


def test_an_expired_set_is_gone(store: Store) -> None:
    """It alone; its name can be used again."""
    name, other = committed(store, named()), committed(store, named("second"))

    store.expire(name)

    assert not store.exists(name)
    assert list(store.names()) == [other]
    with pytest.raises(SetMissing):
        store.size(name, "data")
    committed(store, name, b"again")
    assert store.read(name, "data") == b"again"


def test_expiring_what_is_gone_succeeds(store: Store) -> None:
    """Now, twice, and for a plan that never was."""
    name = committed(store, named())

    for _ in range(2):
        store.expire(name)
    store.expire(named("never", "never"))

    assert list(store.names()) == []


def test_a_sweep_leaves_living_drafts_and_committed_sets(store: Store) -> None:
    """A draft of this process can be committed afterwards."""
    other = committed(store, named("second"))
    draft = store.draft(named())
    write(draft, "data", b"content")

    assert store.sweep() == 0
    draft.commit({}, b"{}")

    assert set(store.names()) == {named(), other}
    assert store.read(named(), "data") == b"content"


def test_a_check_leaves_no_trace(store: Store) -> None:
    """The store was tried for real, and is as before."""
    store.check()

    assert list(store.names()) == []
    assert store.sweep() == 0


def test_free_room_is_a_number_or_unknown(store: Store) -> None:
    """Never a guess."""
    room = store.free_bytes()

    assert room is None or room > 0
