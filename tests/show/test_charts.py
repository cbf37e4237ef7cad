from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from handmade import device, field, section, stream
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

import vmstate_tools as vt
from vmstate_tools.analysis import cpu_history as breaks
from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog
from vmstate_tools.show import charts
from vmstate_tools.show.letters import letters

mpl.use("Agg")

P26 = data_path("streams", "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
FILES = [
    P26,
    data_path("streams", "qemu-7.2/q35/qemu64+virtio.mig.zst"),
    data_path("streams", "qemu-11.1/pseries-5.2/POWER8_v2.0+x-ignore-shared.mig.zst"),
    data_path("streams", "qemu-1.6.0/bamboo/default.mig.zst"),
    data_path("streams", "qemu-5.2/mps2-an385/default.mig.zst"),
]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cpu() -> pd.DataFrame:
    files = [
        data_path("streams", f"qemu-{release}/pseries-2.6/POWER7_v2.3.mig.zst")
        for release in ("2.10.0", "2.6.0", "2.7.0", "2.8.0")
    ]
    return vt.load(files, fields=False).cpu


def inside(ax, path: Path) -> None:
    """Draw it, and hold every text against the figure's edges and its neighbours on the axes."""
    figure = ax.figure
    figure.savefig(path)
    assert ax.get_title(loc="left") and ax.get_xlabel()
    assert ax.get_ylabel() or not len(ax.get_yticks()), "an axis without a label"
    renderer = figure.canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    low, high = ax.get_xlim()
    ticks = [t for t in ax.get_xticklabels() if low <= t.get_position()[0] <= high]
    labels = [t for t in ticks + ax.get_yticklabels() + ax.texts + [ax.title] if t.get_text()]
    for text in labels:
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, text.get_text()
        assert text.get_fontsize() >= 7
    rows = [t.get_window_extent(renderer) for t in ax.get_yticklabels() if t.get_text()]
    assert not any(a.overlaps(b) for i, a in enumerate(rows) for b in rows[i + 1 :])


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_byte_is_on_the_map(file: Path, tmp_path: Path) -> None:
    with vt.open(file) as s:
        table = charts.stream_bytes(s)
        assert table["bytes"].sum() == len(s.source.view)
        assert set(table["kind"]) <= set(charts.KINDS)
        guest = table.loc[table["kind"] == "guest memory", "bytes"].sum()
        ram = sum(x.payload_size for x in s.sections if x.how == "ram")
        assert 0 <= guest <= ram
        inside(charts.stream_map(s), tmp_path / "map.png")


def test_ram_is_split_by_kind() -> None:
    with vt.open(P26) as s:
        table = charts.stream_bytes(s).set_index("what")["bytes"]
    # 65531 zero pages: 9 bytes each, but for the first of the block in a run, which names it (14 bytes more).
    assert (table["RAM: zero pages"] - 65531 * 9) % 14 == 0
    assert (table["RAM: full pages"] - 5 * (8 + 4096)) % 14 == 0


def test_strip_shows_the_file_to_scale(tmp_path: Path) -> None:
    with vt.open(P26) as s:
        ax = charts.stream_strip(s)
        inside(ax, tmp_path / "strip.png")
        drawn = {(p.get_x(), p.get_width()) for p in ax.patches if isinstance(p, Rectangle)}
        assert {(x.payload_offset, x.payload_size) for x in s.sections if x.payload_size} <= drawn


def test_section_by_bytes(tmp_path: Path) -> None:
    with vt.open(P26) as s:
        ax = charts.section_bytes(s, "globalstate")
        inside(ax, tmp_path / "globalstate.png")
        shown = "".join(t.get_text() for t in ax.texts if len(t.get_text()) == 2)
        payload = s.section("globalstate")
        assert bytes.fromhex(shown) == bytes(s.source.view[payload.payload_offset : payload.payload_end])
        inside(charts.section_bytes(s, "cpu"), tmp_path / "cpu.png")
        inside(charts.section_bytes(s, "cpu", start=8528, stop=8600), tmp_path / "words.png")
        with pytest.raises(ValueError, match="no bytes"):
            charts.section_bytes(s, "cpu", start=1 << 20)


def test_cpu_words(cpu: pd.DataFrame, tmp_path: Path) -> None:
    table = charts.word_table(cpu, "insns_flags2")
    assert list(table.columns) == ["2.6.0", "2.7.0", "2.8.0", "2.10.0"]
    assert table.loc["PPC2_PM_ISA206"].tolist() == [False, True, False, False]
    assert table.loc["PPC2_VSX"].all()
    ax = charts.cpu_words(cpu, "insns_flags2", changed=True)
    inside(ax, tmp_path / "words.png")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["PPC2_PM_ISA206"]
    assert sorted(t.get_text() for t in ax.texts) == ["+", "−"]
    with pytest.raises(ValueError, match="carries"):
        charts.cpu_words(cpu.iloc[:0])


def test_release_pairs(cpu: pd.DataFrame, tmp_path: Path) -> None:
    distances = charts.word_distances(cpu)
    # POWER7 got PPC_64BX, PPC_64H, PPC_CILDST and PPC2_PM_ISA206 with 2.7.0; 2.8.0 masks all but the first.
    assert distances.loc["2.6.0"].tolist() == [0, 4, 1, 1]
    assert distances.loc["2.7.0"].tolist() == [4, 0, 3, 3]
    inside(charts.release_pairs(cpu), tmp_path / "pairs.png")


@pytest.mark.parametrize("dates", [False, True])
def test_flag_history(dates: bool, tmp_path: Path) -> None:
    ax = charts.flag_history("POWER7", "insns_flags", since="2.5", until="2.8", changed=True, dates=dates)
    inside(ax, tmp_path / "flags.png")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["PPC_64BX", "PPC_64H", "PPC_CILDST"]
    texts = [t.get_text() for t in ax.texts]
    assert texts.count("+") == 3
    assert {"+2.7 dfdd3e4362", "+2.7 4e0806110c", "+2.7 b781537560"} <= set(texts)
    # Set in 2.7 and 2.8: the columns, whose edges lie at the releases' dates where asked for.
    filled = sorted({round(p.get_x(), 2) for p in ax.patches})
    assert filled == ([2016.67, 2016.97] if dates else [2, 3])


def test_flag_history_at_full_length(tmp_path: Path) -> None:
    for number, dates in enumerate((False, True)):
        inside(charts.flag_history("POWER9", "insns_flags", dates=dates), tmp_path / f"{number}.png")
        ax = charts.flag_history("970", "msr_mask", since="0.10", dates=dates)
        inside(ax, tmp_path / f"long{number}.png")
        assert "−" in {t.get_text() for t in ax.texts}
    tcg = charts.flag_history("POWER7", "insns_flags2", accel="tcg", machine="pseries", until="2.2", changed=True)
    assert "PPC2_DFP" in {t.get_text() for t in tcg.get_yticklabels()}
    with pytest.raises(ValueError, match="never changes"):
        charts.flag_history("603", changed=True, word="insns_flags")
    with pytest.raises(CatalogError):
        charts.flag_history("nope")


@pytest.mark.parametrize("dates", [False, True])
def test_equality_classes(dates: bool, tmp_path: Path) -> None:
    table = breaks.classes(None, cpus=["603", "POWER8", "POWER9", "604", "970FX"], until="3.0.0")
    ax = charts.equality_classes(table, dates=dates)
    inside(ax, tmp_path / "classes.png")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["POWER8", "POWER9", "970FX", "2 more, never changed"]
    letters = [t.get_text() for t in ax.texts if t.get_fontsize() == 8.5]
    assert letters == [*"ABCDEFG", *"ABC", *"AB", "A"]
    inside(charts.equality_classes(breaks.classes(None), dates=dates), tmp_path / "all.png")


def test_a_class_that_comes_back_keeps_its_letter() -> None:
    table = pd.DataFrame([[0, 1, 0, None]], ["X"], ["2.5.0", "2.6.0", "2.7.0", "2.8.0"], dtype="Int64")
    ax = charts.equality_classes(table)
    assert [t.get_text() for t in ax.texts] == ["A", "B", "A"]


def test_word_bits(tmp_path: Path) -> None:
    a, b = (catalog.words("POWER7", release, accel=None).insns_flags for release in ("2.6.0", "2.7.0"))
    ax = charts.word_bits(a, b, "insns_flags", names=("2.6.0", "2.7.0"))
    inside(ax, tmp_path / "bits.png")
    texts = [t.get_text() for t in ax.texts]
    assert "".join(texts[:16]) == f"{a:016x}" and "".join(texts[16:32]) == f"{b:016x}"
    assert texts[32:] == ["+ PPC_CILDST", "+ PPC_64H", "+ PPC_64BX"]
    assert "− PPC_64H" in [t.get_text() for t in charts.word_bits(b, a, "insns_flags").texts]
    inside(charts.word_bits(0, (1 << 64) - 1, "msr_mask"), tmp_path / "all.png")
    assert charts.word_bits(5, 5).get_title(loc="left") == "insns_flags2: equal"
    unknown = charts.word_bits(0, 1 << 14, "insns_flags", release="2.6.0")
    assert unknown.texts[-1].get_text() == "+ bit 14 (unknown)"


def test_names_from_a_stream_are_only_text(tmp_path: Path) -> None:
    evil = "dev$\\frac{\x1b$"
    made = stream([section(evil, bytes(4))], [device(evil, [field(evil, "uint32", 4)])], machine=evil)
    with vt.open(made) as s:
        charts.stream_map(s).figure.savefig(tmp_path / "a.png")
        charts.stream_strip(s).figure.savefig(tmp_path / "b.png")
        charts.section_bytes(s, evil).figure.savefig(tmp_path / "c.png")


def test_style_ends_with_its_context() -> None:
    before = dict(mpl.rcParams)
    with charts.style():
        assert not mpl.rcParams["axes.spines.top"]
    assert dict(mpl.rcParams) == before


def test_letters_go_on_behind_z() -> None:
    assert [letters(n) for n in (0, 25, 26, 27, 51, 52, 701, 702)] == ["A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]


def test_pair_matrix_has_a_letter_for_each_cause() -> None:
    table = pd.DataFrame(
        [["loads", "cpu"], ["zebra", None]], index=["2.6.0", "2.7.0"], columns=["2.6.0", "2.7.0"], dtype=object
    )
    ax = charts.pair_matrix(table, title="REAL", legend={"cpu": "the CPU's section"}, mark=table.eq("cpu"))
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn == {"_cpu": [[1.5, 0.5]], "_zebra": [[0.5, 1.5]]}
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["   loads (1)", "C  the CPU's section (1)", "Z  zebra (1)"]
    assert ax.get_title(loc="left") == "REAL"
    looks = charts.LOOKS.values()
    assert len({look.letter for look in looks if look.letter}) == sum(bool(look.letter) for look in looks)
