"""`vmstate …`: the group of all commands; each command's module is imported when the command is called.

Exit codes: 0 done; 1 the answer is no (a difference found, nothing matched); 2 bad input or usage.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import warnings
from typing import Any

import click

import vmstate_tools
from vmstate_tools.errors import VmstateError
from vmstate_tools.show.text import complain

# Command → its module here, and its function there where that has another name.
_COMMANDS = {
    "attach": "attach",
    "capture": "capture",
    "catalog": "catalog",
    "check": "check",
    "cpu": "cpu",
    "diff": "diff",
    "fields": "fields",
    "flag": "flag",
    "history": "history",
    "info": "info",
    "lint": "lint",
    "matrix": "matrix",
    "ram": "ram",
    "report": "report",
    "rewrite": "rewrite",
    "try": "try_",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for, after the pattern in click's documentation.

    What goes wrong with an input becomes one line on stderr and exit code 2.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"vmstate_tools.cli.{name}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk shows here, while it can still be reported
        except BrokenPipeError:
            raise  # click ends quietly
        except (VmstateError, OSError) as err:
            complain(err)
            ctx.exit(2)
        return result


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning of the package as one line, without the place in the source."""
    complain(f"warning: {message}")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(vmstate_tools.__version__, prog_name="vmstate")
def main() -> None:
    """Look into QEMU migration streams.

    FILE is a file that QEMU's `migrate` wrote, in whatever holds it: compressed, a libvirt save image, a qcow2
    image with an internal snapshot, a URL, or - for standard input.
    """
    # Nearly all that a command makes lives until it ends. To look for garbage in it, again and again, and once more at
    # the end, takes a third of its time.
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)
    # numpy would start a thread on each core for linear algebra, which is not done here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.stdout is None or sys.stderr is None or sys.stdin is None:
        _replace_closed_streams()


def _replace_closed_streams() -> None:
    """Puts the null device in the place of standard streams that the caller closed.

    Otherwise the next file that is opened would have the number of one of them, and be written to in its place.
    `sys.stdout` stays None: what would be printed is an error.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
