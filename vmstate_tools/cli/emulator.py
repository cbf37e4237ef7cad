"""The commands that run a QEMU, or write a stream for one: `vmstate capture`, `try` and `rewrite`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from vmstate_tools.cli.common import Lists, example, json_option
from vmstate_tools.errors import printable
from vmstate_tools.show.text import print_json

_more = click.argument("arguments", nargs=-1, metavar="[-- QEMU OPTIONS]", type=click.UNPROCESSED)


@click.command(
    cls=Lists,
    epilog=example(
        "vmstate capture --qemu qemu-system-ppc64 --machine 'pseries-2.*' -o streams",
        "vmstate capture --qemu old/qemu new/qemu --machine mac99 g3beige -o streams",
        "vmstate capture --qemu qemu-system-x86_64 --machine q35 -o out -- -smp 4",
    ),
)
@click.option("--qemu", metavar="BIN...", multiple=True, required=True, help="QEMU binaries, any release from 1.6 on.")
@click.option("--machine", metavar="M...", multiple=True, required=True, help="Machine types; may be globs.")
@click.option("--cpu", metavar="C...", multiple=True, help="CPU models; may be globs. Without it the machine's own.")
@click.option("-o", "--output", "out", metavar="DIR", required=True, help="Where streams and manifest.csv go.")
@click.option("--jobs", "-j", type=click.IntRange(1), help="How many QEMUs at a time.")
@click.option("--ran", is_flag=True, help="Let the guest run a program that fills its registers first.")
@click.option("--memory", "memory_mib", type=click.IntRange(1), metavar="MIB", help="Guest memory.")
@click.option("--accel", default="tcg", show_default=True, help="Accelerator.")
@click.option("--config", metavar="NAME", help="What to call the configuration in file names.")
@click.option("--capability", "capabilities", metavar="NAME...", multiple=True, help="Migration capabilities to set.")
@click.option("--timeout", default=120.0, show_default=True, metavar="S", help="Seconds for start and migration.")
@click.option("--force", "overwrite", is_flag=True, help="Make again what is there already.")
@json_option
@_more
def capture(as_json: bool, out: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Capture a stream of every combination of QEMU, machine type and CPU.

    QEMU is started paused, without firmware. What it refuses goes to refused.csv with its message. Exit code 1:
    something was refused.
    """
    from vmstate_tools.emulator.capture import capture as take

    options["cpu"] = options["cpu"] or None
    frame = take(out=out, arguments=arguments, **options)
    refused = frame[frame["refused"] != ""]
    if as_json:
        print_json(json.loads(frame.to_json(orient="records")))
    else:
        for row in refused.to_dict("records"):
            name = f"QEMU {row['release']}, {row['machine']}, {row['cpu'] or 'default CPU'}"
            click.echo(printable(f"refused: {name}: {row['refused']}"), err=True)
        click.echo(f"{len(frame) - len(refused)} streams in {out}, {len(refused)} combinations refused")
    if len(refused):
        click.get_current_context().exit(1)


@click.command(
    "try",
    epilog=example(
        "vmstate try guest.mig --qemu qemu-system-ppc64 --cpu POWER7_v2.3",
        "vmstate try streams/qemu-2.6.0/mac99/default.mig.zst --qemu new/qemu -o t",
    ),
)
@click.argument("file")
@click.option("--qemu", metavar="BIN", required=True, help="The destination.")
@click.option("--machine", metavar="M", help="Machine type, with properties if any.")
@click.option("--cpu", metavar="C", help="CPU model.")
@click.option("--memory", "memory_mib", type=click.IntRange(1), metavar="MIB", help="Guest memory.")
@click.option("--accel", help="Accelerator.")
@click.option("-o", "--outcomes", metavar="CSV", help="Append the outcome to this table.")
@click.option("--registers", is_flag=True, help="Print `info registers` after the load.")
@click.option("--timeout", default=60.0, show_default=True, metavar="S", help="Seconds for start and load.")
@json_option
@_more
def try_(file: str, as_json: bool, arguments: tuple[str, ...], **options: Any) -> None:
    """Give FILE to a real QEMU and tell what it does.

    It is configured as the manifest.csv beside FILE says, or as the stream does. Exit code 0: it loads; 1: it is
    refused.
    """
    from vmstate_tools.emulator.tryload import try_load

    outcome = try_load(file, arguments=arguments, **options)
    if as_json:
        print_json({**outcome.row(), "arguments": outcome.arguments, "registers": outcome.registers})
    else:
        click.echo(str(outcome))
        if outcome.registers:
            for line in outcome.registers.splitlines():
                click.echo(printable(line))
    if not outcome.vmstate_loaded:
        click.get_current_context().exit(1)


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
@click.option("--accel", type=click.Choice(["tcg", "kvm"]), help="For --for: the destination's accelerator.")
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

    Each change is told on stderr. From - to - it is a filter: RAM goes through as it comes, nothing of the devices
    before all of them were read. Exit code 2, and nothing more written: the stream would have to lie about the guest.
    """
    from vmstate_tools.rewriting.file import COLUMNS, edit_of
    from vmstate_tools.rewriting.file import rewrite as write

    if release is None and not values:
        raise click.UsageError("say what to change: --set SECTION/FIELD=VALUE or --for RELEASE")
    if out is None:
        if file != "-":
            raise click.UsageError("say where to write: -o OUT")
        out = "-"
    if out == "-" and sys.stdout.isatty():
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
            click.echo(printable(_told(change)), err=True)
        if not done:
            click.echo("nothing to change", err=True)


def _assignment(text: str) -> tuple[tuple[str, str], str]:
    where, equals, value = text.partition("=")
    section, slash, path = where.rpartition("/")
    if not (equals and slash and section and path):
        raise click.UsageError(f"{text!r} is not SECTION/FIELD=VALUE")
    return (section, path), value


def _to_stdout(file: str, edit: Any) -> list[dict[str, Any]]:
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


def _told(change: dict[str, Any]) -> str:
    from vmstate_tools.vmstate.layout import format_value

    values = f"{format_value(change['before'])} -> {format_value(change['after'])}"
    return f"{change['section']}/{change['instance_id']} {change['path']}: {values}" + (
        f" ({change['why']})" if change["why"] else ""
    )


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
