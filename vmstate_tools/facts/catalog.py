"""What each release of QEMU says of its ppc CPUs: families, models, words, and what of them a stream carries.

Read from `data/catalog`, which `vmstate_tools.qemu_source` makes from QEMU's source. The values are those of
qemu-system-ppc64; with `arch="ppc"` those of qemu-system-ppc, which lacks the families with PPC_64B and whose
msr_mask has 32 bits.
"""

from __future__ import annotations

import csv
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import flags
from vmstate_tools.facts.flags import release_key

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    import pandas as pd

WORDS = ("msr_mask", "insns_flags", "insns_flags2", "nb_BATs")
_ALL_ONES = 0xFFFF_FFFF_FFFF_FFFF


class Words(NamedTuple):
    """The four words of a CPU; the names are those of QEMU's fields."""

    msr_mask: int
    insns_flags: int
    insns_flags2: int
    nb_BATs: int  # noqa: N815


class Model(NamedTuple):
    """A CPU model: its name as the release spells it, family, PVR and SVR."""

    name: str
    family: str
    pvr: int
    svr: int


Row = dict[str, str]


@cache
def table(name: str) -> tuple[Row, ...]:
    """The rows of one catalog file as they stand, all text.

    Raises
    ------
    CatalogError : no such file.
    """
    path = data_path("catalog", f"{name}.csv")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(csv.DictReader(file))
    except FileNotFoundError:
        raise CatalogError(f"the catalog has no {name}.csv ({path})") from None


@cache
def _releases() -> dict[tuple[int, ...], Row]:
    return {release_key(row["release"]): row for row in table("releases")}


@lru_cache(maxsize=1024)
def resolve(release: str, nearest: bool = False) -> str:
    """The catalogued release that answers for a given one.

    A stable release that is not catalogued (its source was not at hand, or it is newer) is answered by the
    newest catalogued one before it in its series: `7.2.22` by `7.2.0`.

    Parameters
    ----------
    release : `2.7`, `2.7.0`, `v2.7.0`.
    nearest : for a series that is not catalogued, take the newest release before it instead of failing.

    Raises
    ------
    CatalogError : not a release, or a series the catalog has a gap for.
    """
    wanted = release_key(release)
    older = [key for key in _releases() if key <= wanted and _kind(key) != "development"] or []
    if wanted in _releases():
        return _releases()[wanted]["release"]
    series = [key for key in older if key[:2] == wanted[:2]]
    if series:
        return _releases()[max(series)]["release"]
    if nearest and older:
        return _releases()[max(older)]["release"]
    known = sorted(_releases())
    ends = f"{_releases()[known[0]]['release']} to {_releases()[known[-1]]['release']}" if known else "nothing"
    raise CatalogError(f"QEMU {release} is not in the catalog, which covers {ends}")


def expect_release(release: str) -> None:
    """Raises CatalogError where QEMU never had such a release; what is newer than the catalog passes."""
    if release_key(release) < max(_releases(), default=()):
        resolve(release)


def _kind(key: tuple[int, ...]) -> str:
    return _releases()[key]["kind"]


@cache
def _at(name: str, release: str) -> list[Row]:
    """Rows of a table with `since` and `until` that hold in a (catalogued) release."""
    wanted = release_key(release)
    return [
        row
        for row in table(name)
        if release_key(row["since"]) <= wanted and (not row["until"] or wanted <= release_key(row["until"]))
    ]


@cache
def _models(release: str, arch: str = "ppc64") -> dict[str, Model]:
    """Lower-case model name → model."""
    there = _families(release, arch)
    return {
        row["model"].lower(): Model(row["model"], row["family"], int(row["pvr"], 16), int(row["svr"], 16))
        for row in _at("models", release)
        if row["family"] in there
    }


@cache
def _aliases(release: str) -> dict[str, str]:
    return {row["alias"].lower(): row["model"] for row in _at("aliases", release)}


