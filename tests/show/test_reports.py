from __future__ import annotations

import base64
import contextlib
import csv
import email
import email.policy
import mailbox
import re
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from click.testing import CliRunner
from handmade import device, field, section, stream
from pages import tags

import vmstate_tools as vt
from vmstate_tools.cli.main import main
from vmstate_tools.compat.policy import POLICIES
from vmstate_tools.data import data_path
from vmstate_tools.show.reports.mail import draft
from vmstate_tools.show.reports.options import SAYS
from vmstate_tools.show.reports.pairs import pairs
from vmstate_tools.source import zstd

mpl.use("Agg")
# What docs/examples/streams.* are made from; run from the checkout, as the paths in them say.
EXAMPLE = [f"data/streams/qemu-{release}/pseries-2.6" for release in ("2.6.0", "2.7.0", "2.8.0")]
FOLDERS = [data_path("streams", f"qemu-{release}") for release in ("2.6.0", "2.7.0", "2.8.0")]
EVIL = "dev</td><script>alert(1)</script>\x1b[31m{{ 7777 * 7777 }}"


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
    data = zstd.decompress(packed)
    return struct.unpack(">QQ", data[(end := data.index(b"\x05\x07cpu/fpu")) - 20 : end - 4])


def test_text_is_a_mail(text: str) -> None:
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 72
    assert not re.search(r"\n{3,}|[ \t]\n", text)


@pytest.mark.parametrize("model", ["POWER7_v2.3", "POWER8_v2.0", "POWER8e_v2.1"])
def test_the_words_are_those_in_the_bytes(text: str, html: str, model: str) -> None:
    part = text[text.index("The words that changed") :]
    part = part[part.index(f"* {model.lower()} on pseries-2.6\n") :]
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


