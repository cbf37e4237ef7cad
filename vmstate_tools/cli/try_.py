"""`vmstate try`: what a real QEMU does with a stream."""

from __future__ import annotations

from typing import Any

import click

from vmstate_tools.cli.common import example, json_option, leave, manifest_option, qemu_arguments
from vmstate_tools.show.text import print_json, say, standard_output


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
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds for all of it.",
)
@click.option(
    "--blank-firmware", is_flag=True, help="Zeros in place of QEMU's firmware, as `vmstate capture` has them."
)
@manifest_option
@click.option("--trust-manifest", is_flag=True, help="Pass on all options of the manifest, whatever they open or run.")
@json_option
@qemu_arguments
def try_(file: str, as_json: bool, arguments: tuple[str, ...], **options: Any) -> None:
    """Give FILE to a real QEMU and tell what it does.

    It is configured as the manifest.csv beside FILE (or --manifest) says, or as the stream does, with QEMU's own
    firmware. Of what FILE and its manifest say only plain names and harmless options are passed on. Exit code 0: it
    loads; 1: it is refused; 3: not known, because that QEMU does not start.
    """
    from vmstate_tools.emulator.tryload import try_load

    outcome = try_load(file, arguments=arguments, **options)
    if as_json:
        more = {name: getattr(outcome, name) for name in ("arguments", "command", "started", "registers")}
        print_json({**outcome.row(), **more})
    else:
        standard_output().write(f"{outcome}\n")
        if outcome.registers:
            say(*outcome.registers.splitlines())
    leave({True: 0, False: 1, None: 3}[outcome.vmstate_loaded])
