"""What real destinations did with real streams, and what `vt.check` predicts for the same loads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from vmstate_tools.compat import Destination, Obstacle, Policy, Verdict, check
from vmstate_tools.data import data_path
from vmstate_tools.release import Release
from vmstate_tools.stream.stream import open_stream

# What a destination's messages blame, in QEMU's words since 1.6 (migration/savevm.c, before 2.1 savevm.c). Where none
# of these is said, but it ended before it read anything, it did not start.
_BLAMES = (
    (re.compile(r"device '([^']+)'|section or instance '([^']+)'|for '([^']+)' v"), None),
    (re.compile(r"Configuration section missing|savevm section type 7\b|Machine type received"), "configuration"),
    (re.compile(r"Unable to find|not supported by tcg|not a valid device model|unsupported machine type"), "start"),
)

LOADS, UNSAID = "loads", "not said"

_LOAD = ["arch", "machine", "cpu_src", "cpu_dst", "src_version", "dst_version", "config", "dst_extra", "stream"]
_COLUMNS = [*_LOAD, "arguments", "loads", "cause", "field", "stderr"]


def recorded() -> pd.DataFrame:
    """Returns the rows of `data/outcomes/load_matrix.csv`, and loads (bool): whether the whole stream was taken."""
    rows = pd.read_csv(data_path("outcomes", "load_matrix.csv"), keep_default_na=False)
    return rows.assign(loads=rows["vmstate_loaded"])


def real() -> pd.DataFrame:
    """Returns the loads in `data/outcomes/load_matrix.csv` whose streams are bundled, in the order of that file.

    Returns
    -------
    columns arch, machine, cpu_src, cpu_dst, src_version, dst_version, config, dst_extra, stream, arguments (of the
    source), stderr; loads (bool);
    cause: `loads`, else the section that the destination's message blames, `configuration` (the part before the
    first section), `start` (QEMU did not start) or `not said`; field: the last one it was reading, '' where it had no
    tracing.
    """
    rows = recorded()
    arguments = pd.read_csv(data_path("streams", "manifest.csv"), keep_default_na=False).set_index("file")["arguments"]
    rows = rows[rows["stream"].isin(arguments.index)].reset_index(drop=True)
    traced = rows["fail_field"].str.extract(r"^([^ ():]+):([^ =]+)=")
    return rows.assign(
        cause=[LOADS if ok else blamed(text) for ok, text in zip(rows["loads"], rows["stderr"], strict=True)],
        field=traced[1].fillna(""),
        arguments=rows["stream"].map(arguments),
    )[_COLUMNS]


def blamed(message: str) -> str:
    """Returns the section that a destination's message blames; see `real`."""
    for pattern, what in _BLAMES:
        match = pattern.search(message)
        if match is not None:
            return what or next(group for group in match.groups() if group)
    return UNSAID


def verdicts(rows: pd.DataFrame, policy: Policy | str | None = None, progress: bool = True) -> list[Verdict]:
    """Returns what `vt.check` says of each row of `real`; destinations are known by release, machine, CPU and options.

    Raises
    ------
    StreamError : a stream cannot be read.
    """
    made: dict[tuple[Any, ...], Destination] = {}
    found: dict[int, Verdict] = {}
    with tqdm(total=len(rows), unit="load", disable=not progress) as bar:
        for stream_name, group in rows.reset_index(drop=True).groupby("stream", sort=False):
            with open_stream(data_path("streams", str(stream_name))) as stream:
                for index, row in zip(group.index, group.to_dict("records"), strict=True):
                    known = (row["dst_version"], row["machine"], row["cpu_dst"] or None, "tcg")
                    options = _options(row)
                    key = (*known, *options.items())
                    if key not in made:
                        made[key] = Destination(*known, options)
                    found[index] = check(stream, made[key], policy)
                    bar.update()
    return [found[index] for index in range(len(rows))]


def _options(row: Mapping[Any, Any]) -> dict[str, str]:
    """Returns the options of a row's destination: its own, and the options that say how the source wrote."""
    options = dict(re.findall(r"-global (migration\.[\w-]+)=(\w+)", row["arguments"]))
    if row["dst_extra"]:
        options |= dict([row["dst_extra"].split("=")])
    return options


def predicted(rows: pd.DataFrame, policy: Policy | str | None = None, progress: bool = True) -> pd.DataFrame:
    """Returns what is predicted for rows of `real`: the same rows and columns, but for `stderr`.

    `loads`, `cause` and `field` are those of the verdict. Of the first obstacle there are: stage, kind, message, flags
    that differ (+ only in the stream, − only at the destination), commits (list).
    """
    found = [_first(v.first) for v in verdicts(rows, policy, progress)]
    same = rows.drop(columns=["loads", "cause", "field", "stderr"]).reset_index(drop=True)
    return pd.concat([same, pd.DataFrame(found, columns=list(_first(None)))], axis=1).set_index(rows.index)


def _first(first: Obstacle | None) -> dict[str, Any]:
    """Returns the columns that the obstacle which stops a load gives; None: nothing stops it."""
    if first is None:
        texts = dict.fromkeys(["field", "stage", "kind", "message", "flags"], "")
        return {"loads": True, "cause": LOADS, **texts, "commits": []}
    cause = {"start": "start", "A": "configuration", "B": "configuration"}.get(first.stage, first.section or UNSAID)
    signs = [f"+{n}" for n in first.flags_only_in_stream] + [f"−{n}" for n in first.flags_only_in_destination]
    return {
        "loads": False,
        "cause": cause,
        "field": first.field or "",
        "stage": first.stage,
        "kind": first.kind,
        "message": first.message,
        "flags": " ".join(signs),
        "commits": first.commits,
    }


def _same_field(traced: pd.Series, path: pd.Series) -> pd.Series:
    """Tells row by row whether a trace and a path name the same field: a trace leaves out the structs it is in."""
    return pd.Series([p == t or p.endswith(f".{t}") for t, p in zip(traced, path, strict=True)], traced.index)


def agreement(real: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """Returns how many loads are predicted right: loads or not; of the refused, the section blamed; the field traced.

    Returns
    -------
    index `loads or refused`, `section`, `field`; columns agree, of. A row counts for `section` where the destination's
    message names one, for `field` where it was traced to one.
    """
    refused = ~real["loads"] & ~predicted["loads"]
    said = refused & (real["cause"] != UNSAID)
    traced = refused & (real["field"] != "")
    rows = {
        "loads or refused": (real["loads"] == predicted["loads"], pd.Series(True, real.index)),
        "section": (real["cause"] == predicted["cause"], said),
        "field": (_same_field(real["field"], predicted["field"]), traced),
    }
    return pd.DataFrame(
        [(int((same & where).sum()), int(where.sum())) for same, where in rows.values()],
        index=list(rows),
        columns=["agree", "of"],
    )


def table(loads: pd.DataFrame) -> pd.DataFrame:
    """Returns `cause` of rows of `real` or `predicted`, sources × destinations: the first row of each pair."""
    order = sorted({*loads["src_version"], *loads["dst_version"]}, key=Release)
    cells = loads.pivot_table("cause", "src_version", "dst_version", aggfunc="first")
    return cells.reindex(index=order, columns=order)
