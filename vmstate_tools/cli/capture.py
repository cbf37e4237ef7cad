"""`vmstate capture`: streams written by real QEMUs."""

from __future__ import annotations

import json
from typing import Any

import click

from vmstate_tools.cli.common import Lists, example, json_option, leave, qemu_arguments
from vmstate_tools.errors import printable
from vmstate_tools.show.text import print_json, say


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
@click.option(
    "--timeout", default=120.0, show_default=True, metavar="S", help="Seconds for each stream, and for each question."
)
@click.option("--force", "overwrite", is_flag=True, help="Make again what is there already.")
@json_option
@qemu_arguments
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
        say(f"{len(frame) - len(refused)} streams in {out}, {len(refused)} combinations refused")
    leave(1 if len(refused) else 0)
