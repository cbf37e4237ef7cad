"""Where two streams, or two descriptions, differ: as a frame, or row by row without pandas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vmstate_tools.analysis.description_differences import of_stream_descriptions, of_vmsds
from vmstate_tools.analysis.difference import Difference
from vmstate_tools.analysis.stream_differences import of_streams
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.description import Description, StreamDescription
from vmstate_tools.vmstate.dump import Dump, diff_dumps

if TYPE_CHECKING:
    import pandas as pd

_Sides = Stream | StreamDescription | Description | Dump


def diff(a: _Sides, b: _Sides, *, ram: bool = False) -> pd.DataFrame:
    """Returns every difference between two streams, or between two descriptions, a row each.

    Parameters
    ----------
    a, b : two opened streams; or two descriptions of one kind. Of two -dump-vmstate files
        (`vmstate_tools.vmstate.dump.read_dump`) the frame is that of `diff_dumps`.
    ram : of streams, compare the guest's memory too.

    Returns
    -------
    Columns section, instance_id (Int64; NA for the configuration), vmsd, path, kind, a and b (what either side has, a
    `ValueDtype`: int, bool, bytes or text; None where it has nothing), flags (of msr_mask, insns_flags, insns_flags2:
    `-NAME` for a flag that only `a` has, `+NAME` for one that only `b` has, separated by commas); with `ram=True`
    pages (Int64).

    Kinds are `value`; `type`, `size`, `name` and `version` of a field, section or vmsd; `only in a`, `only in b`;
    `subsection only in a`, `subsection only in b` (its fields are not listed one by one); `described in a only`,
    `described in b only` (the other side's section is opaque, nothing in it is compared). `name`: a field at the same
    place with the same size under another name, as the wire carries none; path is `old → new`, a and b are its values
    (of an array its extents; the elements that differ follow). `pages`: so many pages of a RAM block differ.

    Sections are matched by idstr and instance_id. Of RAM the block list is compared.

    Raises
    ------
    TypeError : a and b are not two of one kind.
    StreamError : a section cannot be decoded.
    """
    if isinstance(a, Dump) and isinstance(b, Dump):
        return diff_dumps(a, b)
    import pandas as pd

    from vmstate_tools.vmstate.value_column import ValueArray

    frame = pd.DataFrame(list(differences(a, b, ram=ram)), columns=Difference._fields, dtype=object)
    frame["flags"] = [", ".join(flags) for flags in frame["flags"]]
    if not ram:
        frame = frame.drop(columns="pages")
    text = dict.fromkeys(("section", "vmsd", "path", "kind", "flags"), "str")
    values = {name: pd.Series(ValueArray._from_sequence(frame[name]), index=frame.index) for name in ("a", "b")}
    integers = {"instance_id": "Int64"} | ({"pages": "Int64"} if ram else {})
    return frame.assign(**values).astype(text | integers)


def differences(a: _Sides, b: _Sides, *, ram: bool = False) -> Iterator[Difference]:
    """Yields the rows of `diff` of two streams or two descriptions, without pandas. Raises as `diff` does."""
    if isinstance(a, Stream) and isinstance(b, Stream):
        rows = of_streams(a, b, ram)
    elif isinstance(a, StreamDescription) and isinstance(b, StreamDescription):
        rows = of_stream_descriptions(a, b)
    elif isinstance(a, Description) and isinstance(b, Description):
        rows = of_vmsds(a, a.vmsd, b.vmsd)
    else:
        raise TypeError(f"diff takes two streams or two descriptions, not {type(a).__name__} and {type(b).__name__}")
    return (row._replace(flags=_flags(row.path, row.a, row.b)) for row in rows)


def _flags(path: str, a: Any, b: Any) -> tuple[str, ...]:
    """Returns `Difference.flags` of a field with these values; nothing where it is no flag word."""
    from vmstate_tools.facts import flags

    word = path.rsplit(".", 1)[-1].split(" → ")[-1].removeprefix("mig_")
    if word not in flags.WORDS or not isinstance(a, int) or not isinstance(b, int):
        return ()
    gone, come = flags.decode(word, a & ~b), flags.decode(word, b & ~a)
    return (*(f"-{name}" for name in gone), *(f"+{name}" for name in come))
