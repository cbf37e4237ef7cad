"""What the commands share: options, examples in their help, several values for one option, files they write."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vmstate_tools.errors import VmstateError

files_argument = click.argument("files", nargs=-1, required=True, metavar="FILE...")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
force_option = click.option("--force", is_flag=True, help="Overwrite OUT if it exists.")
spreadsheet_option = click.option(
    "--for-spreadsheet", is_flag=True, help="CSV: put ' before text that a spreadsheet would run as a formula."
)
manifest_option = click.option(
    "--manifest", metavar="CSV", help="The manifest.csv that says release and CPU model of the FILEs."
)
qemu_arguments = click.argument("arguments", nargs=-1, metavar="[-- QEMU OPTIONS]", type=click.UNPROCESSED)
accelerators = click.Choice(["tcg", "kvm"])


def opening_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how streams are opened; the command gets them as the dict `opening`."""

    @click.option(
        "--description", metavar="OTHER", help="Decode what FILE does not describe by the description in stream OTHER."
    )
    @click.option("--partial", is_flag=True, help="Show what came before an error instead of failing.")
    @click.option("--snapshot", metavar="NAME", help="Which internal snapshot of a qcow2 image.")
    @functools.wraps(command)
    def wrapped(*args: Any, description: str | None, partial: bool, snapshot: str | None, **kwargs: Any) -> Any:
        opening = {"description": description, "partial": partial, "snapshot": snapshot}
        return command(*args, opening=opening, **kwargs)

    return wrapped


def example(*lines: str) -> str:
    """Returns the epilog of a command's help: these command lines under a heading."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def leave(code: int) -> None:
    """Ends the command with this exit code, where it is not 0."""
    if code:
        click.get_current_context().exit(code)


def _known_policy(context: click.Context, option: click.Parameter, name: str | None) -> str | None:
    """Returns the name of a policy that there is. Raises VmstateError for any other."""
    from vmstate_tools.compat.policy import named

    try:
        named(name)
    except KeyError as err:
        raise VmstateError(err.args[0]) from None
    return name


policy_option = click.option(
    "--policy", metavar="P", callback=_known_policy, help="Treat the CPU's sanity-check words otherwise, e.g. ignore."
)


class Lists(click.Command):
    """Lists is a command whose repeatable options take several values, such as `--machine A B`."""

    another_value = re.compile(".*", re.DOTALL)  # what may follow a value as another one, and is not an argument

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {o for p in self.params if isinstance(p, click.Option) and p.multiple for o in p.opts}
        expanded: list[str] = []
        option, first = "", False
        for i, word in enumerate(args):
            if word == "--":
                expanded += args[i:]
                break
            if word.startswith("-"):
                option, first = (word if word in names else ""), True
            else:
                if option and not first and self.another_value.fullmatch(word):
                    expanded.append(option)
                first = False
            expanded.append(word)
        return super().parse_args(ctx, expanded)


def new_file(out: str | None, force: bool) -> Path | None:
    """Returns the path to write to. Raises VmstateError where something is there and `force` is not given."""
    if out is None:
        return None
    path = Path(out)
    if path.exists() and not force:
        raise VmstateError(f"{out} exists; --force overwrites it")
    return path