@cache
def _families(release: str, arch: str = "ppc64") -> dict[str, Words]:
    if arch not in ("ppc64", "ppc"):
        raise CatalogError(f"unknown arch {arch!r}: there are 'ppc64' and 'ppc'")
    key = _releases()[release_key(release)]["families_as"]
    found = {
        row["family"]: Words(
            int(row["msr_mask"], 16),
            int(row["insns_flags"], 16),
            int(row["insns_flags2"], 16),
            int(row["nb_BATs"]),
        )
        for row in table("families")
        if row["release"] == key
    }
    if arch == "ppc64":
        return found
    wide = flags.encode("insns_flags", ["PPC_64B"])
    narrow = {name: words for name, words in found.items() if not words.insns_flags & wide}
    return {name: words._replace(msr_mask=words.msr_mask & 0xFFFF_FFFF) for name, words in narrow.items()}


def model(cpu: str, release: str, nearest: bool = False, arch: str = "ppc64") -> Model:
    """The model `-cpu` means in a release: by name or alias, any case; options after a comma are dropped.

    Raises
    ------
    CatalogError : unknown model, or `host`, which only the host can tell.
    """
    release = resolve(release, nearest)
    name = cpu.split(",")[0].strip().lower()
    known = _models(release, arch)
    seen: set[str] = set()
    while name not in known and name in _aliases(release) and name not in seen:
        seen.add(name)
        name = _aliases(release)[name].lower()
    try:
        return known[name]
    except KeyError:
        raise CatalogError(f"QEMU {release} has no {arch} CPU model {cpu!r}") from None


def model_of_pvr(pvr: int, release: str, nearest: bool = False) -> list[Model]:
    """Models with exactly this PVR; empty where there is none."""
    return [m for m in _models(resolve(release, nearest)).values() if m.pvr == pvr]


def family(cpu: str, release: str, nearest: bool = False, arch: str = "ppc64") -> str:
    """The family a family's name, a model or an alias stands for; a model's name goes before a family's.

    Raises
    ------
    CatalogError : neither.
    """
    release = resolve(release, nearest)
    try:
        return model(cpu, release, arch=arch).family
    except CatalogError:
        for name in _families(release, arch):
            if name.lower() == cpu.lower():
                return name
        raise CatalogError(f"QEMU {release} has no {arch} CPU model or family {cpu!r}") from None


def models(release: str, nearest: bool = False) -> list[Model]:
    """Every model of a release."""
    return list(_models(resolve(release, nearest)).values())


def families(release: str, nearest: bool = False, arch: str = "ppc64") -> list[str]:
    """The names of a release's families."""
    return list(_families(resolve(release, nearest), arch))


def has_machine(machine: str, release: str, nearest: bool = False) -> bool:
    """Whether a release has a machine type (of those whose default CPU is known; since 1.5)."""
    return any(row["machine"] == machine for row in _at("machines", resolve(release, nearest)))


def default_cpu(machine: str, release: str, nearest: bool = False, arch: str = "ppc64") -> str:
    """The CPU a machine type takes under TCG where `-cpu` is not given.

    Raises
    ------
    CatalogError : machine type unknown in that release, or its default could not be read from the source.
    """
    release = resolve(release, nearest)
    column = "cpu" if arch == "ppc64" else "cpu_ppc"
    cpus = {row["machine"]: row[column] for row in _at("machines", release)}
    if not cpus.get(machine) or (arch == "ppc" and machine.startswith("pseries")):
        raise CatalogError(f"no default CPU known for machine {machine!r} in QEMU {release}")
    return cpus[machine]


