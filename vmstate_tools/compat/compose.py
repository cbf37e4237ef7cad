"""What a destination known only by release, machine type, CPU and accelerator expects.

Put together from the nearest configurations that were seen (`index`), what QEMU's source says of the release
(`library`), and the catalog's CPU words. Everything supposed on the way is said.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vmstate_tools.compat import facts, index, library
from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.compat.rules import SANITY
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog
from vmstate_tools.vmstate.description import FieldDescription, Vmsd, with_parts

Release = tuple[int, int, int]

# Machine types whose plain name stands for the newest version: name -> what the version is appended to.
_ALIASES = {
    "pseries": "pseries",
    "pc": "pc-i440fx",
    "q35": "pc-q35",
    "virt": "virt",
    "s390-ccw-virtio": "s390-ccw-virtio",
}
_VERSIONED = re.compile(r"(?P<base>.*?)-(?P<version>\d+\.\d+)(?P<variant>-\w+)?\Z")

# pseries, pc and virt machine types up to this one have no configuration section, footers or globalstate.
_OLD_FRAMING = (2, 3, 0)


@functools.lru_cache(maxsize=4096)
def canonical(machine: str, release: Release | None) -> str:
    """The machine type that a plain name stands for in a release: 'pseries' is 'pseries-2.6' in 2.6."""
    base = _ALIASES.get(machine)
    if base is None or release is None:
        return machine
    first = {"pseries": (2, 1, 0), "virt": (2, 6, 0), "s390-ccw-virtio": (2, 4, 0)}.get(base, (0, 0, 0))
    return machine if release < first else f"{base}-{release[0]}.{release[1]}"


@functools.lru_cache(maxsize=4096)
def machine_base(machine: str) -> str:
    """'pseries' of 'pseries-2.12-sxxm'."""
    match = _VERSIONED.match(machine)
    return match["base"] if match else machine


def absent(release: Release, machine: str, cpu: str | None, accel: str | None) -> Obstacle | None:
    """Why such a QEMU does not start at all, None where nothing is known against it."""
    return _no_machine(release, machine) or (_no_cpu(release, machine, cpu) if _is_ppc(machine) else None)


def _is_ppc(machine: str) -> bool:
    return machine_base(machine) in {machine_base(row["machine"]) for row in catalog.table("machines")}


def _dotted(release: Release) -> str:
    return ".".join(map(str, release))


def _no_machine(release: Release, machine: str) -> Obstacle | None:
    of_machine = facts.version(machine)
    text = _dotted(release)
    remedy = None
    if machine_base(machine) == "pseries" and of_machine is not None:
        rows = [r for r in catalog.table("machines") if r["machine"] == machine]
        ends = [(facts.version(r["since"]), facts.version(r["until"]) or (999, 0, 0)) for r in rows]
        if release == (2, 11, 1) and of_machine[:2] == (2, 12):
            return None  # the stable release brought pseries-2.12 (hw/ppc/spapr.c of v2.11.1)
        known = not rows or any(since and since[:2] <= release[:2] <= until[:2] for since, until in ends)
        last = max((until for _, until in ends), default=None)
        if known and of_machine[:2] <= release[:2]:
            return None
        if last is not None and release > last:
            remedy = f"load it in {last[0]}.{last[1]} or before, the last release with {machine}"
    elif of_machine is None or (of_machine[:2] <= release[:2] and not _deleted(release, machine, of_machine)):
        return None
    else:
        remedy = f"load it in a release before {of_machine[0] + 6}.{of_machine[1]}"
    message = f"QEMU {text} has no machine type {machine}"
    if of_machine is not None and of_machine[:2] > release[:2]:
        remedy = f"start the source with -machine {machine_base(machine)}-{release[0]}.{release[1]} or older"
    return Obstacle("start", "no such machine type", message, destination_value=machine, remedy=remedy)


def _deleted(release: Release, machine: str, of_machine: Release) -> bool:
    """Since 10.1 versioned machine types are gone after six years (include/hw/boards.h: `MACHINE_VER_DELETION`)."""
    versioned = machine_base(machine) in _ALIASES.values()
    return versioned and release >= (10, 1, 0) and of_machine[:2] <= (release[0] - 6, release[1])


def model_of(cpu: str, release: Release) -> catalog.Model:
    """The catalog's model; the names of POWER5+ and POWER7+ may be spelled with a p, as since 9.0 (5bfb75f152)."""
    try:
        return catalog.model(cpu, _dotted(release), nearest=True)
    except CatalogError:
        for pattern, other in ((r"(?i)(power[57])p(?=_|$)", r"\1+"), (r"(?i)(power[57])\+(?=_|$)", r"\1p")):
            if re.search(pattern, cpu):
                return catalog.model(re.sub(pattern, other, cpu), _dotted(release), nearest=True)
        raise


