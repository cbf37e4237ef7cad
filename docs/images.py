"""Draws the charts of docs/images from the bundled streams: `python docs/images.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import vmstate_tools as vt
from vmstate_tools.analysis import cpu_history
from vmstate_tools.data import data_path
from vmstate_tools.facts import catalog
from vmstate_tools.show import charts

OUT = Path(__file__).resolve().parent / "images"
STREAMS = data_path("streams")


def main() -> None:
    with vt.open(STREAMS / "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst") as stream:
        drawn = {
            "stream-map": charts.stream_map(stream),
            "stream-strip": charts.stream_strip(stream),
            "cpu-section-words": charts.section_bytes(stream, "cpu", start=8528 - 24, stop=8528 + 48),
        }
    cpu = vt.load(sorted(STREAMS.glob("qemu-*/pseries-2.6/POWER7_v2.3.mig.zst")), fields=False).cpu
    drawn["cpu-words"] = charts.cpu_words(cpu, "insns_flags2")
    drawn["release-pairs"] = charts.release_pairs(cpu)
    drawn["flag-history"] = charts.flag_history("POWER8", "insns_flags2", dates=True)
    drawn["equality-classes"] = charts.equality_classes(cpu_history.classes(accel=None))
    drawn["description-raster"] = charts.description_raster(most=25)
    drawn["field-history"] = charts.field_history("pl011", since="4.0")
    old, new = (catalog.words("POWER7", release, accel=None).insns_flags for release in ("2.6.0", "2.7.0"))
    drawn["word-bits"] = charts.word_bits(old, new, "insns_flags", names=("2.6.0", "2.7.0"))
    for name, ax in drawn.items():
        with charts.style():
            ax.figure.savefig(OUT / f"{name}.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
