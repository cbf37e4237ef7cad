"""Questions of 04-where-it-broke, which asks real loads; the answers come from the table itself, row by row."""

from __future__ import annotations

import csv
from collections import Counter
from typing import Any

from course import question, same
from vmstate_tools.data import data_path
from vmstate_tools.facts import catalog


def _loads() -> list[dict[str, str]]:
    """Returns the loads of the notebook: pseries-2.6, the same CPU on both sides, streams that are bundled."""
    with data_path("outcomes", "load_matrix.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            r for r in csv.DictReader(file) if (r["machine"], r["config"], r["dst_extra"]) == ("pseries-2.6", "", "")
        ]
    same_cpu = [r for r in rows if r["cpu_src"].lower() == r["cpu_dst"].lower()]
    return [r for r in same_cpu if data_path("streams", r["stream"]).exists()]


@question("04-column")
def _(answer: Any) -> bool | str:
    """One column of the matrix for each destination: count the cells that load, without the diagonal."""
    rows = [r for r in _loads() if r["cpu_src"].lower() == "power7_v2.3" and r["src_version"] != r["dst_version"]]
    loads = Counter({r["dst_version"]: 0 for r in rows})
    loads.update(r["dst_version"] for r in rows if r["vmstate_loaded"] == "True")
    return same(answer, {d for d, n in loads.items() if n == min(loads.values())})


@question("04-hidden")
def _(answer: Any) -> bool | str:
    """The second row of `verdict.obstacles`, its column `field`."""
    old, new = (catalog.words("POWER7", r, "tcg", "pseries-2.6")._asdict() for r in ("2.6.0", "2.7.0"))
    differ = [word for word in old if old[word] != new[word]]
    return same(str(answer).removeprefix("env."), differ[1], [(differ[0], "That is the first.")])


@question("04-not-cpu")
def _(answer: Any) -> bool | str:
    """Refused, and the cause is neither `loads` nor `cpu`."""
    refused = [r for r in _loads() if r["vmstate_loaded"] != "True"]
    other = [r for r in refused if "device 'cpu'" not in r["stderr"]]
    return same(answer, len(other), [(len(refused), "These are all that were refused.")])
