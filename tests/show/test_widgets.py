"""The explorer without a browser: its tree against what `Stream` tells, its answers, and the static page."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import EVIL, device, field, hostile, section, stream
from pages import tags
from writer import be

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.show.widgets.explore import Explorer
from vmstate_tools.show.widgets.rows import MOST
from vmstate_tools.show.widgets.tree import Elements, Node, roots

STREAMS = data_path("streams")
OLD, NEW = (STREAMS / f"qemu-{release}/pseries-2.6/POWER8_v2.0.mig.zst" for release in ("2.6.0", "2.7.0"))
# Releases with and without a vmdesc, several CPUs, subsections in structs, hand-written sections, NULLs in arrays.
VARIED = sorted(STREAMS.rglob("*.mig.zst"))[5::31]
PLAIN = {"p", "b", "div", "small", "table", "thead", "tbody", "tr", "th", "td"}


def leaves(nodes: Iterator[Node] | Any) -> Iterator[Node]:
    """What has no tree under it; an array of values counts as one."""
    for node in nodes:
        inner = node.children()
        if not inner or (isinstance(inner, Elements) and (not node.path or not inner[0].inner)):
            yield node
        else:
            yield from leaves(inner)


@pytest.mark.parametrize("path", VARIED, ids=lambda p: "-".join(p.parts[-3:]))
def test_tree_has_every_byte_and_every_field(path: Path) -> None:
    with vt.open(path) as s:
        found = sorted(leaves(roots(s)), key=lambda node: node.offset)
        at = 0
        for node in found:
            assert node.offset == at, node
            at += node.size
        assert at == len(s.source.view)
        nodes = {(n.offset, n.path, n.type, n.vmsd): n for n in found if n.kind in ("field", "array")}
        frame = s.fields(fold=1)
        assert len(nodes) == len(frame)
        columns = ("offset", "path", "type", "vmsd", "size", "value")
        for offset, name, type_, vmsd, size, value in zip(*(frame[c].tolist() for c in columns), strict=True):
            node = nodes[offset, name.split("[0:")[0] if "[0:" in name else name, type_, vmsd]
            assert node.size == size
            if node.kind == "field":
                assert node.read() == (value[:64] if isinstance(value, bytes) else value)


@pytest.fixture(scope="module")
def old() -> Iterator[vt.Stream]:
    with vt.open(OLD) as s:
        yield s


@pytest.fixture(scope="module")
def explorer(old: vt.Stream) -> Explorer:
    return vt.explore(old)


def test_no_row_is_longer_than_it_may(explorer: Explorer, old: vt.Stream) -> None:
    at = old.section("spapr_iommu").payload_offset + 9 + 200_000 * 8  # behind liobn, nb_table, bypass
    shown = explorer.answer({"do": "at", "side": 0, "offset": at + 3})
    assert explorer.selected["path"] == "table[200000]" and explorer.selected["offset"] == at
    assert max(len(step["rows"]) for step in shown["way"]) <= MOST
    assert len(shown["way"]) == 4  # section, table, 10,000 of it, 100 of those
    labels = {row["row"]: row["label"] for step in shown["way"] for row in step["rows"]}
    assert labels[shown["way"][2]["row"]] == "[200000 … 209999]"
    assert labels[shown["way"][3]["row"]] == "[200000 … 200099]"


def test_bytes_are_those_of_the_file(explorer: Explorer, old: vt.Stream) -> None:
    explorer.select("cpu", "env.insns_flags2")
    side = explorer._start["shown"]["detail"]["sides"][0]
    window = side["bytes"]
    data = bytes.fromhex(window["data"])
    raw = bytes(old.source.view)
    assert data == raw[window["start"] : window["start"] + 256]
    # It stands before the 4 bytes of nb_BATs and the header of the first subsection.
    assert side["offset"] == raw.index(b"\x05\x07cpu/fpu") - 12
    (value,) = struct.unpack_from(">Q", raw, side["offset"])
    assert dict(side["facts"])["in hex"] == f"0x{value:016x}"
    assert explorer.selected["value"] == value
    flags = {flag["name"] for flag in explorer._start["shown"]["detail"]["flags"]}
    assert flags == set(vt.flags.decode("insns_flags2", value))
    assert "must equal the destination" in explorer._start["shown"]["detail"]["meaning"]
    later = explorer.answer({"do": "bytes", "side": 0, "start": len(raw) + 5})["bytes"]
    assert later["start"] == len(raw) - 1 and bytes.fromhex(later["data"]) == raw[-1:]


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("env.insns_flags", ["env.insns_flags", "env.insns_flags2"]),
        ("INSNS_FLAGS?", ["env.insns_flags2"]),
        ("env.spr[318]", ["env.spr[318]"]),
        ("mem_*", ["mem_win_addr", "mem_win_size"]),
        ("em_win*", []),
        ("nr_*", ["nr_irqs"]),
        ('"prelaunch"', ["runstate"]),
        ("spapr/rtc/0", [""]),
    ],
)
def test_search_by_name_and_text(explorer: Explorer, query: str, paths: list[str]) -> None:
    assert [row["path"] for row in explorer.answer({"do": "find", "query": query})["found"]["rows"]] == paths


@pytest.mark.parametrize("query", ["21", "0x15", "0x8000600fe1ff3a61", "-768066000", "18446744073709551615", "0x400"])
def test_search_by_value(explorer: Explorer, old: vt.Stream, query: str) -> None:
    frame = old.fields()
    number = int(query, 0)
    values = frame["value"].tolist()
    same = [not isinstance(v, (bytes, bool)) and v == number for v in values]
    found = explorer.answer({"do": "find", "query": query})["found"]["rows"]
    assert [row["path"] for row in found] == frame["path"][same].tolist()
    assert found


def test_what_was_found_is_where_it_says(explorer: Explorer) -> None:
    for row in explorer.answer({"do": "find", "query": "env.*"})["found"]["rows"]:
        shown = explorer.answer({"do": "at", "side": 0, "offset": row["offset"], "path": row["path"]})
        assert shown["detail"]["title"] == row["path"]


def test_two_streams(old: vt.Stream) -> None:
    with vt.open(NEW) as new:
        both = vt.explore(old, new)
        frame = vt.diff(old, new)
        counts = frame.groupby("section").size().to_dict()
        rows = {row["label"]: row for row in both._start["rows"]}
        assert {
            label.rsplit("/", 1)[0]: row["differences"] for label, row in rows.items() if row["differences"]
        } == counts
        for row in both.answer({"do": "differences"})["found"]["rows"]:
            shown = both.answer({"do": "at", "side": row["side"], "offset": row["offset"], "path": row["path"]})
            line = next(r for r in shown["way"][-1]["rows"] if r["row"] == shown["row"])
            assert line["differences"] >= 1 and shown["detail"]["title"] in row["label"]
            for side, s in zip(shown["detail"]["sides"], (old, new), strict=True):
                part = s.source.view[side["offset"] : side["offset"] + 8].hex()
                at = side["offset"] - side["bytes"]["start"]
                assert side["bytes"]["data"][2 * at :].startswith(part)
        both.select("cpu", "env.insns_flags")
        only = {flag["name"]: flag["only"] for flag in both._start["shown"]["detail"]["flags"] if flag["only"]}
        assert only == {"PPC_64H": "b", "PPC_CILDST": "b"}
        same = both.answer({"do": "open", "row": rows["globalstate/0"]["row"]})["rows"]
        assert [row["differences"] for row in same] == [0] * 4


def test_what_only_one_side_has() -> None:
    fields = [field("x", "uint32", 4)]
    sub = {"vmsd_name": "dev/sub", "version": 1, "fields": [field("y", "uint8", 1)]}
    small = stream([section("dev", bytes(4))], [device("dev", fields)])
    large = stream(
        [section("dev", bytes(4) + b"\x05\x07dev/sub" + bytes([0, 0, 0, 1, 9])), section("new", bytes(4), number=2)],
        [device("dev", fields, subsections=[sub]), device("new", fields)],
    )
    with vt.open(small) as a, vt.open(large) as b:
        both = vt.explore(a, b)
        rows = {row["label"]: row for row in both._start["rows"]}
        assert (rows["dev/0"]["only"], rows["new/0"]["only"]) == ("", "b")
        inside = {r["label"]: r["only"] for r in both.answer({"do": "open", "row": rows["dev/0"]["row"]})["rows"]}
        assert inside == {"header": "", "x": "", "dev/sub": "b", "footer": ""}
        detail = both.answer({"do": "pick", "row": rows["new/0"]["row"]})["detail"]
        assert detail["sides"][0] is None and detail["sides"][1]["size"] == b.section("new").size


def test_hostile_text_stays_text() -> None:
    with vt.open(hostile()) as s:
        evil = vt.explore(s, section=EVIL, field=s.fields()["path"][0])
        assert tags(evil.static_html()) <= {*PLAIN, "details", "summary", "pre", "mark"}
        with vt.open(hostile()) as other:
            assert "img" not in tags(vt.explore(s, other).static_html())
        assert "img" not in tags(evil.static_html()) and "\x1b" not in evil.static_html() + repr(evil._start)


def test_a_page_may_ask_for_nonsense(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(type(explorer), "send", lambda self, message: sent.append(message))
    nonsense = [
        {},
        {"do": "format"},
        {"do": "open"},
        {"do": "open", "row": 1 << 40},
        {"do": "pick", "row": "x"},
        {"do": "bytes", "side": 7, "start": 0},
        {"do": "bytes", "side": 0, "start": None},
        {"do": "at", "side": 0, "offset": -1},
        {"do": "at", "side": 0, "offset": 1 << 70},
    ]
    for message in nonsense:
        explorer._asked(None, message | {"from": "me"}, [])
        assert sent[-1]["to"] == "me" and sent[-1]["error"], message


def test_wrong_names_and_closed_streams() -> None:
    s = vt.open(OLD)
    widget = vt.explore(s)
    with pytest.raises(KeyError, match="no section 'cpus'"):
        vt.explore(s, section="cpus")
    with pytest.raises(KeyError, match=r"no field 'env\.nope'"):
        widget.select("cpu", "env.nope")
    s.close()
    with pytest.raises(vt.VmstateError, match="closed"):
        widget.answer({"do": "open", "row": 2})


def test_the_static_page_and_the_widget_are_two_outputs(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    explorer.select("cpu", "env.nb_BATs")
    explorer._ipython_display_()
    static, live = shown
    assert "text/html" in static and explorer._start["static"] in static["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in live and "text/html" not in live
    assert (
        "env.nb_BATs" in static["text/html"]
        and "<mark>" in static["text/html"]
        and "globalstate/0" in static["text/html"]
    )


def test_memory_does_not_grow_with_the_guest(tmp_path: Path) -> None:
    pages, name = 1 << 14, b"ram"
    path = tmp_path / "large.mig"
    with path.open("wb") as out:  # 64 MiB of full pages
        out.write(b"QEVM" + struct.pack(">I", 3) + struct.pack(">BIB3sII", 1, 1, 3, name, 0, 4))
        out.write(struct.pack(">QB3sQQ", pages << 12 | 4, 3, name, pages << 12, 16))
        out.write(struct.pack(">BI", 3, 1))
        for i in range(pages):
            out.write(
                struct.pack(">Q", i << 12 | 8 | (0x20 if i else 0)) + (b"" if i else b"\x03" + name) + bytes(4096)
            )
        out.write(struct.pack(">QB", 16, 0))
    tracemalloc.start()
    with vt.open(path) as s:
        widget = vt.explore(s)
        at = len(s.source.view) - 9 - 4104 * 5 + 100
        shown = widget.answer({"do": "at", "side": 0, "offset": at})
        assert shown["detail"]["title"] == f"0x{(pages - 5) << 12:x}"
        assert widget.selected["size"] == 4104
        widget.answer({"do": "find", "query": "ram"})
        widget.static_html()
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_run_of_equal_records_is_one_node() -> None:
    """A million empty sections: the tree has the first and, as one node, all that are equal to it."""
    empty = b"\x04" + be(1, 4) + b"\x02zz" + be(0, 4) + be(1, 4) + b"\x7e" + be(1, 4)
    with vt.open(b"QEVM" + be(3, 4) + empty * 1_000_001 + b"\0") as stream:
        began = time.process_time()
        nodes = roots(stream)
        assert [(node.label, node.offset, node.size) for node in nodes] == [
            ("file header", 0, 8),
            ("zz/0", 8, 21),
            ("1,000,000 alike", 29, 21_000_000),
            ("end of file mark", 21_000_029, 1),
        ]
        assert not nodes[2].children()
        assert time.process_time() - began < 1
