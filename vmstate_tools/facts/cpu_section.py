"""The section `cpu` of a ppc guest: its fields in each release, and the words that a stream carries in it.

Where in QEMU: target/ppc/machine.c (target-ppc/machine.c before 2.9), `vmstate_ppc_cpu`, since 1.6 (a90db1584a).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from vmstate_tools.facts.families import WORDS, words
from vmstate_tools.facts.machines import default_cpu, gate
from vmstate_tools.facts.releases import by_release, resolve, rows_at
from vmstate_tools.facts.tables import Row, rows
from vmstate_tools.release import Release
from vmstate_tools.stream.cpu_words import CPU_WORDS

if TYPE_CHECKING:
    import pandas as pd

WORD_OF_FIELD = {
    field: field.removeprefix("env.").removeprefix("mig_")
    for column, fields in CPU_WORDS.items()
    if column != "pvr"
    for field in fields
}
"""Name of a field that carries one of the four words → the word: `mig_insns_flags` → `insns_flags`."""

# Before it the section was written by hand (`cpu_save`), with msr_mask alone.
_DESCRIBED = Release("1.6")


def section_fields(release: str, machine: str | None = None, nearest: bool = False) -> pd.DataFrame:
    """Returns the CPU section's fields in stream order.

    Returns
    -------
    frame with vmsd, position, name, macro, treatment (plain, equal, test, unused), test, reads, elements,
    version, minimum, and, with `machine`, `present`: whether a field that depends on the machine type is there
    (None: it depends on the CPU's state). Position 0 is the VMState description itself. Empty before 1.6, when
    the section was written by hand (`cpu_save`).
    """
    import pandas as pd

    release = resolve(release, nearest)
    fields = _fields(release)
    numbers = ("position", "elements", "version", "minimum")
    columns = ["vmsd", "position", "name", "macro", "treatment", "test", "reads", "elements", "version", "minimum"]
    frame = pd.DataFrame([[row[column] for column in columns] for row in fields], columns=columns)
    for column in numbers:
        frame[column] = pd.to_numeric(frame[column]).astype("Int64")
    if machine is not None:
        frame["present"] = [_present(row, machine, release) for row in fields]
    return frame


@cache
def _fields_by_release() -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows("catalog", "fields"):
        found.setdefault(row["release"], []).append(row)
    return found


def _fields(release: str) -> list[Row]:
    # A release whose fields are those of the one before it has no rows of its own.
    return _fields_by_release().get(by_release()[Release(release)]["fields_as"], [])


def _present(row: Row, machine: str, release: str) -> bool | None:
    if row["treatment"] != "test":
        return True
    gates = {g["member"] for g in rows_at("gates", release)}
    # The test functions are conjunctions: one gate that is shut settles it.
    reads = [(member.lstrip("!"), not member.startswith("!")) for member in row["reads"].split()]
    opened = [gate(member, machine, release) == wanted for member, wanted in reads if member in gates]
    if not all(opened):
        return False
    return True if reads and len(opened) == len(reads) else None


@lru_cache(maxsize=4096)
def treatments(release: str, machine: str) -> dict[str, str]:
    """Returns, for each of the four words that the section has, how the release treats its field.

    Parameters
    ----------
    release : a catalogued release.

    Returns
    -------
    word → treatment (equal, plain, test …), in stream order; the word's field may be there by the name `mig_…`.
    """
    return {name.removeprefix("mig_"): treatment for name, treatment in _word_fields(release, machine)}


def _word_fields(release: str, machine: str) -> list[tuple[str, str]]:
    """Returns name (`insns_flags` or `mig_insns_flags`) and treatment of each field that carries one of the words."""
    there = [row for row in _fields(release) if row["vmsd"] == "cpu" and _present(row, machine, release)]
    named = [(row["name"].rsplit(".", 1)[-1], row["treatment"]) for row in there]
    return [(name, treatment) for name, treatment in named if name.removeprefix("mig_") in WORDS]


def stream_words(
    release: str,
    machine: str,
    cpu: str | None = None,
    accel: str = "tcg",
    nearest: bool = False,
    arch: str = "ppc64",
) -> dict[str, int]:
    """Returns the words as a stream of that release, machine type and CPU carries them.

    Parameters
    ----------
    cpu : as given to `-cpu`; None for the machine type's default.
    arch : as for `words`.

    Returns
    -------
    word → value for the words that the CPU section carries; empty where it carries none. Before 1.6 only msr_mask
    is there (`cpu_save`).

    Raises
    ------
    CatalogError : unknown release, machine type's default, CPU or accelerator.
    """
    release = resolve(release, nearest)
    names = ["msr_mask"] if Release(release) < _DESCRIBED else [name for name, _ in _word_fields(release, machine)]
    if not names:
        return {}
    found = words(cpu or default_cpu(machine, release, arch=arch), release, accel, machine, arch=arch)._asdict()
    sent = {}
    for name in names:
        word = name.removeprefix("mig_")
        sent[word] = _masked(word, found[word], machine, release) if name.startswith("mig_") else found[word]
    return sent


def _masked(word: str, value: int, machine: str, release: str) -> int:
    """Returns what `cpu_pre_save` makes of a word on the way out."""
    for row in sorted(rows_at("masks", release), key=lambda row: row["op"]):  # "and" comes before "or"
        if row["word"] == word and (not row["gate"] or gate(row["gate"], machine, release)):
            mask = int(row["value"], 16)
            value = value & mask if row["op"] == "and" else value | mask
    return value
