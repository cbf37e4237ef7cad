"""`vmstate ram`: the guest's memory, as a file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from vmstate_tools.cli.common import example, force_option, new_file, opening_options
from vmstate_tools.errors import VmstateError
from vmstate_tools.show.text import complain


@click.command(epilog=example("vmstate ram guest.mig --block pc.ram -o pc.ram", "vmstate ram guest.mig -o memory/"))
@click.argument("file")
@click.option("--block", metavar="B", help="The RAM block's name; not needed where there is only one.")
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="A file, or a directory to put it into.")
@force_option
@opening_options
def ram(file: str, block: str | None, out: str, force: bool, opening: dict[str, Any]) -> None:
    """Write the guest's memory of one RAM block to a file, with holes where it is zero.

    In a directory the file has the block's name, with _ for each character but letters, digits, - and inner dots.
    """
    from vmstate_tools.cli.streams import open_file

    with open_file(file, opening) as stream:
        names = [b.name for b in stream.ram.block_list]
        if block is None and len(names) == 1:
            block = names[0]
        if block is None or block not in names:
            what = "name a RAM block with --block" if block is None else f"no RAM block {block!r}"
            raise VmstateError(f"{what}; {file} has {', '.join(names) or 'none'}")
        path = Path(out, _file_name(block)) if Path(out).is_dir() else Path(out)
        target = new_file(str(path), force)
        assert target is not None
        written = stream.ram.extract(block, target, overwrite=force, progress=sys.stderr.isatty())
        counts = stream.ram.page_counts()
        if not any(column[names.index(block)] for kind, column in counts.items() if kind not in ("block", "bytes")):
            complain(f"warning: the stream has no page of {block}: what the guest has there is not known")
    complain(f"{target}: {written:,} bytes of {block} are not zero")


def _file_name(block: str) -> str:
    """Returns a RAM block's name as the name of a file that stays in its directory and is not hidden."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", block).lstrip(".") or "_"