def _no_cpu(release: Release, machine: str, cpu: str | None) -> Obstacle | None:
    if cpu is None or cpu.lower() in ("host", "max"):
        return None
    try:
        model = model_of(cpu, release).name
    except CatalogError as err:
        return Obstacle("start", "no such CPU model", str(err), destination_value=cpu)
    # 2.7 and 2.8 make CPU cores only for machine types with CPU hotplug (hw/ppc/spapr.c: `ppc_spapr_init`).
    of_machine = facts.version(machine) or release
    if not machine.startswith("pseries") or release < (2, 7, 0) or (release < (2, 9, 0) and of_machine < (2, 7, 0)):
        return None
    name = model.lower().replace("+", "p")
    cores = {r["model"]: (facts.version(r["since"]), facts.version(r["until"])) for r in facts.rows("spapr_cores")}
    since, until = cores.get(name, (None, None))
    if since is None or release[:2] < since[:2] or (until is not None and release[:2] > until[:2]):
        message = f"pseries of QEMU {_dotted(release)} has no CPU core type {model}"
        return Obstacle("start", "no such CPU model", message, destination_value=model)
    return None


def expectation(
    release: Release,
    machine: str,
    cpu: str | None,
    accel: str | None,
    options: Mapping[str, str],
    exclude: Callable[[index.Kept], bool] | None = None,
) -> tuple[Expectation, list[str]]:
    """The expectation and what was supposed. `exclude` leaves out configurations."""
    machine = canonical(machine, release)
    framing = tuple((name, value) for name, value in options.items() if name.startswith("migration."))
    order = _nearest(release, machine, exclude)
    # The nearest of this CPU where there is one of this machine type, else the nearest: those are put together once.
    base = next((k for k in order if k.cpu.lower() == (cpu or "").lower() and _is(k, release, machine)), None)
    base = base if base is not None and not base.config else order[0] if order else None
    shared, supposed = _shared(release, machine, base, exclude, framing)
    made = replace(shared, entries=dict(shared.entries))
    assumptions = list(supposed)
    if _is_ppc(machine):
        same_cpu = base is not None and (cpu is None or base.cpu.lower() == cpu.lower())
        _ppc_cpu(made, release, machine, cpu, accel, same_cpu, exclude, assumptions)
    elif cpu is not None and base is not None and base.cpu.lower() != cpu.lower():
        made.add(replace(e, values={}, programs={}) for e in list(made.entries.values()) if e.idstr == "cpu")
        assumptions.append(f"CPU {cpu}: taken to be like {base.cpu or 'the default'}")
    return made, assumptions


def _is(k: index.Kept, release: Release, machine: str) -> bool:
    return k.version[:2] == release[:2] and canonical(k.machine, k.version) == machine


