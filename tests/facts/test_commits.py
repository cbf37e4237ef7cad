"""Hashes of commits: full in data, short in texts, and found in one by the other."""

from __future__ import annotations

import csv
import re

import pytest
from captures import capture

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.facts import commits

TABLES = sorted(path.relative_to(data_path()).as_posix() for path in data_path().rglob("*.csv"))
# Hexadecimal digits, letters and numerals among them, as long as git abbreviates at least; no part of a name or number.
HASH = re.compile(r"(?<![\w./-])(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{7,}(?![\w/-])")


@pytest.mark.parametrize("table", [name for name in TABLES if not name.startswith(("outcomes/", "streams/"))])
def test_every_hash_has_40_digits(table):
    with data_path(table).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row.get("commit"):
            assert re.fullmatch("[0-9a-f]{40}", row["commit"]), row
        assert all(len(found) == 40 for found in HASH.findall(row.get("source") or "")), row


def test_hashes_in_sources_are_seen():
    assert HASH.findall("hw/intc/xics.c: 24ee9229fe removed it (a83c284490); 0x603000000013f088") == [
        "24ee9229fe",
        "a83c284490",
    ]


def test_the_commits_of_a_refusal_are_in_the_catalog():
    """From 2.6 to 2.7: those that the thread of September 2016 named (4e0806110c, b781537560 and others)."""
    stream = capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
    verdict = vt.check(stream, vt.Destination("2.7.0"))
    changes = vt.catalog.changes()
    by = changes[changes["commit"].isin(verdict.first.commits)]
    assert {commit[:10] for commit in by["commit"]} == {"4e0806110c", "b781537560"}
    assert "commits: 4e0806110c b781537560\n" in verdict.explain()


def test_texts_have_short_hashes():
    full = "16a2497bd4" + "0" * 30
    assert commits.short(full) == "16a2497bd4"
    assert commits.shortened(f"since 2.7.1 ({full}); 0x{full}") == f"since 2.7.1 (16a2497bd4); 0x{full}"
