"""The CPUs of a stream: release, model, the words that QEMU checks, and the flags in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import families, flags
from vmstate_tools.facts.model_names import one_spelling
from vmstate_tools.facts.tables import rows as table
from vmstate_tools.stream.cpu_words import cpu_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vmstate_tools.stream.stream import Stream


def stream_cpus(stream: Stream, labels: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Returns a dict for each CPU of a stream: file, section_instance, release, machine, model, the words, flags.

    Parameters
    ----------
    labels : the stream's row of a manifest, which says its release and the model; without it the release is None and
        the model the one with the PVR in the stream.
    """
    labels = labels or {}
    release = labels.get("release") or None
    rows = []
    for words in cpu_rows(stream):
        instance = words.pop("section_instance")
        rows.append(
            {
                "file": stream.name,
                "section_instance": instance,
                "release": release,
                "machine": stream.machine or labels.get("machine") or None,
                "model": one_spelling(labels.get("cpu") or _model(words["pvr"]) or "") or None,
                **words,
                "flags": [
                    name
                    for word in ("insns_flags", "insns_flags2")
                    if words[word] is not None
                    for name in flags.decode(word, words[word], release)
                ],
            }
        )
    return rows


def _model(pvr: int | None) -> str | None:
    """Returns the CPU model with this PVR, if all releases that know one mean the same."""
    names = {row["model"].lower() for row in table("catalog", "models") if int(row["pvr"], 16) == pvr}
    return names.pop() if len(names) == 1 else None


def compared_with(row: Mapping[str, Any], release: str, accel: str) -> dict[str, Any] | None:
    """Returns which flags of a CPU a release has not, and which it has besides.

    Parameters
    ----------
    row : of `stream_cpus`.
    accel : 'tcg' or 'kvm', what the release runs the guest with.

    Returns
    -------
    release, accel, new (names of flags that the stream alone has), gone (that the release alone has), unknown (those of
    new that the release has no name for); None where the stream carries no words.

    Raises
    ------
    CatalogError : the release has no such CPU, or several with this PVR and other words.
    """
    if row["insns_flags"] is None:
        return None
    models = [row["model"]] if row["model"] else [m.name for m in families.model_of_pvr(row["pvr"], release)]
    words = {families.words(model, release, accel, row["machine"]) for model in models}
    if len(words) != 1:
        raise CatalogError(f"QEMU {release} has no one CPU with this PVR")
    (there,) = words
    found = flags.diff(there, row)
    names = {(word, flag.value) for word in flags.WORDS for flag in flags.known(word, release)}
    new = [(word, name) for word, (added, _) in found.items() for name in added]
    return {
        "release": release,
        "accel": accel,
        "new": [name for _, name in new],
        "gone": [name for _, removed in found.values() for name in removed],
        "unknown": [name for word, name in new if (word, flags.encode(word, [name])) not in names],
    }


def explained(names: Iterable[str]) -> list[dict[str, str]]:
    """Returns name, facility and meaning of each flag; a bit without a name has no more than what it is called."""
    found = []
    for name in names:
        try:
            about = flags.describe(name)
            found.append({"name": name, "facility": about.facility, "meaning": about.meaning})
        except CatalogError:
            found.append({"name": name, "facility": "", "meaning": ""})
    return found
