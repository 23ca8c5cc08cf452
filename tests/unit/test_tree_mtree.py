"""The lines of a listing: what they can hold, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import IntegrityError
from handlers.tools.trees import mtree
from handlers.tools.trees.mtree import Item, items, line, order
from tests.workshop.listed_trees import stored_text

TOP = Item(b".", "dir", 0o755, 0, 0, 0, 0)
NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name) and name not in {b".", b".."})
TIMES = st.integers(-(2**40) * 10**9, 2**40 * 10**9 - 1) | st.sampled_from([-1, 0, 1, -(10**9), 10**9 - 1])
OWNERS = st.integers(0, 2**32 - 1)


@st.composite
def found_items(draw: st.DrawFn) -> Item:
    """Anything that a walk may find."""
    kind = draw(st.sampled_from(sorted(mtree.TYPES.values())))
    is_file = kind == "file"
    return Item(
        draw(NAMES),
        kind,
        draw(st.integers(0, 0o7777)),
        draw(OWNERS),
        draw(OWNERS),
        draw(st.integers(0, 2**63)) if is_file else 0,
        draw(TIMES),
        draw(st.binary(min_size=1).filter(lambda link: 0 not in link)) if kind == "link" else None,
        (draw(OWNERS), draw(OWNERS)) if kind in {"char", "block"} else None,
        draw(st.none() | st.just("ab" * 32)) if is_file else None,
        draw(st.none() | st.integers(0, 2**64 - 1)),
    )


@given(st.lists(found_items(), max_size=5, unique_by=lambda item: item.path))
def test_what_is_listed_is_read_back(found: list[Item]) -> None:
    """Whatever bytes are in names and targets, whatever the numbers."""
    listed = [TOP, *sorted(found, key=lambda item: order(item.path))]

    text = mtree.HEADER + b"".join(map(line, listed))

    assert list(items(stored_text(text))) == listed
    assert all(byte == 10 or 32 <= byte < 127 for byte in text)


@given(st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=6))
def test_the_order_is_that_of_a_walk_with_sorted_names(steps: list[list[bytes]]) -> None:
    """Steps are compared one by one, so that a directory is followed by what is in it."""
    assert sorted(steps) == sorted(steps, key=lambda names: order(b"/".join(names)))


GOOD = line(TOP)
FILE = line(Item(b"a", "file", 0o644, 0, 0, 1, 0, sha256="0" * 64))
DIRECTORY = line(Item(b"d", "dir", 0o755, 0, 0, 0, 0))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"#mtree",
        b"#mtree\n",
        b"#mtree\nnonsense\n",
        b"#mtree\n\n",
        b"#mtree v2.0\n" + GOOD,
        b"#mtree\n" + FILE,
        b"#mtree\n" + GOOD + GOOD,
        b"#mtree\n" + GOOD + FILE + FILE,
        b"#mtree\n" + GOOD + DIRECTORY + FILE,
        b"#mtree\n" + GOOD + FILE.replace(b"./a", b"./x/a"),
        b"#mtree\n" + GOOD + FILE + FILE.replace(b"./a", b"./a/b"),
        b"#mtree\n" + GOOD + FILE.replace(b"./a", b"./.."),
        b"#mtree\n" + GOOD + FILE.replace(b"./a", b"./\\056\\056"),
        b"#mtree\n" + GOOD + FILE.replace(b"./a", b"./a/../../b"),
        b"#mtree\n" + GOOD + FILE.replace(b"./a", b".//etc/passwd"),
        b"#mtree\n" + GOOD + FILE.replace(b"./a", b"/etc/passwd"),
        b"#mtree\n" + GOOD + FILE.replace(b"./a", b"./a\\000b"),
        b"#mtree\n" + GOOD + FILE.replace(b"./a", b"./a\\400"),
        b"#mtree\n" + GOOD + FILE.replace(b"size=1", b"size=-1"),
        b"#mtree\n" + GOOD + FILE.replace(b" size=1", b""),
        b"#mtree\n" + GOOD + FILE.replace(b"type=file", b"type=dir"),
        b"#mtree\n" + GOOD + FILE.replace(b"type=file", b"type=link"),
        b"#mtree\n" + GOOD + FILE.replace(b"type=file", b"type=char"),
        b"#mtree\n" + GOOD + FILE.replace(b"mode=0644", b"mode=99999"),
        b"#mtree\n" + GOOD + FILE.replace(b"time=0.", b"time=" + b"9" * 30 + b"."),
        b"#mtree\n" + GOOD + FILE[:-1],
        b"#mtree\n" + GOOD.replace(b"type=dir", b"type=fifo"),
    ],
)
def test_what_was_never_written_is_refused(text: bytes) -> None:
    """Paths out of the tree, names out of order, half a line, a line that contradicts itself."""
    with pytest.raises(IntegrityError, match=r"listing|cut short"):
        list(items(stored_text(text)))


def test_the_line_that_makes_no_sense_is_named() -> None:
    """Counted as editors count."""
    with pytest.raises(IntegrityError, match="listing line 3 makes no sense: b'what is this'"):
        list(items(stored_text(b"#mtree\n" + GOOD + b"what is this\n")))


@settings(max_examples=30)
@given(st.binary(max_size=300))
def test_garbage_is_an_integrity_error(garbage: bytes) -> None:
    """As it is stored, and compressed."""
    for stored in (iter([garbage]), stored_text(garbage), stored_text(b"#mtree\n" + garbage)):
        with pytest.raises(IntegrityError):
            list(items(stored))


def test_an_endless_line_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when all memory is used up."""
    monkeypatch.setattr(mtree, "MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(IntegrityError, match="endless line"):
        list(items(stored_text(b"#mtree\n" + b"x" * (3 << 20))))
