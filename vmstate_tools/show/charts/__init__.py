"""Charts with matplotlib, of streams and frames: each function draws on one Axes and returns it.

Shade, hatch and text carry the meaning, never hue alone: a chart printed in grey says the same.
"""

from vmstate_tools.show.charts.history import equality_classes, flag_history
from vmstate_tools.show.charts.pairs import LOOKS, pair_matrix
from vmstate_tools.show.charts.source import description_raster, field_history
from vmstate_tools.show.charts.streams import KINDS, bytes_text, section_bytes, stream_bytes, stream_map, stream_strip
from vmstate_tools.show.charts.style import style
from vmstate_tools.show.charts.words import cpu_words, release_pairs, word_bits, word_distances, word_table

__all__ = [
    "KINDS",
    "LOOKS",
    "bytes_text",
    "cpu_words",
    "description_raster",
    "equality_classes",
    "field_history",
    "flag_history",
    "pair_matrix",
    "release_pairs",
    "section_bytes",
    "stream_bytes",
    "stream_map",
    "stream_strip",
    "style",
    "word_bits",
    "word_distances",
    "word_table",
]
