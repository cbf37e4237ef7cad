"""One bad file takes no other along, whatever is raised for it and whoever reads it."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from writer import toy

import vmstate_tools as vt
from vmstate_tools.frames import extract


class UnpicklableError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(lambda: one + two)


RAISED = {
    "MemoryError": MemoryError("no room"),
    "RecursionError": RecursionError("too deep"),
    "OverflowError": OverflowError("too large"),
    "KeyError": KeyError("gone"),
    "AssertionError": AssertionError(),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "Unpicklable": UnpicklableError(1, 2),
}


def reading(error: BaseException) -> Callable[..., Any]:
    """`open_stream` that raises `error` for files called `bad`."""
    read = extract.open_stream

    def open_stream(path: str) -> Any:
        if Path(path).name == "bad.mig":
            raise error
        return read(path)

    return open_stream


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name in ("a", "bad", "c"):
        (tmp_path / f"{name}.mig").write_bytes(toy().finish())
    return [tmp_path / f"{name}.mig" for name in ("a", "bad", "c")]


def executors() -> dict[str, Callable[[], contextlib.AbstractContextManager[Executor | None]]]:
    # Forked processes raise as this one does.
    return {
        "here": contextlib.nullcontext,
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")),
    }


@pytest.mark.parametrize("executor", executors())
@pytest.mark.parametrize("kind", RAISED)
def test_whatever_is_raised_is_a_row(
    files: list[Path], kind: str, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "open_stream", reading(RAISED[kind]))
    with executors()[executor]() as workers:
        collection = vt.load(files, executor=workers)
    assert collection.streams["file"].tolist() == [str(files[0]), str(files[2])]
    (row,) = collection.errors.to_dict("records")
    assert row["file"] == str(files[1]) and kind in row["message"]
    assert collection.fields["file"].nunique() == 2
    assert str(files[1]) in collection._repr_html_()


def test_what_is_no_file_is_a_row_each(files: list[Path], tmp_path: Path) -> None:
    """Nobody writes to the FIFO: whoever opens it waits for ever."""
    odd = tmp_path / "odd"
    odd.mkdir()
    os.mkfifo(odd / "a.mig")
    (odd / "b.mig").mkdir()
    (odd / "c.mig").symlink_to("gone")
    (odd / "d.mig").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(odd / "e.mig"))
        collection = vt.load([*files, odd])
    assert len(collection.streams) == 3
    assert collection.errors["file"].tolist() == [str(odd / f"{name}.mig") for name in "abcde"]
    assert "FIFO" in collection.errors["message"].iloc[0]


@pytest.mark.parametrize("executor", executors())
@pytest.mark.parametrize("kind", [kind for kind in RAISED if kind != "Unpicklable"])
def test_it_is_raised_as_it_is_when_asked(
    files: list[Path], kind: str, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "open_stream", reading(RAISED[kind]))
    with executors()[executor]() as workers, pytest.raises(type(RAISED[kind])) as caught:
        vt.load(files, executor=workers, errors="raise")
    assert type(caught.value).__name__ == kind
    assert any("open_stream" in note for note in caught.value.__notes__)  # where it came from


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_end_that_was_asked_for_is_none_of_a_file(
    files: list[Path], error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "open_stream", reading(error))
    with pytest.raises(type(error)):
        vt.load(files)


def test_a_deep_description_is_an_error_of_its_file(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(_: object) -> None:
        endless(None)

    monkeypatch.setattr(extract, "cpu_rows", endless)
    depth = sys.getrecursionlimit()
    collection = vt.load(files)
    assert len(collection.errors) == 3 and collection.errors["message"].str.contains("RecursionError").all()
    assert sys.getrecursionlimit() == depth


def test_ten_bytes_take_no_file_along(files: list[Path]) -> None:
    files[1].write_bytes(b"QEVM\0\0\0\x036}")  # a machine name of 905,969,664 bytes, and no more
    collection = vt.load(files)
    assert len(collection) == 2 and collection.errors["file"].tolist() == [str(files[1])]


@pytest.mark.parametrize("name", ["nul\0in.mig", "x" * 5000, "memory::a.mig", "nofs://folder/", "nofs://a.mig", ""])
def test_a_name_that_is_none_is_a_row(files: list[Path], name: str) -> None:
    collection = vt.load([files[0], name, files[2]])
    assert len(collection) == 2
    assert len(collection.errors) == 1


@pytest.mark.parametrize("executor", ["here", "processes"])
def test_a_matrix_has_rows_for_a_file_that_something_is_raised_for(
    files: list[Path], executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("vmstate_tools.compat.matrix")
    monkeypatch.setattr(module, "open_stream", reading(KeyError("gone")))
    with executors()[executor]() as workers:
        frame = vt.matrix(files, ["2.6.0"], executor=workers, progress=False)
        assert frame["stream"].tolist() == list(map(str, files))
        assert [f"{error}".endswith("KeyError: 'gone'") for error in frame["error"]] == [False, True, False]
        with pytest.raises(vt.VmstateError, match="banana"):  # not the file's fault
            vt.matrix(files, ["banana"], executor=workers, progress=False)
