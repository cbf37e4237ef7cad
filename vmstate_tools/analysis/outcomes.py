"""What real destinations did with real streams, and what `vt.check` predicts for the same loads."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from vmstate_tools.compat import Destination, Policy, Verdict, check
from vmstate_tools.data import data_path
from vmstate_tools.facts.flags import release_key
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
    """All rows of `data/outcomes/load_matrix.csv` as they stand there, and loads (bool): was the whole stream taken."""
    rows = pd.read_csv(data_path("outcomes", "load_matrix.csv"), keep_default_na=False)
    return rows.assign(loads=rows["vmstate_loaded"])


def real() -> pd.DataFrame:
    """The real loads of `data/outcomes/load_matrix.csv` whose streams are bundled, in the order of that file.

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
    """The section that a destination's message blames; see `real`."""
    for pattern, what in _BLAMES:
        match = pattern.search(message)
        if match is not None:
            return what or next(group for group in match.groups() if group)
    return UNSAID


def verdicts(rows: pd.DataFrame, policy: Policy | str | None = None, progress: bool = True) -> list[Verdict]:
    """`vt.check` on each row of `real`: the destination known by release, machine type, CPU model, options.

    Raises StreamError.
    """
    found: list[Verdict | None] = [None] * len(rows)
    made: dict[Any, Destination] = {}
    bar = tqdm(total=len(rows), unit="load", disable=not progress)
    for stream_name, group in rows.reset_index(drop=True).groupby("stream", sort=False):
        with open_stream(data_path("streams", str(stream_name))) as stream:
            for index, row in zip(group.index, group.to_dict("records"), strict=True):
                options = dict(re.findall(r"-global (migration\.[\w-]+)=(\w+)", row["arguments"]))
                if row["dst_extra"]:
                    options |= dict([row["dst_extra"].split("=")])
                key = (row["dst_version"], row["machine"], row["cpu_dst"] or None)
                if (key, *options.items()) not in made:
                    made[(key, *options.items())] = Destination(*key, "tcg", options)
                found[index] = check(stream, made[(key, *options.items())], policy)
                bar.update()
    bar.close()
    return [v for v in found if v is not None]


def predicted(rows: pd.DataFrame, policy: Policy | str | None = None, progress: bool = True) -> pd.DataFrame:
    """What is predicted for rows of `real`: the same rows and columns, but for `stderr`.

    `loads`, `cause` and `field` are those of the verdict. Of the first obstacle there are: stage, kind, message, flags
    that differ (+ only in the stream, − only at the destination), commits (list).
    """
    told = [_told(v) for v in verdicts(rows, policy, progress)]
    kept = rows.drop(columns=["loads", "cause", "field", "stderr"]).reset_index(drop=True)
    return pd.concat([kept, pd.DataFrame(told, columns=list(_told(None)))], axis=1).set_index(rows.index)


def _told(verdict: Verdict | None) -> dict[str, Any]:
    first = verdict.first if verdict is not None else None
    if first is None:
        return {
            "loads": True,
            "cause": LOADS,
            "field": "",
            "stage": "",
            "kind": "",
            "message": "",
            "flags": "",
            "commits": [],
        }
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
    """A trace names a field without the structs that it is in."""
    return pd.Series([p == t or p.endswith(f".{t}") for t, p in zip(traced, path, strict=True)], traced.index)


def agreement(real: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """How many loads are predicted right: loads or not; where refused by both, the section blamed; the field traced.

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
    """`cause` of rows of `real` or `predicted`, sources × destinations; where a pair has several rows, the first."""
    order = sorted({*loads["src_version"], *loads["dst_version"]}, key=release_key)
    cells = loads.pivot_table("cause", "src_version", "dst_version", aggfunc="first")
    return cells.reindex(index=order, columns=order)
