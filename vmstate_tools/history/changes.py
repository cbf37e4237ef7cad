"""Which commit changed what: the facts of every commit that touched them, compared with its parent's."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from vmstate_tools.errors import CatalogError
from vmstate_tools.history import machines, ppc, vmsd

if TYPE_CHECKING:
    from vmstate_tools.history import Release
    from vmstate_tools.history.git import Repo

Fact = tuple[str, str, str]

#: Kinds of fact, with the files (below the ppc folder, or "/path") they are read from.
_INIT = (*ppc.HEADERS, *ppc.INIT, *ppc.INIT_HELPERS)
_PARTS = {
    "cpu": (
        *_INIT,
        ppc.TRANSLATE,
        ppc.MODELS,
        "kvm.c",
        "/hw/ppc/spapr.c",
        "/hw/ppc/spapr_cpu_core.c",
        "/hw/spapr.c",
    ),
    "section": ("machine.c", "cpu.h"),
    "gates": (*ppc.INIT, "/hw/ppc/spapr.c"),
}
#: A commit matters only if a line it changes speaks of one of these.
_MATTERS = "|".join(
    (
        r"PPC2?_|MSR_|POWERPC_|PVR|SVR|DEF\(|^#",
        r"insns|msr_mask|BAT|init_proc|metamask|mig_|migration|compat",
        r"VMSTATE|vmstate|\{ *\"",
    )
)


def rows(found: list[Release]) -> list[dict[str, Any]]:
    """One row per changed fact: release that first has it, commit, and the value before and after.

    A fact that differs between two releases with no commit to show for it gets a row without commit.
    """
    table: list[dict[str, Any]] = []
    chain = [r for r in found if r.kind != "stable"]
    steps = list(pairwise(chain))
    for stable in (r for r in found if r.kind == "stable"):
        before = max((r for r in found if r.key < stable.key), key=lambda r: r.key, default=None)
        if before is not None and before.key[:2] == stable.key[:2]:
            steps.append((before, stable))
    with tqdm(steps, desc="changes", unit="step") as bar:
        for old, new in bar:
            bar.set_postfix_str(new.name)
            table += _step(old, new)
    return table


def _step(old: Release, new: Release) -> list[dict[str, Any]]:
    before, after = _all(old.repo, old.revision), _all(new.repo, new.revision)
    if before == after:
        return []
    repo = next(
        (r for r in (new.repo, old.repo) if _holds(r, old.commit.hash) and _holds(r, new.commit.hash)), None
    )
    found: list[dict[str, Any]] = []
    explained: dict[Fact, str] = {}
    if repo is not None:
        for commit in _commits(repo, old.commit.hash, new.commit.hash):
            try:
                changed = _difference(_all(repo, f"{commit}^"), _all(repo, commit))
            except CatalogError:
                continue  # a state between two releases that was never meant to be read; see the check below
            if changed:
                info = repo.commit(commit)
                for fact, (was, now) in changed.items():
                    explained[fact] = now
                    found.append(_row(new.name, info.hash, info.date, info.subject, fact, was, now))
    for fact, (was, now) in _difference(before, after).items():
        if explained.get(fact, was) != now:
            found.append(_row(new.name, "", new.commit.date, "", fact, was, now))
    return found


def _row(
    release: str, commit: str, date: str, subject: str, fact: Fact, was: str, now: str
) -> dict[str, Any]:
    return {
        "release": release,
        "commit": commit,
        "date": date,
        "subject": subject,
        "kind": fact[0],
        "item": fact[1],
        "word": fact[2],
        "before": was,
        "after": now,
    }


def _holds(repo: Repo, commit: str) -> bool:
    try:
        repo.git("cat-file", "-e", f"{commit}^{{commit}}")
    except CatalogError:
        return False
    return True


def _commits(repo: Repo, old: str, new: str) -> list[str]:
    paths = sorted({p for names in _PARTS.values() for n in names for p in _paths(n)})
    out = repo.git(
        "log", "--reverse", "--topo-order", "--no-merges", "--format=%H", "-G", _MATTERS, "--extended-regexp",
        f"{old}..{new}", "--", *paths,
    )  # fmt: skip
    return out.split()


def _paths(name: str) -> list[str]:
    return [name[1:]] if name.startswith("/") else [f"{folder}/{name}" for folder in ppc.FOLDERS]


_read: dict[tuple[Any, ...], dict[Fact, str]] = {}


def _all(repo: Repo, revision: str) -> dict[Fact, str]:
    tree = ppc.Tree(repo, revision)
    others = repo.blobs(revision, [n[1:] for n in _PARTS["cpu"] if n.startswith("/")])
    facts: dict[Fact, str] = {}
    for part, names in _PARTS.items():
        key = (
            part,
            *(
                others.get(n[1:]) if n.startswith("/") else tree.blobs.get(f"{tree.folder}/{n}")
                for n in names
            ),
        )
        if key not in _read:
            if len(_read) > 400:
                _read.clear()
            _read[key] = _facts(tree, part)
        facts |= _read[key]
    return facts


def _facts(tree: ppc.Tree, part: str) -> dict[Fact, str]:
    found: dict[Fact, str] = {}
    if part == "cpu":
        facts = ppc.read(tree)
        found |= {("flag", name, word): f"{value:#x}" for (word, name), value in facts.flags.items()}
        for family, words in facts.families.items():
            found |= {("family", family, word): f"{value:#x}" for word, value in words._asdict().items()}
        found |= {
            ("model", name, ""): f"{model.family} {model.pvr:#010x} {model.svr:#010x}"
            for name, model in facts.models.items()
        }
        found |= {("alias", alias, ""): model for alias, model in facts.aliases.items()}
        for item in facts.adjustments:
            key = ("adjustment", f"{item.role} {item.op}", item.word)
            value = item.value | int(found.get(key, "0"), 16) if item.op == "host" else item.value
            found[key] = f"{value:#x}"
    elif part == "section":
        fields, masks = vmsd.read(tree)
        found |= {("mask", mask.op, mask.word): f"{mask.value:#x} {mask.gate}".strip() for mask in masks}
        unused: dict[str, int] = {}
        for row in fields:
            name = row.name if row.position else row.vmsd
            if row.treatment == "unused":
                name = f"unused[{unused.setdefault(row.vmsd, 0)}]"
                unused[row.vmsd] += 1
            parts = (row.macro, row.treatment, row.test, row.elements, row.version, row.minimum)
            found["field", f"{row.vmsd}:{name}" if row.position else row.vmsd, ""] = " ".join(
                str(p) for p in parts if p not in ("", None)
            )
    else:
        for gate in machines.gates(tree):
            found["gate", gate.property, ""] = f"{gate.value} for pseries-{gate.machine} and older"
    return found


def _difference(before: dict[Fact, str], after: dict[Fact, str]) -> dict[Fact, tuple[str, str]]:
    keys = sorted(before.keys() | after.keys())
    return {k: (before.get(k, ""), after.get(k, "")) for k in keys if before.get(k, "") != after.get(k, "")}
