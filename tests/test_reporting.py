from __future__ import annotations

import base64
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
import zstandard
from click.testing import CliRunner
from handmade import device, field, section, stream

import vmstate_tools as vt
from vmstate_tools.bundled import data_path
from vmstate_tools.cli import main

mpl.use("Agg")
FOLDERS = [data_path("streams", f"qemu-{release}") for release in ("2.6.0", "2.7.0", "2.8.0")]
EVIL = "dev</td><script>alert(1)</script>\x1b[31m{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def collection() -> vt.Collection:
    return vt.load([*FOLDERS, data_path("..", "LICENSE")], fields=False, progress=False)


@pytest.fixture(scope="module")
def text(collection: vt.Collection) -> str:
    return vt.report(collection)


@pytest.fixture(scope="module")
def html(collection: vt.Collection) -> str:
    return vt.report(collection, format="html")


def words(release: str, model: str) -> tuple[int, int]:
    """insns_flags and insns_flags2 from the raw bytes: they stand right before the first subsection but nb_BATs."""
    packed = data_path("streams", f"qemu-{release}/pseries-2.6/{model}.mig.zst").read_bytes()
    data = zstandard.ZstdDecompressor().stream_reader(packed).read()
    return struct.unpack(">QQ", data[(end := data.index(b"\x05\x07cpu/fpu")) - 20 : end - 4])


def test_text_is_a_mail(text: str) -> None:
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 72
    assert not re.search(r"\n{3,}|[ \t]\n", text)


@pytest.mark.parametrize("model", ["POWER7_v2.3", "POWER8_v2.0", "POWER8e_v2.1"])
def test_the_words_are_those_in_the_bytes(text: str, html: str, model: str) -> None:
    part = text[text.index("The words that changed") :]
    part = part[part.index(f"{model.lower()} on pseries-2.6:") :]
    for release in ("2.6.0", "2.7.0", "2.8.0"):
        flags, flags2 = words(release, model)
        assert f"  {release}    0x{flags:016x}  0x{flags2:016x}" in part
        assert f"0x{flags:016x}" in html and f"0x{flags2:016x}" in html


def test_what_changed_between_releases(text: str) -> None:
    start = text.index("* power8_v2.0 on pseries-2.6")
    assert text[start:].splitlines()[1:3] == [
        "    2.7.0 adds PPC_64H, PPC_CILDST and PPC2_PM_ISA206",
        "    2.8.0 drops PPC_64H, PPC_CILDST and PPC2_PM_ISA206",
    ]
    same = re.search(r"The same words in all releases: ([^.]*(?:\.\d[^.]*)*)\.", text)
    assert same and "970fx_v3.1 on pseries-2.6" in " ".join(same[1].split())


def test_counts(collection: vt.Collection, text: str, html: str) -> None:
    files = sum(len(list(folder.rglob("*.mig.zst"))) for folder in FOLDERS)
    for document in (text, html):
        assert f"{files} streams could be read, 1 could not." in " ".join(document.split())
        assert "not a migration stream" in document
    for release in ("2.6.0", "2.7.0", "2.8.0"):
        n = len(list(data_path("streams", f"qemu-{release}").rglob("*.mig.zst")))
        assert re.search(rf"^  {re.escape(release)} +{n} ", text, re.MULTILINE)


def test_html_stands_alone(html: str) -> None:
    urls = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(urls) >= 6
    for url in urls:
        kind, _, data = url.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert "<script" not in html and "@import" not in html


def test_same_input_same_report(collection: vt.Collection, html: str) -> None:
    assert vt.report(collection, format="html") == html


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)


def hostile(tmp_path: Path) -> Path:
    path = tmp_path / f"x{EVIL.replace('/', '_')}.mig"
    path.write_bytes(stream([section(EVIL, bytes(4))], [device(EVIL, [field(EVIL, EVIL, 4)])], machine=EVIL))
    (tmp_path / f"y{EVIL.replace('/', '_')}.mig").write_bytes(path.read_bytes()[:-20])
    return path


def test_hostile_text(tmp_path: Path) -> None:
    path = hostile(tmp_path)
    with vt.open(path) as s:
        pages = [s._repr_html_(), s.sections[0]._repr_html_(), vt.load(tmp_path)._repr_html_()]
    pages.append(vt.report(tmp_path, format="html", title=EVIL))
    pages.append(vt.load(tmp_path).streams._repr_html_())
    for page in pages:
        tags = _Tags()
        tags.feed(page)
        assert "script" not in tags.seen
    for page in [*pages[:4], vt.report(tmp_path, title=EVIL)]:
        assert "\x1b" not in page and "49" not in page.replace("149", "")


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(vt.VmstateError, match="no streams"):
        vt.report(tmp_path)
    with pytest.raises(ValueError, match="pdf"):
        vt.report(FOLDERS[0], format="pdf")
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (2, "vmstate: no streams to report on\n")


def test_streams_without_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.mig").write_bytes(stream([section("dev", bytes(4))], [device("dev", [field("x", "uint32", 4)])]))
    text = vt.report(tmp_path)
    assert "not said" in text and "In none of them" in text


def test_command(tmp_path: Path, html: str) -> None:
    out = tmp_path / "report.html"
    args = ["report", *map(str, FOLDERS), str(data_path("..", "LICENSE")), "-o", str(out)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1 and "LICENSE could not be read" in result.stderr
    assert out.read_text(encoding="utf-8") == html
    again = CliRunner().invoke(main, args)
    assert again.exit_code == 2 and "--force" in again.stderr