def words(
    cpu: str,
    release: str,
    accel: str | None = "tcg",
    machine: str | None = None,
    nearest: bool = False,
    arch: str = "ppc64",
) -> Words:
    """The words a running CPU has.

    Parameters
    ----------
    cpu : a family (`POWER8`), model or alias.
    release : see `resolve`.
    accel : "tcg" drops what TCG does not emulate (`PPC_TCG_INSNS`, `PPC_TCG_INSNS2`); "kvm" leaves the
        class's words, to which a host that lacks VMX, VSX or DFP makes exceptions (see `host_flags`); None
        gives the class's words as they stand.
    machine : "pseries…" drops what that machine never lets a guest have (`cpu_ppc_set_papr`, later
        `cpu_ppc_set_vhyp`). None: any other machine.
    arch : "ppc64" or "ppc": of qemu-system-ppc64 or qemu-system-ppc.

    Raises
    ------
    CatalogError : unknown release, CPU, accelerator or arch.
    """
    release = resolve(release, nearest)
    found = _families(release, arch)[family(cpu, release, arch=arch)]
    if accel not in ("tcg", "kvm", None):
        raise CatalogError(f"unknown accelerator {accel!r}: there are 'tcg' and 'kvm'")
    roles = {"tcg"} if accel == "tcg" else set()
    if machine is not None and machine.startswith("pseries"):
        roles.add("pseries")
    for row in _at("adjustments", release):
        if row["role"] in roles:
            found = found._replace(**{row["word"]: getattr(found, row["word"]) & int(row["value"], 16)})
    return found


def host_flags(release: str, nearest: bool = False) -> dict[str, int]:
    """Word → bits that KVM takes from the host instead of the CPU's class (VMX, VSX, DFP)."""
    found: dict[str, int] = {}
    for row in _at("adjustments", resolve(release, nearest)):
        if row["role"] == "kvm":
            found[row["word"]] = found.get(row["word"], 0) | int(row["value"], 16)
    return found


def gate(member: str, machine: str, release: str, nearest: bool = False) -> bool:
    """Whether a machine type sets a CPU property that gates fields, e.g. `pre_2_8_migration`.

    Raises
    ------
    CatalogError : no such property in that release.
    """
    release = resolve(release, nearest)
    rows = [row for row in _at("gates", release) if row["member"] == member]
    if not rows:
        raise CatalogError(f"no CPU property {member!r} in QEMU {release}")
    version = re.match(r"pseries-(\d+)\.(\d+)", machine)
    for row in rows:
        major, minor = row["machine"].split(".")
        if version is not None and (int(version[1]), int(version[2])) <= (int(major), int(minor)):
            return row["value"] in ("on", "true")
    return rows[0]["default"] == "true"


def section_fields(release: str, machine: str | None = None, nearest: bool = False) -> pd.DataFrame:
    """The CPU section's fields in stream order.

    Returns
    -------
    frame with vmsd, position, name, macro, treatment (plain, equal, test, unused), test, reads, elements,
    version, minimum, and, with `machine`, `present`: whether a field that hangs on a machine type is there
    (None: it hangs on the CPU's state). Position 0 is the VMState description itself. Empty before 1.6, when
    the section was written by hand (`cpu_save`).
    """
    import pandas as pd

    release = resolve(release, nearest)
    rows = _fields(release)
    frame = pd.DataFrame(
        [{k: v for k, v in row.items() if k not in ("release", "order")} for row in rows],
        columns=[
            "vmsd",
            "position",
            "name",
            "macro",
            "treatment",
            "test",
            "reads",
            "elements",
            "version",
            "minimum",
        ],
    )
    for column in ("position", "elements", "version", "minimum"):
        frame[column] = pd.to_numeric(frame[column]).astype("Int64")
    if machine is not None:
        frame["present"] = [_present(row, machine, release) for row in rows]
    return frame


@cache
def _fields(release: str) -> list[Row]:
    key = _releases()[release_key(release)]["fields_as"]
    return [row for row in table("fields") if row["release"] == key]


def _present(row: Row, machine: str, release: str) -> bool | None:
    if row["treatment"] != "test":
        return True
    gates = {g["member"] for g in _at("gates", release)}
    # The test functions are conjunctions: one gate that is shut settles it.
    reads = [(member.lstrip("!"), not member.startswith("!")) for member in row["reads"].split()]
    opened = [gate(member, machine, release) == wanted for member, wanted in reads if member in gates]
    if not all(opened):
        return False
    return True if reads and len(opened) == len(reads) else None


