"""Which commit changed what: the facts of every commit that touched them, compared with its parent's."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import machines, ppc, vmsd

if TYPE_CHECKING:
    from vmstate_tools.qemu_source.git import Repo
    from vmstate_tools.qemu_source.releases import ReleaseCommit

Fact = tuple[str, str, str]

#: Where the facts are read from: below the ppc folder, or "/path".
_INIT = (*ppc.HEADERS, *ppc.INIT, *ppc.INIT_HELPERS)
_SPAPR = ("/hw/ppc/spapr.c", "/hw/ppc/spapr_cpu_core.c", "/hw/spapr.c")
_FILES = (*_INIT, ppc.TRANSLATE, ppc.MODELS, "kvm.c", "machine.c", *_SPAPR)
#: A commit matters only if a line it changes speaks of one of these.
_MATTERS = "|".join(
    (
        r"PPC2?_|MSR_|POWERPC_|PVR|SVR|DEF\(|^#",
        r"insns|msr_mask|BAT|init_proc|metamask|mig_|migration|compat",
        r"VMSTATE|vmstate|\{ *\"",
    )
)


def rows(found: list[ReleaseCommit]) -> list[dict[str, Any]]:
    """Returns one row per changed fact: release that first has it, commit, and the value before and after.

    A fact that differs between two releases with no commit to show for it gets a row without commit.
    """
    with ProcessPoolExecutor() as pool:
        steps = [pool.submit(_step, step) for step in _steps(found)]
        for _ in tqdm(as_completed(steps), desc="changes", unit="step", total=len(steps)):
            pass
    return [row for step in steps for row in step.result()]


def _steps(found: list[ReleaseCommit]) -> list[tuple[ReleaseCommit, ReleaseCommit]]:
    """Returns the steps from release to release, and within each stable series from its first release on."""
    steps = list(pairwise([r for r in found if r.kind != "stable"]))
    series = (pair for pair in pairwise(found) if pair[0].key[:2] == pair[1].key[:2])
    return steps + [(old, new) for old, new in series if new.kind == "stable"]


def _step(step: tuple[ReleaseCommit, ReleaseCommit]) -> list[dict[str, Any]]:
    old, new = step
    before, after = _all(old.repo, old.revision), _all(new.repo, new.revision)
    if before == after:
        return []
    repo = next((r for r in (new.repo, old.repo) if _holds(r, old.commit.hash) and _holds(r, new.commit.hash)), None)
    found: list[dict[str, Any]] = []
    explained: dict[Fact, str] = {}
    if repo is not None:
        for commit in _commits(repo, old.commit.hash, new.commit.hash):
            # A state halfway through a rewrite cannot be read: its child is compared with its parent.
            facts, parent = _readable(repo, commit, 1), _readable(repo, f"{commit}^", 9)
            changed = _difference(parent, facts) if parent is not None and facts is not None else {}
            if changed:
                info = repo.commit(commit)
                for fact, (was, now) in changed.items():
                    explained[fact] = now
                    found.append(_row(new.name, info.hash, info.date, info.subject, fact, was, now))
    for fact, (was, now) in _difference(before, after).items():
        if explained.get(fact, was) != now:
            found.append(_row(new.name, "", new.commit.date, "", fact, was, now))
    return found


def _readable(repo: Repo, revision: str, tries: int) -> dict[Fact, str] | None:
    """Facts of a revision, or of the nearest ancestor that can be read."""
    for back in range(tries):
        try:
            return _all(repo, f"{revision}~{back}")
        except CatalogError:
            continue
    return None


def _row(release: str, commit: str, date: str, subject: str, fact: Fact, was: str, now: str) -> dict[str, Any]:
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
    paths = sorted({p for name in _FILES for p in _paths(name)})
    out = repo.git(
        "log", "--reverse", "--topo-order", "--no-merges", "--format=%H", "-G", _MATTERS, "--extended-regexp",
        f"{old}..{new}", "--", *paths,
    )  # fmt: skip
    return out.split()


def _paths(name: str) -> list[str]:
    return [name[1:]] if name.startswith("/") else [f"{folder}/{name}" for folder in ppc.FOLDERS]


_read: dict[tuple[Any, ...], dict[Fact, str]] = {}


def _all(repo: Repo, revision: str) -> dict[Fact, str]:
    """Returns every fact of a revision; a part whose sources are as they were is not read again."""
    tree = ppc.Tree(repo, revision)

    def of(*names: str) -> tuple[str | None, ...]:
        return tuple(tree.blobs.get(f"{tree.folder}/{name}") for name in names)

    # Until 0.13 the flags stood in translate.c, which changes often.
    constants = of(*_INIT, *(() if _flags_in_header(tree) else (ppc.TRANSLATE,)))
    keys: dict[str, tuple[Any, ...]] = {
        "cpu": constants,
        "models": constants if not tree.has(ppc.MODELS) else of(ppc.MODELS, *ppc.HEADERS),
        "adjustments": (of(*ppc.HEADERS), tuple(ppc.altering(tree))),
        "section": of("machine.c", *ppc.HEADERS),
        "gates": (*of(*ppc.INIT), *(tree.blobs.get(name[1:]) for name in _SPAPR)),
    }
    facts: dict[Fact, str] = {}
    for part, key in keys.items():
        if (part, key) not in _read:
            if len(_read) > 1000:
                _read.clear()
            _read[part, key] = _PARTS[part](tree)
        facts |= _read[part, key]
    return facts


def _flags_in_header(tree: ppc.Tree) -> bool:
    return "PPC_INSNS_BASE" in (tree.repo.read(tree.revision, f"{tree.folder}/cpu.h") or "")


def _cpu(tree: ppc.Tree) -> dict[Fact, str]:
    found = {("flag", name, word): f"{value:#x}" for (word, name), value in ppc.flags(tree).items()}
    for family, words in ppc.families(tree).items():
        found |= {("family", family, word): f"{value:#x}" for word, value in words._asdict().items()}
    return found


def _models(tree: ppc.Tree) -> dict[Fact, str]:
    models, aliases = ppc.models(tree)
    found = {("model", n, ""): f"{m.family} {m.pvr:#010x} {m.svr:#010x}" for n, m in models.items()}
    return found | {("alias", alias, ""): model for alias, model in aliases.items()}


def _adjustments(tree: ppc.Tree) -> dict[Fact, str]:
    found: dict[Fact, str] = {}
    for item in ppc.adjustments(tree):
        key = ("adjustment", f"{item.role} {item.op}", item.word)
        value = item.value | int(found.get(key, "0"), 16) if item.op == "host" else item.value
        found[key] = f"{value:#x}"
    return found


def _section(tree: ppc.Tree) -> dict[Fact, str]:
    fields, masks = vmsd.read(tree)
    found: dict[Fact, str] = {("mask", m.op, m.word): f"{m.value:#x} {m.gate}".strip() for m in masks}
    unused: dict[str, int] = {}
    for row in fields:
        name = row.name
        if row.treatment == "unused":
            name = f"unused[{unused.setdefault(row.vmsd, 0)}]"
            unused[row.vmsd] += 1
        parts = (row.macro, row.treatment, row.test, row.elements, row.version, row.minimum)
        item = f"{row.vmsd}:{name}" if row.position else row.vmsd
        found["field", item, ""] = " ".join(str(p) for p in parts if p not in ("", None))
    return found


def _gates(tree: ppc.Tree) -> dict[Fact, str]:
    return {
        ("gate", gate.property, ""): f"{gate.value} for pseries-{gate.machine} and older"
        for gate in machines.gates(tree)
    }


_PARTS = {"cpu": _cpu, "models": _models, "adjustments": _adjustments, "section": _section, "gates": _gates}


def _difference(before: dict[Fact, str], after: dict[Fact, str]) -> dict[Fact, tuple[str, str]]:
    keys = sorted(before.keys() | after.keys())
    return {k: (before.get(k, ""), after.get(k, "")) for k in keys if before.get(k, "") != after.get(k, "")}
