"""What each release of QEMU says of its ppc CPUs and of all devices: the functions of this room as `vt.catalog`.

The tables are in `data/catalog` and `data/source`, which `vmstate_tools.qemu_source` makes from QEMU's source.
"""

from __future__ import annotations

from vmstate_tools.facts import tables
from vmstate_tools.facts.changes import causes, changes, commits_of
from vmstate_tools.facts.cpu_section import section_fields, stream_words
from vmstate_tools.facts.device_frames import device_changes, source
from vmstate_tools.facts.families import (
    WORDS,
    Model,
    Words,
    aliases,
    families,
    family,
    host_flags,
    model,
    model_of_pvr,
    models,
    words,
)
from vmstate_tools.facts.family_history import history, history_rows
from vmstate_tools.facts.machines import default_cpu, gate, has_machine
from vmstate_tools.facts.properties import Value, compat, properties, value
from vmstate_tools.facts.releases import expect_release, resolve
from vmstate_tools.facts.source import descriptions, fields, machine_types, problems, registrations, types

__all__ = [
    "WORDS",
    "Model",
    "Value",
    "Words",
    "aliases",
    "causes",
    "changes",
    "commits_of",
    "compat",
    "default_cpu",
    "descriptions",
    "device_changes",
    "expect_release",
    "families",
    "family",
    "fields",
    "gate",
    "has_machine",
    "history",
    "history_rows",
    "host_flags",
    "machine_types",
    "model",
    "model_of_pvr",
    "models",
    "problems",
    "properties",
    "registrations",
    "resolve",
    "section_fields",
    "source",
    "stream_words",
    "table",
    "types",
    "value",
    "words",
]


def table(name: str) -> tuple[tables.Row, ...]:
    """Returns the rows of `data/catalog/NAME.csv`, column → cell, all text.

    Raises
    ------
    CatalogError : there is no such table.
    """
    return tables.rows("catalog", name)
