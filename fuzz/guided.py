"""Holds the targets for atheris, which looks for inputs that reach new code: `python -m fuzz.guided TARGET CORPUS …`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["vmstate_tools"]):
    import vmstate_tools as vt
    from vmstate_tools.errors import StreamError
    from vmstate_tools.source import open_source
    from vmstate_tools.stream.stream import open_stream  # noqa: F401  instrumented with all it imports


def walk(data: bytes) -> None:
    """Reads any bytes as a stream, all of it; the first byte says how."""
    try:
        with vt.open(data[1:], partial=data[:1] > b"\x7f") as stream:
            stream.fields()
            stream.coverage()
            if stream.build() != stream.source.view:
                raise AssertionError("what is built is not the file")
    except StreamError:
        pass


def containers(data: bytes) -> None:
    """Reads any bytes as a compressed file, a libvirt save image or a qcow2 image; the first byte says how."""
    try:
        with open_source(data[1:], partial=data[:1] > b"\x7f") as source:
            bytes(source.view)
    except StreamError:
        pass


TARGETS: dict[str, Callable[[bytes], None]] = {"walk": walk, "containers": containers}


def main() -> None:
    """Runs libFuzzer on one target; what follows its name are libFuzzer's options and folders."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