def outcomes() -> list[dict[str, str]]:
    with data_path("outcomes", "load_matrix.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_pairs_are_those_that_real_qemus_took_or_refused(collection: vt.Collection, text: str) -> None:
    """Every pair of these streams and releases that was tried, by the table of outcomes itself."""
    files = {f.rpartition("streams/")[2]: f for f in collection.streams["file"]}
    found = {(p.file, p.destination, p.cpu): p for p in pairs(collection, progress=False)}
    agree, tried = 0, 0
    for row in outcomes():
        alone = not row["dst_extra"] and row["src_version"] != row["dst_version"]
        pair = found.get((files.get(row["stream"], ""), row["dst_version"], row["cpu_dst"].lower()))
        if alone and pair is not None:
            tried += 1
            agree += pair.verdict.loads == (row["vmstate_loaded"] == "True")
            field = row["fail_field"].partition("=")[0].partition(":")
            if field[0] == "cpu":
                assert pair.verdict.first and (pair.verdict.first.section, pair.verdict.first.field) == field[::2]
    assert (tried, agree) == (len([p for p in found.values() if p.real is not None]), tried)
    assert tried > 30
    assert f"Of {tried} pairs it is known what real QEMUs did: in {tried} it was the same." in " ".join(text.split())


def test_the_refusal_of_2016_has_values_flags_commits_and_a_remedy(text: str, html: str) -> None:
    """Commits and flags as git has them: 4e0806110c (PPC_64H), b781537560 (PPC_CILDST), 7778a575c7 (PPC2_PM_ISA206)."""
    part = text[text.index("What stops them") : text.index("Pairs of releases")]
    (case,) = [c for c in part.split("\n\n") if "power8_v2.0 on pseries-2.6: 2.6, 2.8 -> 2.7" in c]
    mine, theirs = (words(release, "POWER8_v2.0")[0] for release in ("2.6.0", "2.7.0"))
    assert f"in the stream:     {mine:#x}\n" in case and f"the destination's: {theirs:#x}\n" in case
    assert "only at the destination: PPC_64H, PPC_CILDST\n" in case
    said = " ".join(case.split())
    assert '4e0806110c ("ppc: Add PPC_64H instruction flag to POWER7 and POWER8") 2016-05-30' in said
    assert "b781537560" in said and "Remedy: " in said
    assert "cpu env.insns_flags2: not equal (-PPC2_PM_ISA206)" in said
    assert "PPC_CILDST: " in part, "the flags are explained"
    assert "4e0806110c" in html and f"{theirs:#x}" in html


def test_the_table_of_pairs(text: str) -> None:
    part = text[text.index("Pairs of releases\n") :]
    table = part[part.index("  power7_v2.3 on pseries-2.6:") :].split("\n\n")[1]
    assert [line.split() for line in table.splitlines()] == [
        ["2.6", "2.7", "2.8"],
        ["2.6", "A", "."],
        ["2.7", "A", "."],
        ["2.8", "A", "A"],
    ]


def test_options_are_told_apart(text: str) -> None:
    part = text[text.index("\nOptions\n") :]
    part = part[: part.index("\nLoads: ")]
    rows = {
        name: [int(n) for n in numbers.split()] for name, numbers in re.findall(r"(?m)^  ([a-z-]+) +([\d ]+)$", part)
    }
    assert rows["equal"][0] == 0 and rows["equal"][2] == sum(rows["equal"][:3])
    assert rows["ignore"][2] == 0, "no word stops anything that ignores the words"
    assert rows["ignore"][0] > rows["subset"][0] > 0


def test_a_release_to_hold_streams_against(tmp_path: Path) -> None:
    file = data_path("streams", "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
    text = vt.report(file, to=["2.7.0", "2.8.0"], progress=False)
    assert "Of 2 pairs of a stream and a release to load it, 1 would load and 1 would be refused." in " ".join(
        text.split()
    )
    assert "known by release, machine type and CPU model alone" in " ".join(text.split())


def test_a_mail(tmp_path: Path) -> None:
    file = data_path("streams", "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
    box = tmp_path / "reply.mbox"
    quote = tmp_path / "quote"
    quote.write_text("On a Tuesday:\n> older\nFrom here on it fails\n")
    args = ["report", str(file), "--to", "2.7.0", "-o", str(box), "--title", "pseries: 2.6 to 2.7"]
    args += ["--in-reply-to", "<20160908061610.GA1@example.org>", "--quote", str(quote)]
    args += ["--from", "A Reader <reader@example.org>", "--mail-to", "list@example.org", "--cc", "cc@example.org"]
    assert CliRunner().invoke(main, args).exit_code == 0
    with contextlib.closing(mailbox.mbox(box)) as messages:
        (only,) = messages
    mail = email.message_from_bytes(only.as_bytes(), policy=email.policy.default)
    assert mail["Subject"] == "Re: pseries: 2.6 to 2.7"
    assert mail["In-Reply-To"] == mail["References"] == "<20160908061610.GA1@example.org>"
    people = ["A Reader <reader@example.org>", "list@example.org", "cc@example.org"]
    assert [mail["From"], mail["To"], mail["Cc"]] == people
    assert not mail.defects and mail["Message-ID"] and mail["Date"].datetime.year >= 2024
    lines = mail.get_content().splitlines()
    assert lines[:4] == ["> On a Tuesday:", "> older", "> From here on it fails", ""]
    assert "1 would be refused" in " ".join(lines) and max(map(len, lines)) <= 72
    # What git makes of it, as `git send-email` and `git am` do.
    info = subprocess.run(
        ["git", "mailinfo", str(tmp_path / "body"), str(tmp_path / "patch")],
        input=box.read_bytes(),
        capture_output=True,
        check=True,
    ).stdout.decode()
    assert "Author: A Reader\nEmail: reader@example.org\nSubject: pseries: 2.6 to 2.7\n" in info


def test_a_mail_header_takes_no_second_line() -> None:
    with pytest.raises(ValueError):
        draft("text\n", "one\nBcc: two@example.org", date=datetime(2016, 9, 8, tzinfo=UTC))


def test_the_case_of_2016() -> None:
    """Against the outcomes, and the commits that the thread named."""
    text = vt.report(case="pseries-2016")
    assert text.isascii() and max(map(len, text.splitlines())) <= 72
    said = " ".join(text.split())
    for commit in ("4e0806110c", "dfdd3e4362", "b781537560", "7778a575c7"):
        assert f"  {commit} (" in text
    rows = [
        row
        for row in outcomes()
        if row["machine"].startswith("pseries")
        and {row["src_version"], row["dst_version"]} == {"2.6.0", "2.7.0"}
        and row["cpu_src"].lower() == row["cpu_dst"].lower()
        and not row["dst_extra"]
    ]
    refused = [row for row in rows if row["vmstate_loaded"] != "True"]
    assert {row["fail_field"] for row in refused} == {"cpu:env.insns_flags=-22"}
    assert f"Of {len(rows)} loads between the two releases" in said and f"{len(refused)} were refused" in said
    assert "970 and POWER5P are not affected" in said
    with pytest.raises(vt.VmstateError, match="pseries-2016"):
        vt.report(case="another")


@pytest.mark.parametrize("name", ["pseries-2016.txt", "streams.txt"])
def test_examples_in_the_docs_are_what_is_written_today(name: str, collection: vt.Collection) -> None:
    example = Path(__file__).parents[2] / "docs" / "examples" / name
    now = vt.report(case="pseries-2016") if name.startswith("pseries") else vt.report(EXAMPLE, progress=False)
    assert example.read_text() == now


def test_every_policy_is_explained() -> None:
    assert set(SAYS) == set(POLICIES)


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
        assert "script" not in tags(page)
    for page in [*pages[:4], vt.report(tmp_path, title=EVIL)]:
        assert "\x1b" not in page and "60481729" not in page


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
