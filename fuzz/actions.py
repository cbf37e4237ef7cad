"""Does with an input everything that a user can do with a file from somebody else."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from click.testing import CliRunner

import vmstate_tools as vt
from fuzz.inputs import Input
from vmstate_tools.cli.main import main
from vmstate_tools.errors import StreamError, VmstateError
from vmstate_tools.stream.stream import Stream

Step = tuple[str, Callable[[], Any]]


class WrongError(AssertionError):
    """An input was read, but the result cannot be true."""


def _hold(condition: bool, message: str) -> None:
    if not condition:
        raise WrongError(message)


def steps(given: Input, folder: Path) -> Iterator[Step]:
    """Yields what is done with this input, each step with its name; `folder` is empty and the current directory."""
    for name, data in given.parts.items():
        if not name.isdigit():
            (folder / name).write_bytes(data)
    if given.kind == "command":
        yield "command", lambda: _command(given.options["arguments"])
    elif given.kind == "manifest":
        yield from _manifest(folder)
    elif given.kind == "dump":
        yield from _dumps(folder)
    else:
        parts = [given.parts[name] for name in sorted(given.parts)]
        yield from _stream(parts[0] if len(parts) == 1 else parts, given.number, bool(given.options.get("partial")))


# -- a stream -------------------------------------------------------------------------------------------------------


def _stream(data: bytes | list[bytes], number: int, partial: bool) -> Iterator[Step]:
    opened: list[Stream] = []
    yield "open", lambda: opened.append(vt.open(data, partial=partial))
    if not opened:
        return
    (stream,) = opened
    with stream:
        yield "sections", lambda: [repr(section) for section in stream.sections]
        yield "coverage", lambda: _tiles(stream)
        yield "fields", lambda: len(stream.fields())
        yield "build", lambda: _hold(stream.build() == stream.source.view, "what is built is not the file")
        yield "ram counts", lambda: (stream.ram.pages, stream.ram.blocks)
        yield "ram read", lambda: _memory(stream)
        yield "diff", lambda: _hold(vt.diff(stream, stream).empty, "a stream differs from itself")
        yield "diff --ram", lambda: _hold(vt.diff(stream, stream, ram=True).empty, "a stream differs from itself")
        yield "check", lambda: vt.check(stream, _destination(number)).to_json()
        yield "check by itself", lambda: vt.check(stream, vt.Destination.from_stream(stream)).to_json()
        yield "lint", lambda: _lint(stream)
        yield "fingerprint", lambda: vt.fingerprint(stream).explain()
        yield "html", stream._repr_html_
        if isinstance(data, bytes):
            yield "rewrite", lambda: _rewrite(stream)


def _destination(number: int) -> vt.Destination:
    return vt.Destination(release=("2.7.0", "7.2.22", "10.0.3")[number % 3])


def _tiles(stream: Stream) -> None:
    frame = stream.coverage()
    at = 0
    for offset, size in zip(frame["offset"].tolist(), frame["size"].tolist(), strict=True):
        _hold(offset == at, f"a gap or overlap at {at}: {offset}")
        at += size
    _hold(at == len(stream.source.view), f"the coverage ends at {at}")


def _memory(stream: Stream) -> None:
    names = [block.raw_name for block in stream.ram.block_list]
    for block in stream.ram.block_list[:4]:
        if names.count(block.raw_name) == 1:  # of two with one name, none can be asked for
            stream.ram.read(block.raw_name, 0, min(block.used_length, 8192))
            stream.ram.read(block.raw_name, max(block.used_length - 100, 0), min(block.used_length, 100))


def _lint(stream: Stream) -> None:
    from vmstate_tools.compat.lint import lint

    lint(stream)


def _rewrite(stream: Stream) -> None:
    out = io.BytesIO()
    vt.rewrite(stream, out, {})
    _hold(out.getvalue() == stream.source.view, "rewritten without a change it is another")
    fields = stream.fields(fold=1)
    whole = fields[fields["type"].isin(["uint8", "uint32", "uint64", "int32"])].head(1)
    for section, instance, vmsd, path, value in whole[["section", "instance_id", "vmsd", "path", "value"]].itertuples(
        index=False
    ):
        out = io.BytesIO()
        try:
            vt.rewrite(stream, out, {(f"{section}/{instance}", path): value})
        except VmstateError:  # a name that names several fields, a value of no size
            continue
        _hold(out.getvalue() == stream.source.view, f"{section} {vmsd} {path} set to what it was is another")


# -- other files ----------------------------------------------------------------------------------------------------


def _manifest(folder: Path) -> Iterator[Step]:
    loaded: list[vt.Collection] = []
    yield "load", lambda: loaded.append(vt.load(folder, progress=False))
    for collection in loaded:
        for name in ("streams", "sections", "fields", "cpu", "errors"):
            yield f"load.{name}", lambda name=name, collection=collection: len(getattr(collection, name))
    yield "cpu", lambda: _command(["cpu", "a.mig", "--json"])
    yield "report", lambda: _command(["report", ".", "-o", "out.txt", "--format", "text"])


def _dumps(folder: Path) -> Iterator[Step]:
    a, b = folder / "a.json", folder / "b.json"
    yield "read", lambda: vt.read_dump(b)
    yield "diff_dumps", lambda: (vt.diff_dumps(a, b), vt.diff_dumps(b, a), vt.diff_dumps(b, b))
    yield "lint", lambda: (vt.lint(b), vt.lint(b, a), vt.lint(a, b))
    yield "check", lambda: vt.check(folder / "a.mig", vt.Destination.from_dump(b, "2.7.0")).to_json()


def _command(arguments: list[str]) -> None:
    before = set(os.listdir())
    result = CliRunner(env={"COLUMNS": "100"}).invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    _hold(result.exit_code in (0, 1, 2, 3), f"exit code {result.exit_code}")
    _hold("Traceback" not in result.output, "a traceback")
    if result.exit_code == 2 and arguments[0] != "report":  # which says what it could not read
        _hold(set(os.listdir()) == before, f"refused, and left {set(os.listdir()) - before}")
    for name in set(os.listdir()) - before:
        Path(name).unlink()


# -- what may go wrong ----------------------------------------------------------------------------------------------


def run(step: Callable[[], Any]) -> bool:
    """Does one step; returns False where the input was refused as it should be. Raises every other error."""
    try:
        step()
    except VmstateError as error:
        text = str(error)
        _hold(bool(text.strip()) and text.isprintable(), f"an error without text, or for no terminal: {text!r}")
        if isinstance(error, StreamError):
            _hold(bool(error.file), f"an error that does not name the file: {error!r}")
        return False
    return True


def warm_up(inputs: list[Input], folder: Path) -> None:
    """Imports and caches what the first use of each step does, so that no input pays for it."""
    pd.DataFrame({"x": [1]}).to_csv()
    for given in inputs:
        for _, step in steps(given, folder):
            with contextlib.suppress(Exception):
                run(step)