@functools.lru_cache(maxsize=4096)
def _shared(
    release: Release,
    machine: str,
    base: index.Kept | None,
    exclude: Callable[[index.Kept], bool] | None,
    framing: tuple[tuple[str, str], ...],
) -> tuple[Expectation, tuple[str, ...]]:
    """What does not go with the CPU model; its entries, and what is compiled for them, are shared."""
    assumptions: list[str] = []
    options = dict(framing)
    if base is None:
        made = Expectation(exact=False, ram_complete=False)
        _frame(made, release, machine, options)
        text = "the destination has the sections of the stream that QEMU's source knows"
        return made, (f"no machine like {machine} was seen: {text}",)
    made = base.expectation()
    made.exact = _is(base, release, machine)
    if not made.exact:
        assumptions.append(
            f"sections: as QEMU {base.release} {base.machine} ({base.cpu or 'default CPU'}) has them, "
            f"but for what QEMU's source says of {_dotted(release)}"
        )
        adjust = _Adjust(_nearest(release, machine, exclude), release, machine)
        made.entries = adjust.entries(made, base)
        assumptions += adjust.assumptions
        _frame(made, release, machine, options)
    elif options:
        _frame(made, release, machine, options)
    _arm_registers(made, release, machine, base, exclude)
    if base.config:
        assumptions.append(f"devices: those of configuration {base.config!r}, if the stream has them")
    made.ram, made.ram_gone, made.ram_complete = *_ram(release, machine, exclude), False
    assumptions.append("devices, and memory that the machine type does not fix: as in the stream")
    return made, tuple(assumptions)


# Blocks whose size goes with -m, with a file, or with a device's options.
_FREE = re.compile(r"ram\Z|ram-node|\.rom\Z|/rom@|memory|/")


def _ram(
    release: Release, machine: str, exclude: Callable[[index.Kept], bool] | None
) -> tuple[dict[str, int], frozenset[str]]:
    """Blocks of this kind of machine itself: those of a fixed size, and those that only other releases have.

    What the nearest release on each side agrees on is taken to hold in between, and what the last one has, beyond.
    """
    plain = [k for k in _nearest(release, machine, exclude) if not k.config]
    older = next((k for k in plain if k.version[:2] <= release[:2]), None)
    newer = next((k for k in plain if k.version[:2] >= release[:2]), older)
    older = older or newer
    if older is None or newer is None:
        return {}, frozenset()
    one, two = older.stored["ram"], newer.stored["ram"]
    fixed = {name: size for name, size in one.items() if two.get(name) == size and not _FREE.search(name)}
    ever = {name for k in plain for name in k.stored["ram"] if "/" not in name}
    return fixed, frozenset(ever - one.keys() - two.keys())


@functools.cache
def _kept_by_base() -> dict[str, list[tuple[index.Kept, Release]]]:
    """Configurations by kind of machine, with the machine type's version (0.0.0: it has none)."""
    found: dict[str, list[tuple[index.Kept, Release]]] = {}
    for k in index.kept():
        if not k.config.startswith(("no-", "minimal", "x-ignore", "mapped", "cap-", "file")):
            name = canonical(k.machine, k.version)
            found.setdefault(machine_base(name), []).append((k, facts.version(name) or (0, 0, 0)))
    return found


@functools.cache
def _releases() -> frozenset[tuple[int, ...]]:
    return frozenset(k.version[:2] for k in index.kept())


@functools.lru_cache(maxsize=4096)
def _nearest(release: Release, machine: str, exclude: Callable[[index.Kept], bool] | None) -> list[index.Kept]:
    """Configurations of the same kind of machine, nearest first."""
    alike = _kept_by_base().get(machine_base(machine), [])
    wanted = facts.version(machine) or (0, 0, 0)
    releases = {v: i for i, v in enumerate(sorted({*_releases(), release[:2]}))}
    machines = {v: i for i, v in enumerate(sorted({v for _, v in alike} | {wanted}))}

    def distance(item: tuple[index.Kept, Release]) -> tuple[int, ...]:
        k, of_machine = item
        gap = releases[k.version[:2]] - releases[release[:2]]
        years = 2 * abs(gap) - (gap < 0)
        odd = 0 if k.config == "" else 1 if k.config == "htmoff" else 2
        return abs(machines[of_machine] - machines[wanted]) + years, odd, years

    return [k for k, _ in sorted(alike, key=distance) if not (exclude and exclude(k))]


def _family(cpu: str) -> str:
    return re.sub(r"_v[\d.]+$", "", cpu.lower()).rstrip("+p")