def stream_words(
    release: str,
    machine: str,
    cpu: str | None = None,
    accel: str = "tcg",
    nearest: bool = False,
    arch: str = "ppc64",
) -> dict[str, int]:
    """The words as a stream of that release, machine type and CPU carries them.

    Parameters
    ----------
    cpu : as given to `-cpu`; None for the machine type's default.
    arch : as for `words`.

    Returns
    -------
    word → value for the words the CPU section carries; empty where it carries none. Before 1.6 only msr_mask
    is there (`cpu_save`).

    Raises
    ------
    CatalogError : unknown release, machine type's default, CPU or accelerator.
    """
    release = resolve(release, nearest)
    if release_key(release) < (1, 6):
        carried = {"msr_mask": "msr_mask"}
    else:
        fields = [row for row in _fields(release) if row["vmsd"] == "cpu" and _present(row, machine, release)]
        names = [row["name"].rsplit(".", 1)[-1] for row in fields]
        carried = {name: name.removeprefix("mig_") for name in names if name.removeprefix("mig_") in WORDS}
    if not carried:
        return {}
    found = words(cpu or default_cpu(machine, release, arch=arch), release, accel, machine, arch=arch)._asdict()
    return {
        word: _masked(word, found[word], machine, release) if name.startswith("mig_") else found[word]
        for name, word in carried.items()
    }


def _masked(word: str, value: int, machine: str, release: str) -> int:
    """What `cpu_pre_save` makes of a word on the way out."""
    for row in sorted(_at("masks", release), key=lambda row: row["op"]):  # "and" comes before "or"
        if row["word"] == word and (not row["gate"] or gate(row["gate"], machine, release)):
            mask = int(row["value"], 16)
            value = value & mask if row["op"] == "and" else value | mask
    return value


