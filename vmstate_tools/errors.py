"""What can go wrong, each with the file, the byte offset and the section it went wrong in."""

from __future__ import annotations


def printable(text: str) -> str:
    """Returns text of a stream as a terminal may get it: control characters and bidi overrides become escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def plain_text(text: str) -> str:
    """Returns text that UTF-8 and CSV can hold: a byte of a name that is not UTF-8 becomes `\\udcff` (ff: the byte).

    A carriage return, which CSV writers leave bare and readers take for a line's end, becomes `\\r`.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\r", "\\r")


# The longest part of an error's text: names and values from a stream stand in it.
_MOST = 600


def _shown(text: str) -> str:
    text = text if len(text) <= _MOST else text[:_MOST] + "…"
    return printable(text)


class VmstateError(Exception):
    """VmstateError is the base of all errors that this package raises on purpose."""


class StreamError(VmstateError):
    """A migration stream, or the file around it, is not what it must be.

    Parameters
    ----------
    message : what was found, in a few words.
    offset : byte offset in the stream where it was found.
    section : the section being read, `idstr/instance_id`.
    expected : what should have stood there.
    file : path or URL as the user gave it.
    """

    def __init__(
        self,
        message: str,
        *,
        offset: int | None = None,
        section: str | None = None,
        expected: str | None = None,
        file: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.section = section
        self.expected = expected
        self.file = file

    def __str__(self) -> str:
        where = [printable(str(self.file))] if self.file is not None else []
        if self.offset is not None:
            where.append(f"offset {self.offset} (0x{self.offset:x})")
        if self.section is not None:
            where.append(f"section '{_shown(self.section)}'")
        text = _shown(self.message)
        if self.expected is not None:
            text += f"; expected {_shown(self.expected)}"
        return f"{', '.join(where)}: {text}" if where else text

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments need help to cross a process pool.
        return (_rebuild, (type(self), self.message, self.offset, self.section, self.expected, self.file))


def _rebuild(
    kind: type[StreamError],
    message: str,
    offset: int | None,
    section: str | None,
    expected: str | None,
    file: str | None,
) -> StreamError:
    return kind(message, offset=offset, section=section, expected=expected, file=file)


class TruncatedError(StreamError):
    """The stream ends where more of it was expected. On a pipe, more may be to come."""


class CatalogError(VmstateError):
    """A fact about QEMU was asked for that the catalog does not hold, or QEMU's source could not be read."""


class QemuError(VmstateError):
    """A QEMU process did not do what it was asked to.

    Parameters
    ----------
    message : what went wrong, in a few words.
    output : what QEMU printed.
    returncode : its exit code, or the negative number of the signal that ended it; None where it ran on.
    """

    def __init__(self, message: str, *, output: str = "", returncode: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.output = output
        self.returncode = returncode

    def __str__(self) -> str:
        lines = [printable(line) for line in self.output.splitlines() if line.strip()]
        return " | ".join([self.message, *lines])


class RewriteError(VmstateError):
    """A change that a stream cannot take, or that would make it say of the guest what is not so."""
