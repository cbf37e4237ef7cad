"""Predictions beside what real QEMUs do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vmstate_tools.emulator.binaries import find_binary, release_of
from vmstate_tools.emulator.event_loop import run
from vmstate_tools.emulator.tryload import try_load
from vmstate_tools.errors import QemuError

if TYPE_CHECKING:
    import pandas as pd

    Path_ = str | os.PathLike[str]


def confirm(
    verdicts: Any | Iterable[Any],
    binaries: Path_ | Sequence[Path_] | Mapping[str, Path_],
    *,
    progress: bool | None = None,
    timeout: float = 60,
    **options: Any,
) -> pd.DataFrame:
    """Returns predictions beside what real QEMUs do.

    Parameters
    ----------
    verdicts : `Verdict`s (of `vmstate_tools.check`): what has `stream`, `destination`, `loads` and `obstacles`.
    binaries : one binary for all, several, or release → binary. A verdict is tried on those of its destination's
        release; on all where its destination names none.
    timeout : seconds for each binary's start and for each load.
    options : for `try_load`.

    Returns
    -------
    A row per verdict and binary: stream, destination, qemu (its release), predicted, loaded (whether the stream was
    taken; None where QEMU did not start), agree, section and field (of the first obstacle), fail_field and
    message (of QEMU), status.

    Raises
    ------
    QemuError : none of the binaries is of a destination's release, or one does not start.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    if hasattr(verdicts, "loads"):
        verdicts = [verdicts]
    if isinstance(binaries, Mapping):
        known = [(str(release), find_binary(path)) for release, path in binaries.items()]
    else:
        given = [binaries] if isinstance(binaries, (str, os.PathLike)) else list(binaries)
        known = [(run(release_of(find_binary(path), timeout)), find_binary(path)) for path in given]
    pairs = [(verdict, *pair) for verdict in verdicts for pair in _of_release(known, str(verdict.destination))]
    rows = []
    for verdict, release, binary in tqdm(pairs, unit="load", disable=None if progress is None else not progress):
        outcome = try_load(verdict.stream, binary, timeout=timeout, **options)
        first = verdict.obstacles.iloc[0] if len(verdict.obstacles) else {}
        rows.append(
            {
                "stream": str(verdict.stream),
                "destination": str(verdict.destination),
                "qemu": release,
                "predicted": bool(verdict.loads),
                "loaded": outcome.vmstate_loaded,
                "agree": None if outcome.vmstate_loaded is None else bool(verdict.loads) == outcome.vmstate_loaded,
                "section": first.get("section"),
                "field": first.get("field"),
                "fail_field": outcome.fail_field,
                "message": outcome.message,
                "status": outcome.status,
            }
        )
    columns = ["stream", "destination", "qemu", "predicted", "loaded", "agree", "section", "field", "fail_field"]
    return pd.DataFrame(rows, columns=[*columns, "message", "status"])


def _of_release(known: list[tuple[str, str]], destination: str) -> list[tuple[str, str]]:
    """Returns the binaries of the release that a destination's text names: `QEMU 7.2.0, pseries-2.7, …`."""
    match = re.search(r"(?<![\w.-])v?(\d+\.\d+)(?:\.\d+)?\b", destination)
    if match is None:
        return known
    found = [(release, binary) for release, binary in known if re.match(rf"{re.escape(match[1])}(\.|$)", release)]
    if not found:
        have = ", ".join(release for release, _ in known) or "none"
        raise QemuError(f"no binary of release {match[1]} for destination {destination!r}; there are: {have}")
    return found