def changes(item: str | None = None, kind: str | None = None) -> pd.DataFrame:
    """Every fact that changed and the commit that changed it.

    Parameters
    ----------
    item : a family, flag, model, alias, property or field.
    kind : family, flag, model, alias, adjustment, mask, gate or field.

    Returns
    -------
    frame with release (the first that has it), commit (40 digits, "" where none could be found), date,
    subject, kind, item, word, before, after.
    """
    import pandas as pd

    rows = [r for r in table("changes") if item in (None, r["item"]) and kind in (None, r["kind"])]
    columns = ["release", "commit", "date", "subject", "kind", "item", "word", "before", "after"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["date"] = pd.to_datetime(frame["date"])
    return frame


def causes(
    release: str,
    before: Mapping[str, int],
    after: Mapping[str, int],
    families: Container[str],
    moved: Iterable[str] = (),
    accel: str | None = None,
    machine: str | None = None,
    sent: bool = False,
) -> list[dict[str, Any]]:
    """The commits behind a difference between a release and the one before it: those that changed a bit of it.

    Parameters
    ----------
    before, after : the words, by name; a word may be absent.
    families, moved : whose changes count; a model's is that it moved to another family.
    accel, machine : as for `words`: whose masks count.
    sent : words of streams: what `cpu_pre_save` does to them counts too, and whether the section has them.

    Returns
    -------
    list of {commit, date, subject, word, bits}, oldest first: `bits` of `word` that differ and that the commit changed,
    all of them for a model that moved (word ""). A commit that changed two words is there twice.
    """
    differ = {w: before[w] ^ after[w] if w in before and w in after else _ALL_ONES for w in {*before, *after}}
    lower = {name.lower() for name in moved}
    masking = ({"tcg and"} if accel == "tcg" else set()) | (
        {"pseries and"} if machine is not None and machine.startswith("pseries") else set()
    )
    found: list[dict[str, Any]] = []
    for row in table("changes"):
        if row["release"] != release or not row["commit"]:
            continue
        kind, item, word, bits = row["kind"], row["item"], row["word"], 0
        if kind == "family" and item in families and row["before"] and row["after"]:
            bits = int(row["before"], 16) ^ int(row["after"], 16)
        elif (kind == "adjustment" and item in masking) or (kind == "mask" and sent):
            nothing = 0 if item == "or" else _ALL_ONES
            was, now = (int(row[k].split()[0], 16) if row[k] else nothing for k in ("before", "after"))
            bits = was ^ now
        elif kind == "model" and item.lower() in lower and row["before"] and row["after"]:
            bits = _ALL_ONES if row["before"].split()[0] != row["after"].split()[0] else 0
        elif kind == "field" and sent:
            word = item.removeprefix("cpu:").removeprefix("env.").removeprefix("mig_")
            bits = _ALL_ONES if (word in before) != (word in after) else 0
        if word:
            bits &= differ.get(word, 0)
        if bits:
            found.append({**{k: row[k] for k in ("commit", "date", "subject")}, "word": word, "bits": bits})
    return found


def history_rows(
    family_name: str,
    accel: str | None = None,
    machine: str | None = None,
    stable: bool = False,
    sent: bool = False,
) -> list[dict[str, Any]]:
    """The rows of `history`, without pandas: date as YYYY-MM-DD, None for a word that no stream carries."""
    if sent and machine is None:
        raise CatalogError("what a stream carries depends on the machine type: name one")
    found: list[dict[str, Any]] = []
    before: Mapping[str, int] | None = None
    for row in table("releases"):
        if not stable and row["kind"] != "release":
            continue
        release = row["release"]
        try:
            name = family(family_name, release)
        except CatalogError:
            before = None
            continue
        now: Mapping[str, int]
        if sent and machine is not None:
            if not has_machine(machine, release):
                before = None
                continue
            now = stream_words(release, machine, name, accel or "tcg")
        else:
            now = words(name, release, accel, machine)._asdict()
        change = flags.diff(before or {}, now, release)
        # What went is named as it was called before.
        gone = flags.diff(before or {}, now, found[-1]["release"] if found else None)
        by = []
        if before is not None:
            # A name that stood for a model of another family before: its models moved.
            moved = [m.name for m in models(release) if m.family == name] if found[-1]["family"] != name else []
            by = causes(release, before, now, {name}, moved, accel, machine, sent)
        found.append(
            {
                "release": release,
                "date": row["date"],
                "family": name,
                **{word: now.get(word) for word in WORDS},
                "added": [n for d in change.values() for n in d.added],
                "removed": [n for d in gone.values() for n in d.removed],
                "commits": commits_of(by),
            }
        )
        before = now
    if not found:
        on = f" on machine {machine!r}" if sent else ""
        raise CatalogError(f"no release in the catalog has a ppc64 CPU family, model or alias {family_name!r}{on}")
    return found


def history(
    family_name: str,
    accel: str | None = None,
    machine: str | None = None,
    stable: bool = False,
    sent: bool = False,
) -> pd.DataFrame:
    """One family through the releases.

    Parameters
    ----------
    family_name : as a release spells it, any case; a model or alias stands for its family.
    accel, machine : as for `words`; by default the class's own words.
    stable : stable releases too, and the development state after the newest.
    sent : the words as a stream of `machine` carries them (`stream_words`), NA where it carries none; only
        releases that have the machine type.

    Returns
    -------
    A row per release that has the family: release, date, family, msr_mask, insns_flags and insns_flags2
    (uint64; UInt64 if `sent`), nb_BATs, added and removed (lists of flag names over the three words, against
    the row before, of words that both have) and commits (list of {commit, date, subject}: see `causes`).

    Raises
    ------
    CatalogError : no release has such a family, model or alias; `sent` without `machine`.
    """
    import pandas as pd

    frame = pd.DataFrame(history_rows(family_name, accel, machine, stable, sent))
    frame["date"] = [pd.Timestamp(date) for date in frame["date"]]
    return frame.astype(dict.fromkeys(flags.WORDS, "UInt64" if sent else "uint64"))


def commits_of(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each commit of `causes` once: {commit, date, subject}."""
    return list({c["commit"]: {k: c[k] for k in ("commit", "date", "subject")} for c in found}.values())
