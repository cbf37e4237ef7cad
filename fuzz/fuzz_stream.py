"""An atheris target: any bytes, opened and read as a whole. See README.md."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["vmstate_tools"]):
    import vmstate_tools as vt
    from vmstate_tools.errors import StreamError


def target(data: bytes) -> None:
    """The first byte says how the rest is opened."""
    try:
        with vt.open(data[1:], partial=bool(data[:1] > b"\x7f")) as stream:
            stream.fields()
            stream.coverage()
    except StreamError:
        pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
