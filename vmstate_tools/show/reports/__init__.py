"""Reports say what a set of streams shows, or a known case, as text for a mailing list and as HTML."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from vmstate_tools.errors import VmstateError, printable
from vmstate_tools.facts import frame_names as _frame_names  # noqa: F401 - frames show names of flags and models
from vmstate_tools.frames.collection import Collection
from vmstate_tools.frames.loading import load
from vmstate_tools.show.reports import case_2016, case_2016_phrases, mail, phrases, pictures
from vmstate_tools.show.reports.cpu_words import WORDS
from vmstate_tools.show.reports.findings import findings
from vmstate_tools.show.reports.pairs import grids

Format = Literal["text", "html", "mbox"]

# Cases that need no streams, only the bundled data: name → title.
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
    """Returns a document that says which releases would refuse which of these streams, and why.

    Streams of the same configuration (machine type, CPU model and config, from the manifest beside them) that several
    releases wrote are compared with each other: what a release wrote shows what it expects.

    Parameters
    ----------
    streams : what `vt.load` takes, or the `Collection` that it returned.
    format : 'text' is plain ASCII of at most 72 columns; 'mbox' is the same text as the draft of a mail; 'html' is one
        self-contained page with charts.
    case : the name of a known case to report on instead of streams, a key of `CASES`; the bundled data are enough.
    to : further releases to check each stream against, as the catalog knows them.
    title : the heading of the document, and the subject of the mail.
    headers : for 'mbox', the parameters of `show.reports.mail.draft`: sender, mail_to, cc, in_reply_to, quote, date.

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
    """Returns the same `report` once for each of several formats."""
    for form in formats:
        if form not in ("text", "html", "mbox"):
            raise ValueError(f"format={form!r}: 'text', 'html' or 'mbox'")
    charts: Any = None
    if case is not None:
        if case not in CASES or streams:
            raise VmstateError(f"a case is one of {', '.join(CASES)}, and takes no streams")
        name, title = "case_2016", title or CASES[case]
        context: dict[str, Any] = {"found": case_2016.facts()}
        if "html" in formats:
            charts = pictures.of_case(context["found"])
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
    """Renders the template for one format."""
    if form == "html":
        return _environment(True).get_template(f"{template}.html.j2").render(**context)
    text = mail.plain(_environment(False).get_template(f"{template}.txt.j2").render(**context))
    return mail.draft(text, title, **headers) if form == "mbox" else text


def _environment(html: bool) -> Environment:
    """Returns Jinja2, strict, escaping for HTML; templates call `phrases` as `say`, its sister as `case_says`."""
    made = Environment(
        loader=PackageLoader(__name__),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {"wrap": mail.wrap, "number": "{:,}".format, "plain": lambda v: printable(str(v))}
    made.globals |= {"say": phrases, "case_says": case_2016_phrases}
    return made
