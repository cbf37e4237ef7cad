"""Where the command `vmstate` begins: `vmstate info FILE...` goes without the parser of all the others."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    command, *words = sys.argv[1:] or [""]
    # With 20 files there is a bar.
    if command != "info" or not 0 < len(words) < 20 or any(word.startswith("-") and word != "-" for word in words):
        from vmstate_tools.cli import main as every

        return every()
    gc.set_threshold(100_000)  # a tenth of the time, for next to nothing to collect
    from vmstate_tools.cli_info import plain

    try:
        code = plain(words)
        sys.stdout.flush()
    except BrokenPipeError:  # as click ends then
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:
        sys.stderr.write("Aborted!\n")
        code = 1
    sys.stderr.flush()
    os._exit(code)  # nothing is left to do that the system does not do faster
