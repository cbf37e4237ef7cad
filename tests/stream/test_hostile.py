"""Streams that were made to do harm: read or refused, soon and in little memory; their text never more than text."""

from __future__ import annotations

import csv
import gzip
import io
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import handmade
import pytest
import ram_streams
import writer
from click.testing import CliRunner
from exercise import exercise
from hypothesis import HealthCheck, given, settings
from strategies import mutated, streams
from writer import Vmsd, Writer, be

import vmstate_tools as vt
from vmstate_tools.errors import StreamError

HOSTILE = Path(__file__).parents[1] / "data" / "hostile"
TEXT = "<script>alert(1)</script>\x1b[31m$x^2$\u202e"

_relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=100)


@pytest.fixture
def limits() -> Iterator[None]:
    """Two seconds of the processor's time, of which a loaded machine may need more than one, and 512 MiB."""
    begin = time.process_time()
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - begin < 8  # tracing makes it several times slower
    assert peak < 512 << 20


@_relaxed
@given(streams())
def test_valid_streams_are_read_and_built(data: bytes) -> None:
    assert exercise(data) == []


@_relaxed
@given(mutated())
def test_mutated_streams_are_errors_or_read(data: bytes) -> None:
    exercise(data)


@_relaxed
@given(mutated())
def test_mutated_streams_in_part(data: bytes) -> None:
    exercise(data, partial=True)


@pytest.mark.parametrize(
    "row",
    list(csv.DictReader((HOSTILE / "expected.csv").read_text(encoding="utf-8").splitlines())),
    ids=lambda row: row["file"],
)
def test_what_once_went_wrong(row: dict[str, str], limits: None) -> None:
    errors = exercise(gzip.decompress((HOSTILE / row["file"]).read_bytes()), partial=row["partial"] == "yes")
    assert row["error"] in "\n".join(map(str, errors))


# -- claims -----------------------------------------------------------------------------------------------------------


def described(fields: list[dict], payload: bytes, **more: object) -> bytes:
    return handmade.stream([handmade.section("dev", payload)], [handmade.device("dev", fields, **more)])


def nested(depth: int, inner: dict) -> dict:
    for _ in range(depth):
        inner = handmade.field("s", "struct", 1, struct={"vmsd_name": "s", "version": 1, "fields": [inner]})
    return inner


def vmdesc(devices: bytes) -> bytes:
    text = b'{"devices":' + devices + b"}"
    return b"QEVM\0\0\0\3\0\6" + be(len(text), 4) + text


def one(**more: object) -> dict:
    return handmade.field("f", "uint8", 1, **more)