def _like(vmsd: Vmsd, machine: str, release: Release, k: index.Kept) -> bool:
    """Does the source describe the fields alike in both releases, and do both machine types have them alike?"""
    wanted, other = library.find(vmsd, release), library.find(vmsd, k.version)
    if wanted is None or other is None or wanted.shape != other.shape:
        return False
    for since in wanted.gates:
        mine, theirs = (facts.version(canonical(*m)) for m in ((machine, release), (k.machine, k.version)))
        if mine is not None and theirs is not None and (mine < since) != (theirs < since):
            return False
    return True


class _Adjust:
    """Entries seen in another release or machine type, as the destination's would be."""

    def __init__(self, order: list[index.Kept], release: Release, machine: str) -> None:
        self.order, self.release, self.machine = order, release, machine
        self.assumptions: list[str] = []
        self.found: dict[tuple[tuple[str, int], str], Vmsd | None] = {}

    def entries(self, made: Expectation, base: index.Kept) -> dict[tuple[str, int], Entry]:
        out: dict[tuple[str, int], Entry] = {}
        for key, entry in made.entries.items():
            if entry.vmsd is None:
                out[key] = entry
                continue
            known = library.find(entry.vmsd, self.release)
            if known is None and library.find(entry.vmsd, base.version) is not None:
                self.assumptions.append(f"{entry.idstr}: QEMU {_dotted(self.release)} does not have it")
                continue
            vmsd = self.vmsd(entry.vmsd, key, base)
            version = known.version_id if known is not None and known.version_id >= 0 else entry.version_id
            values = entry.values if base.machine == self.machine else self.agreed(entry)
            if base.version[:2] != self.release[:2]:
                values = self.steady(entry, values, base)
            out[key] = replace(entry, version_id=version, vmsd=vmsd, values=values, programs={})
        return out

    def vmsd(self, vmsd: Vmsd, key: tuple[str, int], base: index.Kept) -> Vmsd:
        """A description with the fields and versions that the release has."""
        known = library.find(vmsd, self.release)
        if known is None:
            return vmsd
        fields = vmsd.fields
        if not _like(vmsd, self.machine, self.release, base):
            place = (key, vmsd.name)
            if place not in self.found:
                self.found[place] = self.seen(vmsd, key)
            like = self.found[place]
            if like is not None:
                fields = like.fields
            else:
                self.assumptions.append(f"{vmsd.name}: its fields may differ in QEMU {_dotted(self.release)}")
        fields = tuple(self.field(f, vmsd, key, base) for f in fields)
        names = library.known_subsections(known, vmsd.name, self.release)
        there = (s for s in vmsd.subsections if s.name in names or "?" in " ".join(names))
        subsections = tuple(self.vmsd(s, key, base) for s in there)
        vmsd = with_parts(vmsd, fields, subsections)
        versions = known.version_id, known.minimum_version_id
        if known.version_id < 0 or versions == (vmsd.version_id, vmsd.minimum_version_id):
            return vmsd
        return replace(vmsd, version_id=versions[0], minimum_version_id=versions[1])

    def field(self, field: FieldDescription, parent: Vmsd, key: tuple[str, int], base: index.Kept) -> FieldDescription:
        if field.struct is None or field.struct.name == parent.name:  # an ISA wrapper has its device's name
            return field
        struct = self.vmsd(field.struct, key, base)
        return field if struct is field.struct else replace(field, struct=struct, size=struct.size)

    def seen(self, vmsd: Vmsd, key: tuple[str, int]) -> Vmsd | None:
        """The description, in the nearest configuration whose release and machine type have it as wanted."""
        for k in self.order:
            if _like(vmsd, self.machine, self.release, k):
                entry = _restored(k).entries.get(key)
                found = _named(entry.vmsd, vmsd.name) if entry is not None and entry.vmsd is not None else None
                if found is not None:
                    return found
        return None

    def agreed(self, entry: Entry) -> dict[tuple[str, str], Any]:
        """Values that the nearest machine types on both sides share: others go with the machine type."""
        wanted = facts.version(self.machine) or (0, 0, 0)
        sides: dict[bool, dict[tuple[str, str], Any]] = {}
        for k in self.order:
            of_machine = facts.version(canonical(k.machine, k.version)) or (0, 0, 0)
            side = of_machine < wanted
            other = _restored(k).entries.get(entry.key) if side not in sides and of_machine != wanted else None
            if other is not None:
                sides[side] = other.values
            if len(sides) == 2:
                break
        return {p: v for p, v in entry.values.items() if all(s.get(p, v) == v for s in sides.values())}

    def steady(self, entry: Entry, values: dict[tuple[str, str], Any], base: index.Kept) -> dict[tuple[str, str], Any]:
        """Values without those compared that no release on the other side of this one has alike: they may change."""
        assert entry.vmsd is not None
        names = _compared(entry.vmsd)
        mine = {p for p in values if any(p[1] == n or p[1].endswith(f".{n}") for n in names.get(p[0], ()))}
        before = base.version[:2] < self.release[:2]
        others = (k for k in self.order if k.version[:2] != self.release[:2])
        across = (k for k in others if (k.version[:2] < self.release[:2]) != before)
        other = next((e for k in across if (e := _restored(k).entries.get(entry.key)) is not None), None)
        if mine and other is None and entry.idstr != "cpu":
            self.assumptions.append(
                f"{entry.idstr}: fields that must be equal are; QEMU {_dotted(self.release)} was not seen"
            )
        there = other.values if other is not None else {}
        return {p: v for p, v in values.items() if p not in mine or entry.idstr == "cpu" or there.get(p) == v}


