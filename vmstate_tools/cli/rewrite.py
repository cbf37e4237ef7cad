"""`vmstate rewrite`: a stream with fields changed, into a file or through a pipe."""

from __future__ import annotations

import sys
from typing import Any

import click

from vmstate_tools.cli.common import accelerators, example, json_option
from vmstate_tools.errors import printable
from vmstate_tools.show.text import print_json, standard_output


@click.command(
    epilog=example(
        "vmstate rewrite stuck.mig -o loads.mig --for 2.7.0",
        "vmstate rewrite a.mig -o b.mig --set cpu/env.insns_flags=0x8000600fe1ff7ae1",
        'migrate "exec:vmstate rewrite - --for 2.7.0 | ssh there socat - UNIX:in"',
    )
)
@click.argument("file")
@click.option("-o", "--output", "out", metavar="OUT", help="Where to; - for standard output, which it is for FILE -.")
@click.option(
    "--set", "values", metavar="SECTION/FIELD=VALUE", multiple=True, help="Set a field. SECTION may be idstr/instance."
)
@click.option("--for", "release", metavar="RELEASE", help="Set what that release of QEMU checks of the CPUs.")
@click.option("--machine", metavar="M", help="For --for: the machine type, where the stream does not say it.")
@click.option("--cpu", metavar="C", help="For --for: the CPU model, where the stream's PVR does not tell it.")
@click.option("--accel", type=accelerators, help="For --for: the destination's accelerator.")
@click.option("--force", is_flag=True, help="Overwrite OUT if it exists.")
@json_option
def rewrite(
    file: str,
    out: str | None,
    values: tuple[str, ...],
    release: str | None,
    force: bool,
    as_json: bool,
    **known: str | None,
) -> None:
    """Write FILE with fields changed, in their places: sizes stay as they are.

    Each change is printed on stderr. From - to - it is a filter: RAM goes through as it comes, the devices when all of
    them have been read. Exit code 2: the changed stream would lie about the guest; nothing more was written.
    """
    from vmstate_tools.rewriting.file import COLUMNS, edit_of
    from vmstate_tools.rewriting.file import rewrite as write

    if release is None and not values:
        raise click.UsageError("say what to change: --set SECTION/FIELD=VALUE or --for RELEASE")
    if out is None:
        if file != "-":
            raise click.UsageError("say where to write: -o OUT")
        out = "-"
    if out == "-" and standard_output().isatty():
        raise click.UsageError("a stream is nothing for a terminal: name a file with -o OUT, or a pipe")
    if as_json and out == "-":
        raise click.UsageError("--json and the stream cannot both go to standard output")
    changes = dict(_assignment(text) for text in values)
    if out == "-":
        done = _to_stdout(file, edit_of(changes, release, **known))
    else:
        source: Any = sys.stdin.buffer if file == "-" else file
        frame = write(source, out, changes, release=release, overwrite=force, **known)
        done = [dict(zip(COLUMNS, row, strict=True)) for row in frame.itertuples(index=False)]
    if as_json:
        print_json([{name: _plain(change[name]) for name in COLUMNS} for change in done])
    else:
        for change in done:
            click.echo(printable(_change_text(change)), err=True)
        if not done:
            click.echo("nothing to change", err=True)


def _assignment(text: str) -> tuple[tuple[str, str], str]:
    """Returns section and path, and the value, of SECTION/FIELD=VALUE."""
    where, equals, value = text.partition("=")
    section, slash, path = where.rpartition("/")
    if not (equals and slash and section and path):
        raise click.UsageError(f"{text!r} is not SECTION/FIELD=VALUE")
    return (section, path), value


def _to_stdout(file: str, edit: Any) -> list[dict[str, Any]]:
    """Writes FILE, or standard input, changed to standard output, and returns the changes."""
    from vmstate_tools.rewriting.changes import patched
    from vmstate_tools.rewriting.file import COLUMNS
    from vmstate_tools.rewriting.pipe import pass_through, widen
    from vmstate_tools.stream.stream import open_stream

    with open(1, "wb", buffering=0, closefd=False) as sink:
        if file == "-":
            widen(0, 1)
            with open(0, "rb", buffering=0, closefd=False) as source:
                changes = pass_through(source, sink, edit)
        else:
            with open_stream(file) as stream:
                changes = list(edit(stream))
                for piece in patched(stream.source.view, changes):
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[sink.write(rest) :]
    return [{name: getattr(change, name) for name in COLUMNS} for change in changes]


def _change_text(change: dict[str, Any]) -> str:
    from vmstate_tools.vmstate.layout import format_value

    values = f"{format_value(change['before'])} -> {format_value(change['after'])}"
    return f"{change['section']}/{change['instance_id']} {change['path']}: {values}" + (
        f" ({change['why']})" if change["why"] else ""
    )


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
