"""How a destination judges the four sanity-check words in a ppc CPU's section, under a policy or none."""

from __future__ import annotations

from typing import Any

from vmstate_tools.compat import rules
from vmstate_tools.compat.expectation import Entry
from vmstate_tools.compat.flag_commits import difference
from vmstate_tools.compat.from_stream import pvr_in
from vmstate_tools.compat.loader import Loader
from vmstate_tools.compat.policy import Context, Policy
from vmstate_tools.compat.reader import Reader
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog
from vmstate_tools.facts.cpu_section import WORD_OF_FIELD
from vmstate_tools.release import Release
from vmstate_tools.vmstate.description import FieldDescription

# The first release that no longer compares the words of old machine types.
_IGNORES = Release("2.8")


def is_word(vmsd: str, field: FieldDescription) -> bool:
    """Tells whether a field carries one of the words."""
    return vmsd == "cpu" and field.name in WORD_OF_FIELD


def judge(
    path: str,
    field: FieldDescription,
    value: int,
    entry: Entry,
    loader: Loader,
    policy: Policy | None,
    read: Reader,
) -> Obstacle | None:
    """Returns the obstacle that a word in a stream is, with the flags that differ and a remedy, or None."""
    word = WORD_OF_FIELD[field.name]
    own = entry.values.get(("cpu", path))
    where = context(word, path, loader, entry, read)
    if policy is None:
        found = rules.compare(path, field, value, own)
    else:
        if not field.equal:  # the release does not compare it, but the policy may
            own = _own_word(word, entry, loader)
        sent = policy.on_the_way_out(word, policy.has(word, value, where.stream_pvr, where))
        own = None if own is None else policy.has(word, own, where.pvr, where)
        found = policy.check(field, sent, own, where)
    return None if found is None else _explained(found, word, loader, where.stream_pvr)


def context(word: str, path: str, loader: Loader, entry: Entry, read: Reader | None = None) -> Context:
    """Returns what a policy is given; the stream's PVR stands before the words, so it has been read."""
    width = _target_ulong(entry)
    pvr = pvr_in(read.values.get(("cpu", "env.spr")), width) if read is not None else None
    release = None if loader.release is None else str(loader.release)
    return Context(word, path, release, loader.machine, loader.accel, loader.pvr, pvr, width)


def _target_ulong(entry: Entry) -> int:
    """Returns the bytes of a target_ulong, by the size of a general register."""
    fields = entry.vmsd.fields if entry.vmsd is not None else ()
    return next((f.size for f in fields if f.name == "env.gpr"), 8)


def _own_word(word: str, entry: Entry, loader: Loader) -> int | None:
    """Returns the destination's own word, whether or not it sends it."""
    try:
        release = "" if loader.release is None else str(loader.release)
        models = catalog.model_of_pvr(loader.pvr, release, nearest=True) if loader.pvr else []
        words = catalog.words(models[0].name, release, loader.accel or "tcg", loader.machine, nearest=True)
        return int(getattr(words, word))
    except (CatalogError, IndexError):
        fields = (field for field, of in WORD_OF_FIELD.items() if of == word)
        return next((v for field in fields if (v := entry.values.get(("cpu", field))) is not None), None)


def _explained(obstacle: Obstacle, word: str, loader: Loader, stream_pvr: int | None) -> Obstacle:
    """Adds the names of the flags that differ, the commits that brought them, and a remedy."""
    values: tuple[Any, Any] = (obstacle.stream_value, obstacle.destination_value)
    if word != "nb_BATs" and None not in values:
        found = difference(word, *values, loader.pvr, loader.accel, loader.machine)
        obstacle.flags_only_in_stream, obstacle.flags_only_in_destination, obstacle.commits = map(list, found)
    if None not in (stream_pvr, loader.pvr) and stream_pvr != loader.pvr:
        obstacle.remedy = "destination: -cpu with the stream's CPU model"
    elif loader.release is None or loader.release < _IGNORES:
        obstacle.remedy = "destination 2.7.1 or newer, or `vmstate rewrite` with the destination's words"
    return obstacle
