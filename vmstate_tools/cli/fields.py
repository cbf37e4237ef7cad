"""`vmstate fields`: every decoded field, as a table, JSON, CSV or Parquet."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TextIO

import click

from vmstate_tools.cli.common import (
    example,
    files_argument,
    force_option,
    leave,
    new_file,
    opening_options,
    spreadsheet_option,
)
from vmstate_tools.errors import plain_text
from vmstate_tools.show.text import complain, csv_text, json_text, print_columns, say, standard_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.stream import Stream

# Arrays of more values than this are one row of a table.
_FOLD = 64


@click.command(
    epilog=example(
        "vmstate fields guest.mig --section cpu --field 'env.gpr*'",
        "vmstate fields guest.mig --field 'env.spr[287]' --format json",
        "vmstate fields *.mig.zst --section cpu --format parquet -o cpu.parquet",
    )
)
@files_argument
@click.option("--section", metavar="S", help="Sections of this idstr, or idstr/instance_id; may hold * and ?.")
@click.option("--field", metavar="GLOB", help="Fields of this path; may hold * and ?.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table")
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option("-o", "--output", "out", metavar="OUT", help="Write to this file.")
@click.option(
    "--fold",
    metavar="N",
    type=click.IntRange(0),
    help=f"Arrays of more than N values in one row of bytes; 0: never. Tables: {_FOLD}, otherwise 0.",
)
@spreadsheet_option
@force_option
@opening_options
def fields(
    files: tuple[str, ...],
    section: str | None,
    field: str | None,
    form: str,
    out: str | None,
    fold: int | None,
    for_spreadsheet: bool,
    force: bool,
    opening: dict[str, Any],
) -> None:
    """List every decoded field: section, path, type, offset, size, value.

    Values are numbers; bytes are hex digits. In tables numbers above 255 are hex and long bytes are cut. In parquet
    a value is a struct; pandas reads it after `import vmstate_tools.frames.dtypes`. Exit code 1: no field matched.
    """
    if form == "parquet" and out is None:
        raise click.UsageError("parquet goes to a file: name it with -o OUT")
    if form == "table" and out is not None:
        raise click.UsageError("-o takes --format json, csv or parquet")
    if for_spreadsheet and form != "csv":
        raise click.UsageError("--for-spreadsheet is for --format csv")
    target = new_file(out, force)
    wanted = _Wanted(section, field, (_FOLD if form == "table" else 0) if fold is None else fold)
    if form == "table":
        code = _table(files, opening, wanted)
    elif form == "parquet":
        assert target is not None
        code = _parquet(files, opening, wanted, target, force)
    else:
        code = _text(files, opening, wanted, form, target, force, for_spreadsheet)
    leave(code)


class _Wanted:
    """The fields that are asked for: of sections and paths that match globs, arrays folded above `fold` values."""

    def __init__(self, section: str | None, field: str | None, fold: int) -> None:
        self.section = matcher(section)
        self.field = matcher(field)
        self.fold = fold or None

    def sections(self, stream: Stream) -> list[Section]:
        found = [s for s in stream.distinct_sections if s.how != "ram"]
        match = self.section
        return found if match is None else [s for s in found if match(s.idstr) or match(s.label)]

    def rows(
        self, stream: Stream, lead: tuple[Any, ...] = (), blob: Callable[[bytes], Any] = bytes
    ) -> Iterator[tuple[Any, ...]]:
        """Yields what `field_rows` has of them."""
        from vmstate_tools.stream.field_rows import COLUMNS, field_rows

        rows = field_rows(stream, self.sections(stream), self.fold, lead=lead, blob=blob)
        match, path = self.field, len(lead) + COLUMNS.index("path")
        return rows if match is None else (row for row in rows if match(row[path]))


def matcher(pattern: str | None) -> Callable[[str], bool] | None:
    """Returns a test for a glob of `*` and `?`; brackets stand for themselves, as array elements are written with them.

    None, which asks for no test, gives None.
    """
    if pattern is None:
        return None
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    compiled = re.compile("".join(parts), re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None


def _found(done: list[Any], code: int) -> int:
    """The exit code: 1 where files were read and nothing in them matched."""
    if done and not any(done):
        complain("no field matches")
        return max(code, 1)
    return code


def _table(files: tuple[str, ...], opening: dict[str, Any], wanted: _Wanted) -> int:
    from vmstate_tools.cli.streams import each_stream
    from vmstate_tools.vmstate.layout import format_value

    def shown(value: Any) -> str:  # most values are small numbers
        return str(value) if type(value) is int and value < 256 else format_value(value)

    def work(stream: Stream) -> bool:
        rows = [
            (f"{section}/{instance}", path, type_, str(offset), str(size), shown(value))
            for section, instance, _, _, path, type_, offset, size, value in wanted.rows(stream)
        ]
        if rows:
            say(stream.name)
            print_columns(["section", "path", "type", ">offset", ">size", "value"], list(zip(*rows, strict=True)))
            say()
        return bool(rows)

    return _found(*each_stream(files, opening, work))


def _text(
    files: tuple[str, ...],
    opening: dict[str, Any],
    wanted: _Wanted,
    form: str,
    target: Path | None,
    force: bool,
    for_spreadsheet: bool,
) -> int:
    """Writes CSV or JSON, when all files have been read: a document is complete or not there."""
    from vmstate_tools.cli.streams import each_stream
    from vmstate_tools.stream.field_rows import COLUMNS

    columns = ("file", *COLUMNS)

    def work(stream: Stream) -> str:
        rows = wanted.rows(stream, (plain_text(stream.name),), bytes.hex)
        if form == "csv":
            return csv_text(rows, for_spreadsheet=for_spreadsheet)
        text = json_text([dict(zip(columns, row, strict=True)) for row in rows])
        # One object a line. Within a string the quotes would have backslashes.
        return text[1:-1].replace('}, {"file": ', '},\n{"file": ')

    done, code = each_stream(files, opening, work)
    code = _found(done, code)
    if not done:
        return code
    with _output(target, force, [*files, opening["description"]]) as file:
        if form == "csv":
            file.write(csv_text([columns]))
            file.writelines(done)
        else:
            file.write("[" + ",\n".join(filter(None, done)) + "]\n")
    return code


def _output(target: Path | None, force: bool, inputs: list[str | None]) -> AbstractContextManager[TextIO]:
    from vmstate_tools.source.new_file import new_text_file

    if target is None:
        return nullcontext(standard_output())
    return new_text_file(target, overwrite=force, inputs=inputs, guest_memory=True)


def _parquet(files: tuple[str, ...], opening: dict[str, Any], wanted: _Wanted, target: Path, force: bool) -> int:
    import pandas as pd

    from vmstate_tools.cli.streams import each_stream
    from vmstate_tools.source.new_file import new_file as complete_file

    def work(stream: Stream) -> pd.DataFrame:
        frame = stream.fields_of(wanted.sections(stream), fold=wanted.fold)
        if wanted.field is not None:
            frame = frame[frame["path"].map(wanted.field).astype(bool)].reset_index(drop=True)
        frame.insert(0, "file", pd.Series(plain_text(stream.name), index=frame.index, dtype="category"))
        return frame

    frames, code = each_stream(files, opening, work)
    code = _found([len(frame) for frame in frames], code)
    if frames:
        inputs = [*files, opening["description"]]
        with complete_file(target, overwrite=force, inputs=inputs, guest_memory=True) as file:
            pd.concat(frames, ignore_index=True).astype({"file": "category"}).to_parquet(file)
    return code
