"""One spelling for each CPU model: QEMU 2.11 began to spell those of ppc in lower case (target/ppc/cpu-models.c)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from vmstate_tools.facts.tables import rows
from vmstate_tools.release import Release


@functools.cache
def spellings() -> Mapping[str, str]:
    """Returns a model's name in lower case → as the first release with this model spelled it."""
    found: dict[str, str] = {}
    for row in sorted(rows("catalog", "models"), key=lambda row: Release(row["since"])):
        found.setdefault(row["model"].lower(), row["model"])
    return found


def one_spelling(model: str) -> str:
    """Returns the model's name as the first release with it spelled it; a model not in the catalog stays as it is."""
    return spellings().get(model.lower(), model)
