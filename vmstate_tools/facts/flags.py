"""Flag words of the ppc CPU and the names of their bits, release by release.

The words are `insns_flags` and `insns_flags2` (QEMU `target/ppc/cpu.h`, enumerators `PPC_*` and `PPC2_*`; in
`translate.c` before 0.14) and `msr_mask` (`MSR_*`). The bits come from `data/catalog/flags.csv`, what they
mean from `data/catalog/meanings.csv`.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts.tables import rows
from vmstate_tools.release import Release
from vmstate_tools.release import numbers as release_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "WORDS",
    "Difference",
    "Flag",
    "decode",
    "describe",
    "diff",
    "encode",
    "known",
    "release_key",
    "short",
    "word_name",
]

WORDS = ("msr_mask", "insns_flags", "insns_flags2")

_UNKNOWN = re.compile(r"bit (\d+) \(unknown\)")


class Flag(NamedTuple):
    """A Flag is one bit of one word under one name; `since`, `until`: the first and last release ("": still there)."""

    word: str
    name: str
    value: int
    since: str
    until: str
    facility: str
    meaning: str


class Difference(NamedTuple):
    """A Difference has the names of the bits that a word gained and lost, lowest bit first."""

    added: list[str]
    removed: list[str]


def word_name(field: str) -> str:
    """Returns the word that a field carries: `insns_flags` for `env.insns_flags` and for `mig_insns_flags`.

    Raises
    ------
    CatalogError : the field carries no flag word.
    """
    name = field.rsplit(".", 1)[-1].removeprefix("mig_")
    if name not in WORDS:
        raise CatalogError(f"{field!r} is no flag word; there are {', '.join(WORDS)}")
    return name


def short(release: str) -> str:
    """Returns a release's name as a chart or a table has room for it: `2.7` for `2.7.0`; other text as it is."""
    try:
        return Release(release).short
    except CatalogError:
        return release


def known(word: str, release: str | None = None) -> list[Flag]:
    """Returns the flags that a word has in a release, lowest bit first; without a release, all it ever had, each once.

    A release newer than the catalog's newest is answered with the newest's flags.

    Raises
    ------
    CatalogError : no such word, or the text names no release.
    """
    return list(_known(word_name(word), release))


@lru_cache(1024)
def _known(word: str, release: str | None) -> tuple[Flag, ...]:
    flags = _by_word()[word]
    if release is None:
        return tuple({(flag.name, flag.value): flag for flag in flags}.values())
    wanted = Release(release)
    return tuple(flag for flag in flags if wanted.within(flag.since, flag.until))


@cache
def _by_word() -> dict[str, list[Flag]]:
    meanings = {(row["word"], row["name"]): row for row in rows("catalog", "meanings")}
    found: dict[str, list[Flag]] = {word: [] for word in WORDS}
    for row in rows("catalog", "flags"):
        word, name = row["word"], row["name"]
        about = meanings.get((word, name), {})
        meaning = about.get("facility", ""), about.get("meaning", "")
        found[word].append(Flag(word, name, int(row["value"], 16), row["since"], row["until"], *meaning))
    for flags in found.values():
        flags.sort(key=lambda flag: (flag.value, Release(flag.since)))
    return found


def decode(word: str, value: int, release: str | None = None) -> list[str]:
    """Returns the names of the bits that are set, lowest bit first.

    A bit unknown to the release is given as `bit 12 (unknown)`; without a release, a bit has the names it had last.
    Where one bit has several names at a time (`MSR_SPE`, `MSR_VR`: it depends on the CPU) they are joined by "/".

    Raises
    ------
    CatalogError : no such word, or `value` is not an unsigned 64-bit word.
    """
    if not 0 <= value < 1 << 64:
        raise CatalogError(f"{word}: {value} is not an unsigned 64-bit word")
    names = _names_of_bits(word_name(word), release)
    return [names.get(bit, f"bit {bit} (unknown)") for bit in range(64) if value >> bit & 1]


@lru_cache(1024)
def _names_of_bits(word: str, release: str | None) -> dict[int, str]:
    found: dict[int, list[Flag]] = {}
    for flag in _known(word, release):
        found.setdefault(flag.value.bit_length() - 1, []).append(flag)
    if release is None:
        found = {bit: _last(flags) for bit, flags in found.items()}
    return {bit: "/".join(flag.name for flag in flags) for bit, flags in found.items()}


def _last(flags: list[Flag]) -> list[Flag]:
    """Returns the flags that were there last; more than one if several share the bit."""
    still = [flag for flag in flags if not flag.until]
    if still:
        return still
    last = max(Release(flag.until) for flag in flags)
    return [flag for flag in flags if Release(flag.until) == last]


def encode(word: str, names: Iterable[str], release: str | None = None) -> int:
    """Returns the word with the named bits set: names as `decode` gives them, or single ones.

    Raises
    ------
    CatalogError : a name that the word does not have in that release.
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
    """Returns, for each flag word that both sides have, the names that b adds to a and the names that it lacks.

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
    """Returns the newest entry of a flag: word, value, releases, facility and meaning.

    Raises
    ------
    CatalogError : no flag of that name.
    """
    for word in WORDS:
        flags = [flag for flag in _by_word()[word] if flag.name == name]
        if flags:
            return max(flags, key=lambda flag: Release(flag.since))
    raise CatalogError(f"no flag {name!r} in the catalog")
