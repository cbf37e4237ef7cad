"""The ppc CPUs that a release has: families, models, aliases, and the four words of each.

Values are those of qemu-system-ppc64; with `arch="ppc"` those of qemu-system-ppc, which lacks the families with
PPC_64B and whose msr_mask has 32 bits.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import flags
from vmstate_tools.facts.releases import by_release, resolve, rows_at
from vmstate_tools.facts.tables import rows
from vmstate_tools.release import Release


class Words(NamedTuple):
    """Words are the four words of a CPU, by the names that QEMU's fields have (target/ppc/cpu.h: `CPUPPCState`)."""

    msr_mask: int
    insns_flags: int
    insns_flags2: int
    nb_BATs: int  # noqa: N815


WORDS = Words._fields


class Model(NamedTuple):
    """A Model of CPU has its name as the release spells it, its family, and the numbers in PVR and SVR."""

    name: str
    family: str
    pvr: int
    svr: int


@cache
def _models(release: str, arch: str = "ppc64") -> dict[str, Model]:
    """Returns the models of a catalogued release by their names in lower case."""
    there = _families(release, arch)
    return {
        row["model"].lower(): Model(row["model"], row["family"], int(row["pvr"], 16), int(row["svr"], 16))
        for row in rows_at("models", release)
        if row["family"] in there
    }


@cache
def _aliases(release: str) -> dict[str, str]:
    """Returns, for each alias in lower case, the name that it stands for."""
    return {row["alias"].lower(): row["model"] for row in rows_at("aliases", release)}


@cache
def _words_by_release() -> dict[str, dict[str, Words]]:
    found: dict[str, dict[str, Words]] = {}
    for row in rows("catalog", "families"):
        msr_mask, insns_flags, insns_flags2 = (int(row[word], 16) for word in flags.WORDS)
        words = Words(msr_mask, insns_flags, insns_flags2, int(row["nb_BATs"]))
        found.setdefault(row["release"], {})[row["family"]] = words
    return found


@cache
def _families(release: str, arch: str = "ppc64") -> dict[str, Words]:
    if arch not in ("ppc64", "ppc"):
        raise CatalogError(f"unknown arch {arch!r}: there are 'ppc64' and 'ppc'")
    # A release whose families are those of the one before it has no rows of its own.
    found = _words_by_release()[by_release()[Release(release)]["families_as"]]
    if arch == "ppc64":
        return found
    wide = flags.encode("insns_flags", ["PPC_64B"])
    narrow = {name: words for name, words in found.items() if not words.insns_flags & wide}
    return {name: words._replace(msr_mask=words.msr_mask & 0xFFFF_FFFF) for name, words in narrow.items()}


def model(cpu: str, release: str, nearest: bool = False, arch: str = "ppc64") -> Model:
    """Returns the model that `-cpu` means in a release: by name or alias, in any case, without options after a comma.

    Raises
    ------
    CatalogError : the release has no such model; `host`, which only the host can tell, is none.
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
    """Returns the models that have exactly this PVR; an empty list where there is none."""
    return [m for m in _models(resolve(release, nearest)).values() if m.pvr == pvr]


def models(release: str, nearest: bool = False, arch: str = "ppc64") -> list[Model]:
    """Returns every model of a release."""
    return list(_models(resolve(release, nearest), arch).values())


def aliases(release: str, nearest: bool = False) -> dict[str, str]:
    """Returns, for each alias of a release in lower case, the model or alias that it stands for."""
    return dict(_aliases(resolve(release, nearest)))


def family(cpu: str, release: str, nearest: bool = False, arch: str = "ppc64") -> str:
    """Returns the family that a family's name, a model or an alias stands for; a model's name goes before a family's.

    Raises
    ------
    CatalogError : the release has none of them.
    """
    release = resolve(release, nearest)
    try:
        return model(cpu, release, arch=arch).family
    except CatalogError:
        for name in _families(release, arch):
            if name.lower() == cpu.lower():
                return name
        raise CatalogError(f"QEMU {release} has no {arch} CPU model or family {cpu!r}") from None


def families(release: str, nearest: bool = False, arch: str = "ppc64") -> list[str]:
    """Returns the names of a release's families."""
    return list(_families(resolve(release, nearest), arch))


def words(
    cpu: str,
    release: str,
    accel: str | None = "tcg",
    machine: str | None = None,
    nearest: bool = False,
    arch: str = "ppc64",
) -> Words:
    """Returns the words that a running CPU has.

    Parameters
    ----------
    cpu : a family (`POWER8`), model or alias.
    release : see `resolve`.
    accel : "tcg" drops what TCG does not emulate (`PPC_TCG_INSNS`, `PPC_TCG_INSNS2`); "kvm" leaves the class's words,
        to which a host that lacks VMX, VSX or DFP makes exceptions (see `host_flags`); None gives the class's words.
    machine : "pseries…" drops what that machine never lets a guest have (`cpu_ppc_set_papr`, later
        `cpu_ppc_set_vhyp`); None stands for any other machine.
    arch : "ppc64" or "ppc": qemu-system-ppc64 or qemu-system-ppc.

    Raises
    ------
    CatalogError : unknown release, CPU, accelerator or arch.
    """
    release = resolve(release, nearest)
    return family_words(family(cpu, release, arch=arch), release, accel, machine, arch)


def family_words(
    name: str, release: str, accel: str | None = "tcg", machine: str | None = None, arch: str = "ppc64"
) -> Words:
    """Returns the words that a running CPU of a family has; parameters as for `words`.

    Parameters
    ----------
    name : the family's name, as the release spells it.
    release : a catalogued one.

    Raises
    ------
    CatalogError : the release has no such family, or unknown accelerator or arch.
    """
    there = _families(release, arch)
    if name not in there:
        raise CatalogError(f"QEMU {release} has no {arch} CPU family {name!r}")
    found = there[name]
    if accel not in ("tcg", "kvm", None):
        raise CatalogError(f"unknown accelerator {accel!r}: there are 'tcg' and 'kvm'")
    roles = {"tcg"} if accel == "tcg" else set()
    if machine is not None and machine.startswith("pseries"):
        roles.add("pseries")
    for row in rows_at("adjustments", release):
        if row["role"] in roles:
            found = found._replace(**{row["word"]: getattr(found, row["word"]) & int(row["value"], 16)})
    return found


def host_flags(release: str, nearest: bool = False) -> dict[str, int]:
    """Returns, by word, the bits that KVM takes from the host instead of the CPU's class (VMX, VSX, DFP)."""
    found: dict[str, int] = {}
    for row in rows_at("adjustments", resolve(release, nearest)):
        if row["role"] == "kvm":
            found[row["word"]] = found.get(row["word"], 0) | int(row["value"], 16)
    return found
