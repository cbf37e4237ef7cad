"""The commands that ask what a destination would do with a stream: `vmstate check`, `matrix` and `lint`."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import click

from vmstate_tools.cli.common import Lists, example, json_option
from vmstate_tools.errors import VmstateError, printable
from vmstate_tools.show.text import complain, print_json


def _known_policy(context: click.Context, option: click.Parameter, name: str | None) -> str | None:
    from vmstate_tools.compat.policy import named

    try:
        named(name)
    except KeyError as err:
        raise VmstateError(err.args[0]) from None
    return name


_policy = click.option(
    "--policy", metavar="P", callback=_known_policy, help="Treat the CPU's sanity-check words otherwise, e.g. ignore."
)


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
@click.option("--accel", type=click.Choice(["tcg", "kvm"]), help="Its accelerator.")
@_policy
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
    """Would FILE load there, and if not, which field is to blame?

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
        click.echo(verdict.explain())
    sys.exit(0 if verdict.loads else 1)


class _Releases(Lists):
    more = re.compile(r"v?\d+(\.\d+)+")


@click.command(cls=_Releases, epilog=example("vmstate matrix streams/*.mig.zst --to 2.7.0 2.8.0 --csv > out.csv"))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--to", "releases", metavar="R...", multiple=True, required=True, help="The destinations' releases.")
@_policy
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
def matrix(files: tuple[str, ...], releases: tuple[str, ...], policy: str | None, as_csv: bool, as_json: bool) -> None:
    """Would each FILE load on each release, with the same machine type and CPU?

    Exit code 2: a FILE could not be read.
    """
    from vmstate_tools import compat
    from vmstate_tools.frames.collection import find_streams

    if as_csv and as_json:
        raise click.UsageError("either --csv or --json")
    streams = find_streams(files)
    if not streams:
        raise VmstateError(f"no streams in {', '.join(files)}")
    frame = compat.matrix(streams, releases, policy, progress=sys.stderr.isatty())
    if as_csv:
        frame.to_csv(sys.stdout, index=False)
    elif as_json:
        print_json(frame.astype(object).where(frame.notna(), None).to_dict("records"))
    else:
        for row in frame[frame["error"].isna()].to_dict("records"):
            text = "loads" if row["loads"] else f"refused: {row['message']}"
            click.echo(printable(f"{row['stream']} -> {row['release']}: {text}"))
    failed = frame.dropna(subset="error").drop_duplicates("stream")
    for text in failed["error"]:
        complain(text)
    if len(failed):
        sys.exit(2)


@click.command(epilog=example("vmstate lint guest.mig", "vmstate lint new.json --against old.json"))
@click.argument("file", metavar="FILE|DUMP")
@click.option("--against", metavar="OTHER", help="An older one, to find changes without a new version.")
@json_option
def lint(file: str, against: str | None, as_json: bool) -> None:
    """What in a description will break a migration one day, and why.

    FILE is a stream or what -dump-vmstate printed. Exit code 1: something was found.
    """
    from vmstate_tools.compat.lint import lint_file

    frame = lint_file(file, against)
    rows = json.loads(frame.to_json(orient="records", default_handler=str))
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            where = " ".join(str(v) for k, v in row.items() if k not in ("rule", "why") and v not in (None, ""))
            click.echo(printable(f"{where}: {row['rule']}: {row['why']}"))
    sys.exit(1 if rows else 0)
