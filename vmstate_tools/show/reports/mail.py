"""Text as mailing lists want it, ASCII of 72 columns, and the draft of a mail with it."""

from __future__ import annotations

import email.policy
import email.utils
import io
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.generator import Generator
from email.message import EmailMessage
from typing import Any

from vmstate_tools.errors import printable

WIDTH = 72  # columns of a mail


def wrap(text: str, indent: int = 0, hang: int = 0) -> str:
    """Returns text broken into lines of 72 columns, the second and later ones indented by `hang` columns more."""
    return textwrap.fill(
        " ".join(printable(text).split()),
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_on_hyphens=False,
    )


def columns(heads: Sequence[str], rows: Iterable[Sequence[Any]], indent: int = 2) -> str:
    """Returns a table in plain text; columns whose head begins with `>` are numbers.

    The first column is cut where the table would be wider than 72 columns.
    """
    cells = [[h.lstrip(">") for h in heads], *([printable(str(v)) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    widths[0] = max(4, min(widths[0], WIDTH - indent - sum(widths[1:]) - 2 * (len(heads) - 1)))
    lines = []
    for row in cells:
        first = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 3] + "..."
        shown = [
            v.rjust(w) if h.startswith(">") else v.ljust(w)
            for h, v, w in zip(heads, [first, *row[1:]], widths, strict=True)
        ]
        lines.append(" " * indent + "  ".join(shown).rstrip())
    return "\n".join(lines)


def plain(text: str) -> str:
    """Returns text in ASCII without spaces at the ends of lines; other characters become escapes."""
    return "\n".join(line.rstrip() for line in text.encode("ascii", "backslashreplace").decode().splitlines()) + "\n"


def quoted(text: str) -> str:
    """Returns lines of another mail with `> ` before each; lines that have it already stay as they are."""
    return "".join(f"{line}\n" if line.startswith(">") else f"> {line}".rstrip() + "\n" for line in text.splitlines())


def draft(
    body: str,
    subject: str,
    *,
    sender: str = "",
    mail_to: Sequence[str] = (),
    cc: Sequence[str] = (),
    in_reply_to: str | None = None,
    quote: str | None = None,
    date: datetime | None = None,
) -> str:
    """Returns an mbox with one mail (RFC 5322), as `git send-email` and mail clients read it.

    Parameters
    ----------
    in_reply_to : the Message-ID of the mail that this one answers, with or without angle brackets; the subject then
        begins with `Re:`.
    quote : lines of that mail; they come first, with `> ` before each.
    sender, mail_to, cc : addresses; where `sender` is empty, whoever sends the mail fills in `From`.

    Raises ValueError where a header has a line break or another character that no header may have.
    """
    message = EmailMessage(policy=email.policy.SMTP.clone(linesep="\n", cte_type="7bit"))
    if sender:
        message["From"] = sender
    for name, addresses in (("To", mail_to), ("Cc", cc)):
        if addresses:
            message[name] = ", ".join(addresses)
    message["Subject"] = f"Re: {subject}" if in_reply_to and not subject.lower().startswith("re:") else subject
    moment = date or datetime.now(UTC)
    message["Date"] = email.utils.format_datetime(moment)
    message["Message-ID"] = email.utils.make_msgid(domain="vmstate-tools.invalid")
    if in_reply_to:
        parent = f"<{in_reply_to.strip().strip('<>')}>"
        message["In-Reply-To"] = message["References"] = parent
    marked = quoted(quote) + "\n" if quote else ""
    message.set_content(plain(marked) + body if quote else body, charset="us-ascii")
    message.set_unixfrom(f"From vmstate {moment.ctime()}")
    out = io.StringIO()
    Generator(out, mangle_from_=True).flatten(message, unixfrom=True)  # `From ` at the start of a line parts mails
    return out.getvalue()