CLAIMS = {
    "2^31 fields": (
        described([handmade.field("f", "uint32", 4, array_len=1 << 31)], bytes(100)),
        "its description claims 8589934592 bytes",
    ),
    "2^31 structs": (
        described(
            [handmade.field("f", "struct", 1, array_len=1 << 31, struct={"vmsd_name": "s", "fields": [one()]})],
            bytes(100),
        ),
        "claims 2147483648 bytes",
    ),
    "2^48 empty structs": (
        described([handmade.field("f", "struct", 0, array_len=1 << 48, struct={"vmsd_name": "s", "fields": []})], b"x"),
        "then no end of a section",
    ),
    "many fields of no bytes": (
        described(
            [
                handmade.field(
                    "f",
                    "struct",
                    1,
                    array_len=100_000,
                    struct={
                        "vmsd_name": "s",
                        "fields": [handmade.field(f"z{i}", "buffer", 0) for i in range(100)] + [one()],
                    },
                )
            ],
            bytes(100_000),
        ),
        "to give the fields of",
    ),
    "1000 deep": (described([nested(300, one())], bytes(1)), "nested more than 64 deep"),
    "10^6 deep": (vmdesc(b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000), "the vmdesc is not JSON"),
    "10^5 lists": (vmdesc(b"[" * 100_000 + b"]" * 100_000), "the vmdesc is not JSON"),
    "more objects than devices have": (vmdesc(b"[" + b"[]," * 1_400_000 + b"1]"), "objects and elements"),
    "a vmdesc of 4 GiB": (b"QEVM\0\0\0\3\0\6\xff\xff\xff\xff{}", "the stream ends inside a record"),
    "page bits": (Writer("toy", page_bits=0xFFFFFFFF).finish(False), "4294967295 target page bits"),
    "pages of a strange size": (Writer("toy", page_size=3).finish(), "where a number belongs"),
    "a long array of pointers": (
        described([one(array_len=40_000), one(array_len=40_000)], bytes(80_000)),
        "arrays in runs of more than 65536 elements",
    ),
    "a block list without end": (
        b"QEVM\0\0\0\3\1\0\0\0\1\3ram\0\0\0\0\0\0\0\4"
        + be(1 << 63 | 4, 8)
        + b"".join(be(1, 1) + bytes([i]) + be(1 << 55, 8) for i in range(200)),
        "the file ends here, in section ram/0",
    ),
    "a long value in an error": (
        described([{"name": ["x" * 100_000] * 100, "type": "uint8", "size": 1}], b"x"),
        "where a string belongs",
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_are_refused_at_once(name: str, limits: None) -> None:
    data, message = CLAIMS[name]
    errors = exercise(data)
    assert errors
    assert message in str(errors[0])
    assert all(len(str(error)) < 2500 for error in errors)


def test_zip_bombs_are_refused(limits: None) -> None:
    bomb = gzip.compress(Writer("toy").finish(False) + bytes(100 << 20))
    with pytest.raises(StreamError, match="unpack"):
        vt.open(bomb)


def test_overlapping_mapped_blocks_are_refused() -> None:
    stream = Writer("toy", capabilities=["mapped-ram"])
    stream.begin(1, "ram", 0, 4)
    stream.data += be(2 * 4096 | 4, 8)
    header = be(4096, 8) + be(1, 4) + be(4096, 8) + be(1024, 8) + be(4096, 8)
    stream.data += b"\1a" + header
    stream.data += bytes(8192 - len(stream.data)) + b"\1b" + header
    with vt.open(bytes(stream.data) + bytes(16384)) as opened, pytest.raises(StreamError, match="one after another"):
        _ = opened.sections


def test_one_array_does_not_become_a_row_per_byte(limits: None) -> None:
    n = 3_000_000
    with vt.open(described([handmade.field("f", "uint8", 1, array_len=n)], bytes(n))) as stream:
        frame = stream.fields()
        assert frame["path"].tolist() == [f"f[0:{n}]"]
        assert frame["size"].sum() == n


def test_arrays_unfold_as_far_as_rows_go() -> None:
    fields = [handmade.field(f"f{i}", "uint8", 1, array_len=size) for i, size in enumerate((5, 2_500_000, 9))]
    with vt.open(described(fields, bytes(2_500_014))) as stream:
        assert len(stream.fields()) == 5 + 1 + 9
        assert len(stream.fields(fold=5)) == 5 + 1 + 1


def test_opaque_sections_take_time_in_proportion() -> None:
    def seconds(n: int) -> float:
        sections = [handmade.section("cpu", b"\5\3cpu" * 30, instance=i, number=i) for i in range(n)]
        data = handmade.stream(sections, None)
        begin = time.process_time()
        exercise(data)
        return time.process_time() - begin

    seconds(10)
    assert seconds(800) < 20 * max(seconds(200), 0.05)


def test_devices_of_one_name_take_time_in_proportion() -> None:
    n = 10_000
    data = handmade.stream([handmade.section("d", b"")] * n, [handmade.device("d", [])] * n)
    begin = time.process_time()
    with vt.open(data) as stream:
        assert len(stream.sections) == n
    assert time.process_time() - begin < 15


def test_the_vmdesc_is_found_among_marks(limits: None) -> None:
    noise = b"\6\0\0\0{" * 400_000
    with vt.open(Writer("toy").finish()[:-1] + noise + b"}", partial=True) as stream:
        assert stream.vmdesc is None


# -- text from a stream -----------------------------------------------------------------------------------------------


def spoken() -> bytes:
    """A stream whose every name is hostile."""
    stream = Writer("toy")
    stream.data[8:] = b"\7" + be(len(TEXT.encode()), 4) + TEXT.encode()
    raw = TEXT.encode()
    section_id = stream.begin(1, "ram", 0, 4)
    stream.data += ram_streams.mem_size((raw, 4096)) + ram_streams.be64(ram_streams.EOS)
    stream.footer(section_id)
    fields = [writer.u32(TEXT, 1, 2), writer.number("n", TEXT, 4, 5)]
    vmsd = Vmsd("toy", fields, [])
    header = b"\5" + bytes([len(raw)]) + raw + be(1, 4)
    stream.data += b"\4" + be(9, 4) + bytes([len(raw)]) + raw + be(0, 4) + be(1, 4)
    stream.data += vmsd.data() + header + b"\7" + b"\x7e" + be(9, 4)
    sub = {"vmsd_name": TEXT, "version": 1, "fields": [writer.u8(TEXT, 7).json()]}
    stream.devices.append({"name": TEXT, "instance_id": 0, **vmsd.json(), "subsections": [sub]})
    return stream.finish()


def harmless(text: str, *, html: bool = False) -> None:
    assert "alert(1)" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    if html:
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_text_in_frames_and_reprs() -> None:
    with vt.open(spoken()) as stream:
        assert exercise(spoken()) == []
        for frame in (stream.fields(), stream.coverage(), stream.ram.blocks, stream.ram.pages):
            harmless(frame.to_string())
            harmless(frame.to_csv())
            harmless(frame.to_html(), html=True)
        harmless(repr(stream))
        harmless(repr(stream.sections))
        harmless(stream._repr_html_(), html=True)
        harmless(stream.sections[-1]._repr_html_(), html=True)
        harmless(stream.machine or "")
        assert stream.value(stream.sections[-1].idstr, stream.fields()["path"].iloc[-1]) == 7


def test_text_in_errors() -> None:
    with vt.open(spoken()) as stream:
        with pytest.raises(KeyError) as missing:
            stream.section("no such")
        harmless(str(missing.value))
    data = spoken().replace(b"\x7e" + be(9, 4), b"\x7e" + be(8, 4))
    with vt.open(data) as stream, pytest.raises(StreamError) as wrong:
        _ = stream.sections
    harmless(str(wrong.value))


def test_text_in_commands(tmp_path: Path) -> None:
    from vmstate_tools.cli.main import main

    path = tmp_path / "a.mig"
    path.write_bytes(spoken())
    other = tmp_path / "b.mig"
    other.write_bytes(spoken()[:-1] + b" }")
    runner = CliRunner()
    for arguments in (["info", "--ram", str(path)], ["fields", str(path)], ["info", "--json", str(path)]):
        result = runner.invoke(main, arguments)
        assert result.exit_code == 0, result.output
        assert "alert" in result.output
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
    assert "\x1b" not in runner.invoke(main, ["diff", str(path), str(other)]).output


def guest(name: bytes) -> bytes:
    """A stream with one RAM block of three pages."""
    ram = ram_streams.Writer()
    ram.blocks((name, 3 * 4096))
    ram.page(name, 4096, b"\xaa" * 4096)
    ram.eos()
    stream = Writer("toy")
    section_id = stream.begin(1, "ram", 0, 4)
    stream.data += ram.out
    stream.footer(section_id)
    return stream.finish()


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/x", "..", ".", "a\0b", TEXT])
def test_a_block_stays_in_the_directory(tmp_path: Path, name: str) -> None:
    from vmstate_tools.cli.main import main

    (tmp_path / "a.mig").write_bytes(guest(name.encode()))
    (out := tmp_path / "deep" / "out").mkdir(parents=True)
    result = CliRunner().invoke(main, ["ram", str(tmp_path / "a.mig"), "-o", str(out)])
    assert result.exit_code == 0, result.output
    (file,) = out.iterdir()
    assert file.read_bytes() == bytes(4096) + b"\xaa" * 4096 + bytes(4096)
    assert {p.name for p in tmp_path.iterdir()} == {"a.mig", "deep"}
    assert "\x1b" not in result.output
    assert not file.name.startswith(".")


def test_ram_does_not_overwrite(tmp_path: Path) -> None:
    from vmstate_tools.cli.main import main

    (tmp_path / "a.mig").write_bytes(guest(b"pc.ram"))
    (tmp_path / "out").write_text("mine")
    command = ["ram", str(tmp_path / "a.mig"), "--block", "pc.ram", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--force" in result.output
    assert (tmp_path / "out").read_text() == "mine"
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0
    assert (tmp_path / "out").stat().st_size == 3 * 4096
    missing = CliRunner().invoke(main, [*command[:3], "no", "-o", str(tmp_path / "new")])
    assert missing.exit_code == 2
    assert "pc.ram" in missing.output
    assert not (tmp_path / "new").exists()


def test_text_in_reports(tmp_path: Path) -> None:
    from vmstate_tools.show.reports import report

    (tmp_path / f"{TEXT.replace('/', '_')}.mig").write_bytes(spoken().replace(b"\x7e" + be(9, 4), b"\x7e" + be(8, 4)))
    (tmp_path / "good.mig").write_bytes(spoken())
    page = report(tmp_path, "html")
    assert "<script>" not in page
    assert "\x1b" not in page
    harmless(report(tmp_path))


def test_text_in_charts() -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    from vmstate_tools.show import charts

    with vt.open(spoken()) as stream:
        for ax in (
            charts.stream_map(stream),
            charts.stream_strip(stream),
            charts.section_bytes(stream, stream.sections[-1]),
        ):
            out = io.BytesIO()
            ax.get_figure().savefig(out, format="svg")
            labels = [label for label in ax.get_figure().findobj(mpl.text.Text) if "alert" in label.get_text()]
            assert labels
            assert not any(label.get_parse_math() for label in labels)
            assert not any("\x1b" in label.get_text() for label in labels)
            assert b"<script" not in out.getvalue()
            plt.close(ax.get_figure())
