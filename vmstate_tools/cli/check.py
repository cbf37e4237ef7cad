"""`vmstate check`: whether a stream would load on a destination, and if not, why."""

from __future__ import annotations

from typing import Any

import click

from vmstate_tools.cli.common import accelerators, example, json_option, leave, policy_option
from vmstate_tools.show.text import print_json, standard_output


@click.command(
    epilog=example(
        "vmstate check guest.mig --to 2.7.0",
        "vmstate check guest.mig --reference what-it-wrote-itself.mig --to 2.7.0",
        "vmstate check guest.mig --dump vmstate.json --machine pseries-7.2",
        "vmstate check guest.mig --to 2.7.0 --policy ignore",
    )
)
@click.argument("file", metavar="FILE")
@click.option("--to", "release", metavar="R", help="The destination's release.")
@click.option("--reference", metavar="REF.mig", help="A stream the destination wrote, of the same configuration.")
@click.option("--dump", metavar="DUMP.json", help="What the destination's -dump-vmstate printed.")
@click.option("--machine", metavar="M", help="Its machine type; the stream's where not given.")
@click.option("--cpu", metavar="C", help="Its CPU model; the stream's where not given.")
@click.option("--accel", type=accelerators, help="Its accelerator.")
@policy_option
@json_option
def check(
    file: str,
    release: str | None,
    reference: str | None,
    dump: str | None,
    policy: str | None,
    as_json: bool,
    **known: Any,
) -> None:
    """Predict whether FILE would load on a destination, and if not, which field is to blame.

    Exit code 0: it loads; 1: it would be refused; 2: bad input.
    """
    from vmstate_tools import compat

    if not (release or reference or dump):
        raise click.UsageError("say what the destination is: --to, --reference or --dump, or several of them")
    destination = compat.Destination(release=release, **known)
    if dump:
        destination = destination.with_dump(dump)
    if reference:
        destination = destination.with_reference(reference)
    verdict = compat.check(file, destination, policy)
    if as_json:
        print_json(verdict.to_json())
    else:
        standard_output().write(verdict.explain() + "\n")
    leave(0 if verdict.loads else 1)
