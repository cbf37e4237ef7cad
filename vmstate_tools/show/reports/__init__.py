"""Reports: what a set of streams shows, or a known case, as text for a mailing list and as HTML."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from vmstate_tools.errors import VmstateError, printable
from vmstate_tools.frames.collection import Collection, load
from vmstate_tools.show.reports import case_2016 as thread
from vmstate_tools.show.reports import case_2016_phrases as thread_wording
from vmstate_tools.show.reports import mail, pictures
from vmstate_tools.show.reports import phrases as wording
from vmstate_tools.show.reports.cpu_words import WORDS
from vmstate_tools.show.reports.findings import findings
from vmstate_tools.show.reports.pairs import grids

Format = Literal["text", "html", "mbox"]

# Cases that are reported on from the bundled data alone: name -> title.
CASES = {"pseries-2016": "pseries guests do not migrate between QEMU 2.6 and 2.7"}


def report(
    streams: Collection | str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    format: Format = "text",  # noqa: A002 - the word users know
    *,
    case: str | None = None,
    to: Sequence[str] = (),
    title: str | None = None,
    progress: bool | None = None,
    **headers: Any,
) -> str:
    """Which of a set of streams their neighbours' writers would refuse, and why, as one document.

    Streams of one configuration (by the manifest beside them: machine type, CPU model, config) and several releases are
    held against each other: what a release wrote shows what it expects.

    Parameters
    ----------
    streams : what `load` takes, or what it returned.
    format : 'text', plain ASCII of at most 72 columns; 'mbox', the same as the draft of a mail; 'html', one
        self-contained page with charts.
    case : instead of streams a known case, from the bundled data alone: a key of `CASES`.
    to : releases that each stream is held against as well, as the catalog knows them.
    title : the document's heading, the mail's subject.
    headers : for 'mbox', of `reporting.mail.draft`: sender, mail_to, cc, in_reply_to, quote, date.

    Raises VmstateError where there is no stream at all or no such case, ValueError for another format.
    """
    return render(streams, [format], case=case, to=to, title=title, progress=progress, **headers)[0]


def render(
    streams: Collection | str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None,
    formats: Sequence[Format],
    *,
    case: str | None = None,
    to: Sequence[str] = (),
    title: str | None = None,
    progress: bool | None = None,
    **headers: Any,
) -> list[str]:
    """One `report` in several formats."""
    for form in formats:
        if form not in ("text", "html", "mbox"):
            raise ValueError(f"format={form!r}: 'text', 'html' or 'mbox'")
    charts: Any = None
    if case is not None:
        if case not in CASES or streams:
            raise VmstateError(f"a case is one of {', '.join(CASES)}, and takes no streams")
        name, title = "thread", title or CASES[case]
        context: dict[str, Any] = {"found": thread.thread()}
        if "html" in formats:
            charts = pictures.of_thread(context["found"])
    else:
        collection = (
            streams if isinstance(streams, Collection) else load(streams or [], fields=False, progress=progress)
        )
        if not len(collection) and not len(collection.errors):
            raise VmstateError("no streams to report on")
        found = findings(collection, to, progress)
        name, title = "report", title or "QEMU migration streams"
        context = {"found": found, "grids": grids(found.pairs, found.causes), "words": WORDS}
        if "html" in formats:
            charts = pictures.of_words(collection, found.changed)
    context |= {"title": title, "charts": charts}
    return [_document(name, form, title, context, headers) for form in formats]


def _document(template: str, form: Format, title: str, context: dict[str, Any], headers: dict[str, Any]) -> str:
    if form == "html":
        return str(_environment(True).get_template(f"{template}.html.j2").render(**context))
    text = mail.plain(_environment(False).get_template(f"{template}.txt.j2").render(**context))
    return mail.draft(text, title, **headers) if form == "mbox" else text


def _environment(html: bool) -> Any:
    """Jinja2, strict, escaping for HTML; the templates call the functions of `wording` and `thread_wording`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(__name__),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {"wrap": mail.wrap, "number": "{:,}".format, "plain": lambda v: printable(str(v))}
    made.globals |= {"say": wording, "case_says": thread_wording}
    return made