def _compared(vmsd: Vmsd) -> dict[str, set[str]]:
    """Names of the fields that are compared with the destination's, by description."""
    found: dict[str, set[str]] = {}
    for f in vmsd.fields:
        if f.equal or f.type == "int32 le":
            found.setdefault(vmsd.name, set()).add(f.name)
    for below in (*(f.struct for f in vmsd.fields if f.struct is not None), *vmsd.subsections):
        for name, fields in _compared(below).items():
            found.setdefault(name, set()).update(fields)
    return found


_ARM = "cpreg_vmstate_"


def _arm_registers(
    made: Expectation, release: Release, machine: str, base: index.Kept, exclude: Callable[[index.Kept], bool] | None
) -> None:
    """System registers of an Arm CPU go with CPU and release, and grow from release to release.

    A release that was not seen has those of the next newer one that was, or else of the next older.
    """
    entry = made.find("cpu", 0)
    if entry is None or made.exact or ("cpu", f"{_ARM}indexes") not in entry.values:
        return
    alike = [k for k in _nearest(release, machine, exclude) if k.cpu.lower() == base.cpu.lower() and not k.config]
    newer = min((k for k in alike if k.version[:2] >= release[:2]), key=lambda k: k.version, default=None)
    older = max((k for k in alike if k.version[:2] <= release[:2]), key=lambda k: k.version, default=None)
    one = newer or older
    values = {p: v for p, v in entry.values.items() if not p[1].startswith(_ARM)}
    if one is not None:
        theirs = _restored(one).entries["cpu", 0].values
        values |= {p: v for p, v in theirs.items() if p[1].startswith(_ARM)}
        if newer is None:
            del values["cpu", f"{_ARM}array_len"]  # how many came since is not known
        elif _steps(release, newer.version) > (_steps(older.version, release) if older else 2):
            length = "cpu", f"{_ARM}array_len"
            before = _restored(older).entries["cpu", 0].values.get(length) if older else None
            if before is None or before < values[length]:
                values[length] -= 1  # far from the newer one: it is taken to have fewer
    others = [k for k in alike if k.version[:2] != release[:2]]
    seen = [_restored(k).entries["cpu", 0].values.get(("cpu", f"{_ARM}indexes")) for k in others]
    made.foreign_registers = frozenset(s for s in seen if s is not None)
    made.add(replace(e, values=values, programs={}) for e in list(made.entries.values()) if e.idstr == "cpu")


