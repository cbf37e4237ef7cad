"""How `data/catalog` is made: what each release says of its ppc CPUs, read release by release, as tables."""

from __future__ import annotations

import csv
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import changes, machines, ppc, vmsd
from vmstate_tools.qemu_source.git import Repo
from vmstate_tools.qemu_source.releases import ReleaseCommit, intervals, releases
from vmstate_tools.qemu_source.tree import SourceTree
from vmstate_tools.source.new_file import new_text_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: `hw/ppc` was laid out as today from this release on; streams carry the words from the next.
FIRST_MACHINES = (1, 5)


def build(qemu_git: Sequence[Path], out: Path, qemu_source: Sequence[Path] = ()) -> None:
    """Writes `releases`, `flags`, `families`, `models`, `aliases`, `adjustments`, `masks`, `fields`, `gates`,
    `machines` and `changes` (.csv) to `out`.

    Parameters
    ----------
    qemu_git : clones of QEMU, with or without tags; a release is taken from the first that has it.
    out : folder, made where missing. Files kept by hand there (`meanings.csv`, `README.md`) stay.
    qemu_source : source trees of releases that no clone has, unpacked or tarballs. What changed in them has no commit.

    Raises
    ------
    CatalogError : not a clone, not a source tree, nothing found, or source that is not understood.
    """
    with ExitStack() as stack:
        repos: list[Repo] = [stack.enter_context(Repo(path)) for path in qemu_git]
        repos += [stack.enter_context(SourceTree(path)) for path in qemu_source]
        found = releases(repos)
        if not found:
            raise CatalogError("no release of QEMU found in the given repositories")
        tables = _tables(found)
        tables["changes"] = changes.rows(found)
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            _write(out / f"{name}.csv", rows)


def _facts(release: ReleaseCommit) -> dict[str, dict[tuple[Any, ...], Any]]:
    """Returns table → what one release says, row → the columns that are not its key."""
    tree = ppc.Tree(release.repo, release.revision)
    facts = ppc.read(tree)
    fields, masks = vmsd.read(tree)
    cpus, cpus32 = (
        machines.default_cpus(ppc.Tree(release.repo, release.revision, config)) if release.key >= FIRST_MACHINES else {}
        for config in (ppc.PPC64, ppc.PPC32)
    )
    return {
        "flags": {(word, name, value): () for (word, name), value in facts.flags.items()},
        "families": {(name,): words for name, words in facts.families.items()},
        "models": {(name, *model): () for name, model in facts.models.items()},
        "aliases": dict.fromkeys(facts.aliases.items(), ()),
        "adjustments": dict.fromkeys(facts.adjustments, ()),
        "masks": dict.fromkeys(masks, ()),
        "fields": {(number, *row): () for number, row in enumerate(fields)},
        "gates": dict.fromkeys(machines.gates(tree), ()),
        "machines": {(name, cpu, cpus32.get(name, "")): () for name, cpu in cpus.items()},
    }


def _tables(found: list[ReleaseCommit]) -> dict[str, list[dict[str, Any]]]:
    with ProcessPoolExecutor() as pool:
        # Neighbours share files: each process gets a run of them.
        read = pool.map(_facts, found, chunksize=max(1, len(found) // 16))
        facts = tqdm(read, desc="releases", unit="release", total=len(found))
        per_release = dict(zip((release.name for release in found), facts, strict=True))
    same: dict[str, list[str]] = {"families": [], "fields": []}
    for table, names in same.items():
        for index, release in enumerate(found):
            before = found[index - 1] if index else None
            unchanged = (
                before is not None
                and release.kind == "stable"
                and before.key[:2] == release.key[:2]
                and per_release[before.name][table] == per_release[release.name][table]
            )
            names.append(names[-1] if unchanged else release.name)
    tables: dict[str, list[dict[str, Any]]] = {
        "releases": [
            {
                "release": r.name,
                "date": r.commit.date,
                "commit": r.commit.hash,
                "kind": r.kind,
                "families_as": same["families"][i],
                "fields_as": same["fields"][i],
            }
            for i, r in enumerate(found)
        ]
    }
    order = [r.name for r in found]
    columns = {
        "flags": ("word", "name", "value"),
        "models": ("model", "family", "pvr", "svr"),
        "aliases": ("alias", "model"),
        "adjustments": ("role", "word", "op", "value"),
        "masks": ("word", "op", "value", "gate"),
        "gates": ("member", "property", "default", "machine", "value"),
        "machines": ("machine", "cpu", "cpu_ppc"),
    }
    for table, names_ in columns.items():
        tables[table] = intervals({n: per_release[n][table] for n in order}, names_)
    tables["families"] = [
        {"release": name, "family": family, **words._asdict()}
        for name in dict.fromkeys(same["families"])
        for (family,), words in sorted(per_release[name]["families"].items())
    ]
    tables["fields"] = [
        {"release": name, **dict(zip(("order", *vmsd.Field._fields), row, strict=True))}
        for name in dict.fromkeys(same["fields"])
        for row in per_release[name]["fields"]
    ]
    return tables


_HEX = {"value", "pvr", "svr", "msr_mask", "insns_flags", "insns_flags2"}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    def shown(key: str, value: Any) -> Any:
        return f"{value:#x}" if key in _HEX and isinstance(value, int) else value

    with new_text_file(path, overwrite=True) as file:
        writer = csv.writer(file, lineterminator="\n")
        if rows:
            writer.writerow(rows[0])
            writer.writerows([shown(k, v) for k, v in row.items()] for row in rows)
