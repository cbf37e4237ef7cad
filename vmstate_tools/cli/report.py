"""The command that writes reports: `vmstate report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

import click

from vmstate_tools.cli.common import example, force_option, leave, manifest_option, new_file
from vmstate_tools.show.text import complain, standard_output

_FORMATS = {".html": "html", ".htm": "html", ".mbox": "mbox", ".eml": "mbox"}


@click.command(
    epilog=example(
        "vmstate report streams/ -o streams.html",
        "vmstate report *.mig.zst --to 2.7.0 -o mail.txt",
        "vmstate report a/ -o re.mbox --in-reply-to '<id@host>' --quote mail.txt",
        "vmstate report --case pseries-2016 -o case.txt",
    )
)
@click.argument("files", nargs=-1, metavar="DIR|FILE...")
@click.option("-o", "--output", "outs", metavar="OUT", multiple=True, help="Write to this file; repeatable.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "html", "mbox"]),
    help="Without it: html or mbox where OUT ends in .html or .mbox, else text.",
)
@click.option("--case", metavar="CASE", help="Instead of streams, from the bundled data alone: pseries-2016.")
@click.option("--to", metavar="R", multiple=True, help="A release to hold each stream against as well; repeatable.")
@click.option("--title", metavar="T", help="The heading; a mail's subject.")
@click.option("--in-reply-to", metavar="ID", help="mbox: Message-ID of the mail this answers.")
@click.option("--quote", type=click.File(encoding="utf-8"), help="mbox: lines of that mail to quote, from this file.")
@click.option("--from", "sender", metavar="ADDRESS", default="", help="mbox: who sends it.")
@click.option("--mail-to", metavar="ADDRESS", multiple=True, help="mbox: who gets it; repeatable.")
@click.option("--cc", metavar="ADDRESS", multiple=True, help="mbox: who gets a copy; repeatable.")
@manifest_option
@force_option
def report(
    files: tuple[str, ...],
    outs: tuple[str, ...],
    form: str | None,
    case: str | None,
    to: tuple[str, ...],
    title: str | None,
    quote: TextIO | None,
    manifest: str | None,
    force: bool,
    **headers: Any,
) -> None:
    """Report which of the streams would be refused by the releases that wrote the others, and why.

    A DIR stands for the *.mig* files in it. Text is 72 columns of ASCII, mbox the same as the draft of a mail, HTML
    one file that needs no other. Exit code 2: none of the streams could be read.
    """
    import vmstate_tools as vt
    from vmstate_tools.show.reports import render
    from vmstate_tools.source.new_file import new_text_file

    if bool(files) == bool(case):
        raise click.UsageError("say what to report on: streams, or --case")
    targets = [new_file(out, force) for out in outs]
    formats: list[Any] = [form or _FORMATS.get(Path(out).suffix.lower(), "text") for out in outs] or [form or "text"]
    headers |= {"title": title, "quote": quote.read() if quote else None}
    progress = None if sys.stderr.isatty() else False
    collection = vt.load(files, fields=False, progress=progress, manifest=manifest) if files else None
    inputs = [] if collection is None else [*collection.streams["file"], *collection.errors["file"]]
    texts = render(collection, formats, case=case, to=to, progress=progress, **headers)
    for target, text in zip(targets or [None], texts, strict=True):
        if target is None:
            standard_output().write(text)
        else:
            with new_text_file(target, overwrite=force, inputs=inputs) as out:
                out.write(text)
    for file in collection.errors["file"] if collection is not None else ():
        complain(f"warning: {file} could not be read; the report says why")
    leave(2 if collection is not None and collection.streams.empty else 0)
