"""Which releases send which words of a ppc CPU: how `data/fingerprint/words.csv` is made from the catalog.

python -m vmstate_tools.analysis.sent_words data/fingerprint/words.csv
"""

from __future__ import annotations

import collections
import csv
import sys
from collections.abc import Iterable, Iterator

from tqdm.auto import tqdm

from vmstate_tools.facts import catalog
from vmstate_tools.release import Release, covered
from vmstate_tools.source.new_file import new_text_file

_RELEASES = covered()


def pvrs() -> list[int]:
    """Returns the PVRs of all models in the catalog, in order."""
    return sorted({int(row["pvr"], 16) for row in catalog.table("models")})


def rows(of: Iterable[int]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yields the rows of the table for some PVRs: pvr, pseries, word, value, releases.

    A row without a value gives the releases that may send any value for the word.
    """
    for pvr in of:
        for pseries in (False, True):
            yield from _rows_of(pvr, pseries)


def _rows_of(pvr: int, pseries: bool) -> Iterator[tuple[str, str, str, str, str]]:
    sent: dict[str, dict[int, int]] = collections.defaultdict(lambda: collections.defaultdict(int))
    # A release without such a CPU may have another's behind KVM; one that sends no words is known by its fields.
    anything = _RELEASES.unread
    for row in catalog.table("releases"):
        series = Release(row["release"]).series
        if series not in _RELEASES.bit or row["kind"] == "development":
            continue
        bit = _RELEASES.bit[series]
        families = {m.family: m.name for m in catalog.model_of_pvr(pvr, row["release"])}
        if not families:
            anything |= bit
        for name in families.values():
            for accel in ("tcg", "kvm"):
                # Those pseries machine types that send the words all send the same ones.
                words = catalog.stream_words(row["release"], "pseries-2.1" if pseries else "", name, accel)
                host = catalog.host_flags(row["release"]) if accel == "kvm" else {}
                if not words:
                    anything |= bit
                for word, value in words.items():
                    for given in _subsets(host.get(word, 0)):
                        sent[word][value & ~host.get(word, 0) | given] |= bit
    for word, by_value in sent.items():
        start = f"0x{pvr:08x}", "yes" if pseries else "no", word
        yield *start, "", _RELEASES.runs(anything)
        for value, bits in sorted(by_value.items()):
            yield *start, f"0x{value:x}", _RELEASES.runs(bits | anything)


def _subsets(bits: int) -> Iterator[int]:
    """Yields each word with some of these bits set, also with all and with none of them."""
    part = bits
    while part:
        yield part
        part = (part - 1) & bits
    yield 0


def main(path: str) -> None:
    """Writes the table into a file."""
    with new_text_file(path, overwrite=True) as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("pvr", "pseries", "word", "value", "releases"))
        out.writerows(rows(tqdm(pvrs(), desc="PVRs")))


if __name__ == "__main__":
    main(sys.argv[1])
