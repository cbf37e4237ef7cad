"""A view of a file that is read when it is asked for gives the slices of a memoryview."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmstate_tools.errors import StreamError
from vmstate_tools.source.files import BLOCK, FileView, behind, read_range

DATA = os.urandom(3 * BLOCK + 17)
SIZE = len(DATA)
PLACES = st.one_of(st.integers(-SIZE - 9, SIZE + 9), st.sampled_from([0, BLOCK - 1, BLOCK, BLOCK + 1, SIZE, 1 << 70]))


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileView]:
    path = tmp_path_factory.mktemp("files") / "data"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        yield FileView(file.fileno(), str(path), 0, SIZE)


@given(PLACES, PLACES)
def test_slices(view: FileView, first: int, last: int) -> None:
    found = view[first:last]
    assert found == DATA[first:last]
    assert found.readonly
    assert behind(view, max(0, min(first, SIZE)))[:40] == DATA[max(0, min(first, SIZE)) :][:40]  # type: ignore[arg-type]


@given(st.integers(0, SIZE), st.integers(1, 9000), st.integers(1, 9))
def test_steps(view: FileView, first: int, count: int, step: int) -> None:
    assert view[first : first + count : step].tobytes() == DATA[first : first + count : step]


@given(st.integers(-SIZE, SIZE - 1))
def test_single_bytes(view: FileView, at: int) -> None:
    assert view[at] == DATA[at]


def test_what_is_no_byte(view: FileView) -> None:
    assert len(view) == SIZE
    for at in (SIZE, -SIZE - 1):
        with pytest.raises(IndexError):
            view[at]


def test_nothing_of_what_lies_behind_is_read(view: FileView) -> None:
    rest = behind(view, 100)  # type: ignore[arg-type]
    assert (len(rest), rest[0], rest[-1]) == (SIZE - 100, DATA[100], DATA[-1])
    assert behind(memoryview(DATA), 100) == DATA[100:]


def test_a_file_that_grows_ends_where_it_did(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with path.open("rb") as file, path.open("ab") as more:
        view = FileView(file.fileno(), str(path), 0, SIZE)
        more.write(b"more")
        more.flush()
        assert (len(view), view[SIZE - 1 :]) == (SIZE, DATA[-1:])


def test_a_file_that_is_replaced_is_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        view = FileView(file.fileno(), str(path), 0, SIZE)
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").replace(path)
        assert view[:] == DATA


def test_a_file_that_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        os.truncate(path, 1000)
        with pytest.raises(StreamError, match="truncated to 1000 bytes while it was read") as caught:
            read_range(file.fileno(), 0, SIZE, "the file")
        assert (caught.value.file, caught.value.offset) == ("the file", 1000)
