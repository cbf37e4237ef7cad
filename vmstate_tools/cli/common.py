"""What the commands share: options, examples in their help, files they write."""

from __future__ import annotations

import re
from pathlib import Path

import click

from vmstate_tools.errors import VmstateError

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
force_option = click.option("--force", is_flag=True, help="Overwrite OUT if it exists.")


def example(*lines: str) -> str:
    """The epilog of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class Lists(click.Command):
    """A command whose repeatable options take several values: `--machine A B` for `--machine A --machine B`."""

    more = re.compile(".*", re.DOTALL)  # what can be another value, and not an argument

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
                if option and not first and self.more.fullmatch(word):
                    expanded.append(option)
                first = False
            expanded.append(word)
        return super().parse_args(ctx, expanded)


def new_file(out: str | None, force: bool) -> Path | None:
    """Where OUT shall be written. Raises VmstateError where something is there and `force` is not given."""
    if out is None:
        return None
    path = Path(out)
    if path.exists() and not force:
        raise VmstateError(f"{out} exists; --force overwrites it")
    return path
