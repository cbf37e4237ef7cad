"""`vmstate attach`: a stream of a VM that runs."""

from __future__ import annotations

import json

import click

from vmstate_tools.cli.common import example, force_option, json_option, new_file
from vmstate_tools.show.text import print_json, say


@click.command(
    epilog=example(
        "vmstate attach /run/vm.qmp -o guest.mig.zst",
        "vmstate attach /run/vm.qmp -o guest.mig --live --timeout 60",
    )
)
@click.argument("socket")
@click.option(
    "-o", "--output", "out", metavar="OUT", required=True, help="The stream; compressed where it ends in .zst."
)
@click.option("--live", is_flag=True, help="Let the guest run while its memory is sent, until the end.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="S",
    help="Seconds for the migration.",
)
@force_option
@json_option
def attach(socket: str, out: str, live: bool, timeout: float, force: bool, as_json: bool) -> None:
    """Take a stream of the VM whose QMP monitor is at SOCKET, and let the VM run on as it did.

    The guest is paused while it is sent. OUT is readable by its owner alone; its row goes to manifest.csv beside it.
    """
    from vmstate_tools.emulator.attach import attach as running

    new_file(out, force)
    row = running(socket, timeout=min(30, timeout)).capture(out, stop=not live, timeout=timeout, overwrite=force)
    if as_json:
        print_json(json.loads(row.to_json()))
    else:
        say(f"{out}: {row['machine'] or 'machine not said'}, QEMU {row['release']}, {row['size']:,} bytes")