def _steps(one: Release, other: Release) -> int:
    """Releases from one to the other."""
    found = [facts.version(row["release"]) for row in catalog.table("releases") if row["kind"] == "release"]
    return sum(v is not None and one[:2] < v[:2] <= other[:2] for v in found)


def _named(vmsd: Vmsd, name: str) -> Vmsd | None:
    """The description of that name in a tree: itself, a struct or a subsection."""
    if vmsd.name == name:
        return vmsd
    below = [*(f.struct for f in vmsd.fields if f.struct is not None), *vmsd.subsections]
    return next((found for v in below if (found := _named(v, name)) is not None), None)


@functools.cache
def _restored(k: index.Kept) -> Expectation:
    return k.expectation()


def _frame(made: Expectation, release: Release, machine: str, options: Mapping[str, str]) -> None:
    """Configuration section and footers, since 2.4 (61964c23e5, f68945d42b), off for machine types up to 2.3.

    pseries machine types up to 2.3 did not know to leave out the configuration section before 2.6.
    """
    of_machine = facts.version(machine)
    old = of_machine is not None and of_machine <= _OLD_FRAMING
    made.footers = release >= (2, 4, 0) and not old and options.get("migration.send-section-footer") != "off"
    forgotten = machine_base(machine) == "pseries" and (2, 4, 0) <= release < (2, 6, 0)
    made.framing_known = of_machine is not None or not re.match(r"(pc|pseries|virt|s390-ccw-virtio)-\w", machine)
    named = release >= (2, 4, 0) and (not old or forgotten)
    made.configuration = machine if named and options.get("migration.send-configuration") != "off" else None


def _ppc_cpu(
    made: Expectation,
    release: Release,
    machine: str,
    cpu: str | None,
    accel: str | None,
    same_cpu: bool,
    exclude: Callable[[index.Kept], bool] | None,
    assumptions: list[str],
) -> None:
    """The sanity-check words and the PVR of this CPU, under this accelerator, instead of those that were seen."""
    entry = made.find("cpu", 0)
    if entry is None:
        return
    try:
        model, words = _words(release, machine, cpu, accel or "tcg")
    except CatalogError as err:
        assumptions.append(f"the CPU's words: as seen in a like configuration ({err})")
        return
    if accel is None:
        assumptions.append("accelerator: tcg")
    values = {p: v for p, v in entry.values.items() if p[0] == "cpu" or same_cpu}
    values |= _sizes(model.name.lower(), exclude)
    values["cpu", "pvr"] = values["cpu", "env.spr[SPR_PVR]"] = model.pvr
    for name, word in SANITY.items():
        if word in words:
            values["cpu", name] = words[word]
    made.add(replace(e, values=values, programs={}) for e in list(made.entries.values()) if e.idstr == "cpu")


@functools.lru_cache(maxsize=4096)
def _words(release: Release, machine: str, cpu: str | None, accel: str) -> tuple[catalog.Model, dict[str, int]]:
    text = _dotted(release)
    model = model_of(cpu or catalog.default_cpu(machine, text, nearest=True), release)
    return model, catalog.stream_words(text, machine, model.name, accel, nearest=True)


@functools.lru_cache(maxsize=4096)
def _sizes(model: str, exclude: Callable[[index.Kept], bool] | None) -> dict[tuple[str, str], Any]:
    """What the CPU section's subsections are compared with: the sizes of TLB and SLB go with the model."""
    seen = [k for k in index.kept() if k.cpu and k.arch.startswith("ppc") and not (exclude and exclude(k))]
    seen.sort(key=lambda k: k.version)
    # Some sizes only old releases send: the oldest goes first, the newest has the last word.
    like = [k for k in seen if _family(k.cpu) == _family(model)]
    same = [k for k in like if k.cpu.lower() == model]
    found: dict[tuple[str, str], Any] = {}
    for k in (*like[:1], *same[:1], *same[-1:]):
        entry = _restored(k).find("cpu", 0)
        found |= {key: v for key, v in entry.values.items() if key[0] != "cpu"} if entry is not None else {}
    return found
