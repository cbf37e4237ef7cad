"""Where the command `vmstate` begins: `info` and `fields` with nothing but simple options go without a parser."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Of these commands the options that are `--name VALUE`, and the values they may have; None: any.
_SIMPLE: dict[str, dict[str, tuple[str, ...] | None]] = {
    "info": {},
    "fields": {"--section": None, "--field": None, "--format": ("table", "json", "csv")},
}


def main() -> None:
    command, *words = sys.argv[1:] or [""]
    simple = _simple(words, _SIMPLE[command]) if command in _SIMPLE else None
    if simple is None:
        from vmstate_tools.cli import main as every

        return every()
    gc.set_threshold(100_000)  # a tenth of the time, for next to nothing to collect
    files, options = simple
    try:
        if command == "info":
            from vmstate_tools import cli_info

            code = cli_info.show(files, {})
        else:
            from vmstate_tools import cli_fields

            code = cli_fields.show(files, {}, **options)
        sys.stdout.flush()
    except OSError as err:  # of standard output: what is left of it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1  # as click ends then
        if not isinstance(err, BrokenPipeError):
            from vmstate_tools.cli_text import complain

            complain(err)
            code = 2
    except KeyboardInterrupt:
        sys.stderr.write("\nAborted!\n")
        code = 1
    sys.stderr.flush()
    os._exit(code)  # nothing is left to do that the system does not do faster


def _simple(words: list[str], known: dict[str, tuple[str, ...] | None]) -> tuple[list[str], dict[str, Any]] | None:
    """The files and the options; None where there is more than these to understand."""
    files: list[str] = []
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word == "-" or not word.startswith("-"):
            files.append(word)
            continue
        value = next(rest, "-")
        if word not in known or word in options or value.startswith("-") or value not in (known[word] or (value,)):
            return None
        options[word] = value
    names = {"--format": "form"}
    return (files, {names.get(word, word[2:]): value for word, value in options.items()}) if files else None
