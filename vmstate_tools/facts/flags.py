"""Flag words of the ppc CPU and the names of their bits, release by release.

The words are `insns_flags` and `insns_flags2` (QEMU `target/ppc/cpu.h`, enumerators `PPC_*` and `PPC2_*`; in
`translate.c` before 0.14) and `msr_mask` (`MSR_*`). The bits come from `data/catalog/flags.csv`, what they
mean from `data/catalog/meanings.csv`.
"""

from __future__ import annotations

import csv
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WORDS = ("msr_mask", "insns_flags", "insns_flags2")

_UNKNOWN = re.compile(r"bit (\d+) \(unknown\)")


class Flag(NamedTuple):
    """One bit of one word under one name; `since` and `until`: first and last release ("" = still there)."""

    word: str
    name: str
    value: int
    since: str
    until: str
    facility: str
    meaning: str


class Difference(NamedTuple):
    """Names of the bits a word gained and lost, lowest bit first."""

    added: list[str]
    removed: list[str]


def word_name(field: str) -> str:
    """`env.insns_flags` and `mig_insns_flags` → `insns_flags`.

    Raises
    ------
    CatalogError : no flag word.
    """
    name = field.rsplit(".", 1)[-1].removeprefix("mig_")
    if name not in WORDS:
        raise CatalogError(f"{field!r} is no flag word; there are {', '.join(WORDS)}")
    return name


@lru_cache(4096)
def release_key(release: str) -> tuple[int, ...]:
    """Sort key of a release name: `2.7` and `2.7.0` are one.

    Raises
    ------
    CatalogError : not a release's name.
    """
    if not re.fullmatch(r"v?\d+(\.\d+){1,3}", release):
        raise CatalogError(f"{release!r} does not name a release of QEMU (as in 2.7 or 2.7.1)")
    parts = tuple(int(part) for part in release.removeprefix("v").split("."))
    return parts if len(parts) > 2 else (*parts, 0)


def short(release: str) -> str:
    """A release as a chart or table has room for: `2.7` for `2.7.0`."""
    return release.removesuffix(".0") if release.count(".") == 2 else release


def known(word: str, release: str | None = None) -> list[Flag]:
    """Flags of a word, lowest bit first; those of one release, or of all (each name and value once).

    A release newer than the catalog's newest is answered with the newest's flags.
    """
    return list(_known(word_name(word), release))


@lru_cache(1024)
def _known(word: str, release: str | None) -> tuple[Flag, ...]:
    rows = _rows()[word]
    if release is None:
        return tuple({(flag.name, flag.value): flag for flag in rows}.values())
    wanted = release_key(release)
    return tuple(
        flag
        for flag in rows
        if release_key(flag.since) <= wanted and (not flag.until or wanted <= release_key(flag.until))
    )


@cache
def _rows() -> dict[str, list[Flag]]:
    meanings = {(row["word"], row["name"]): row for row in _read("meanings.csv")}
    found: dict[str, list[Flag]] = {word: [] for word in WORDS}
    for row in _read("flags.csv"):
        about = meanings.get((row["word"], row["name"]), {})
        found[row["word"]].append(
            Flag(
                row["word"],
                row["name"],
                int(row["value"], 16),
                row["since"],
                row["until"],
                about.get("facility", ""),
                about.get("meaning", ""),
            )
        )
    for flags in found.values():
        flags.sort(key=lambda flag: (flag.value, release_key(flag.since)))
    return found


def _read(name: str) -> list[dict[str, str]]:
    path = data_path("catalog", name)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise CatalogError(f"the catalog has no {name} ({path})") from None


def decode(word: str, value: int, release: str | None = None) -> list[str]:
    """Names of the bits that are set, lowest bit first.

    A bit unknown to the release is given as `bit 12 (unknown)`; without a release, any name the bit had, the
    newest where it had several. Where one bit has several names at a time (`MSR_SPE`, `MSR_VR`: it depends on
    the CPU) they are joined by "/".

    Raises
    ------
    CatalogError : no such word, or not an unsigned 64-bit value.
    """
    if not 0 <= value < 1 << 64:
        raise CatalogError(f"{word}: {value} is not an unsigned 64-bit word")
    names: dict[int, list[Flag]] = {}
    for flag in known(word, release):
        names.setdefault(flag.value, []).append(flag)
    found = []
    for bit in range(64):
        if value >> bit & 1:
            flags = names.get(1 << bit, [])
            if release is None:  # the names of the bit's newest release
                newest = max((release_key(f.until) if f.until else (1 << 30,) for f in flags), default=())
                flags = [f for f in flags if (release_key(f.until) if f.until else (1 << 30,)) == newest]
            found.append("/".join(f.name for f in flags) or f"bit {bit} (unknown)")
    return found


def encode(word: str, names: Iterable[str], release: str | None = None) -> int:
    """The word with the named bits set: what `decode` gave, or single names.

    Raises
    ------
    CatalogError : a name the word does not have in that release.
    """
    values = {flag.name: flag.value for flag in known(word, release)}
    result = 0
    for name in names:
        unknown = _UNKNOWN.fullmatch(name)
        if unknown is not None and int(unknown[1]) < 64:
            result |= 1 << int(unknown[1])
            continue
        for part in name.split("/"):
            if part not in values:
                when = f" in {release}" if release else ""
                raise CatalogError(f"{word} has no flag {part}{when}")
            result |= values[part]
    return result


def diff(
    a: Mapping[str, int] | object, b: Mapping[str, int] | object, release: str | None = None
) -> dict[str, Difference]:
    """Per flag word that both have: the names b adds to a, and those it lacks.

    Parameters
    ----------
    a, b : mappings from word to value, or objects with such attributes (`catalog.Words`); None is absent.
    release : whose names to use.

    Raises
    ------
    TypeError : an object with none of these attributes.
    """
    for side in (a, b):
        if not hasattr(side, "get") and not any(hasattr(side, word) for word in WORDS):
            raise TypeError(f"a {type(side).__name__} has none of {', '.join(WORDS)}")
    found = {}
    for word in WORDS:
        old, new = _value(a, word), _value(b, word)
        if old is not None and new is not None:
            found[word] = Difference(decode(word, new & ~old, release), decode(word, old & ~new, release))
    return found


def _value(words: Mapping[str, int] | object, word: str) -> int | None:
    value = words.get(word) if hasattr(words, "get") else getattr(words, word, None)
    return None if value is None else int(value)


def describe(name: str) -> Flag:
    """The newest entry of a flag by its name: word, value, releases, facility and meaning.

    Raises
    ------
    CatalogError : no flag of that name.
    """
    for word in WORDS:
        flags = [flag for flag in _rows()[word] if flag.name == name]
        if flags:
            return max(flags, key=lambda flag: release_key(flag.since))
    raise CatalogError(f"no flag {name!r} in the catalog")
