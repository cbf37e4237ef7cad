"""Draws docs/images/architecture.svg, the rooms of the package and three ways through them.

Run `python docs/architecture.py`. The rooms stand in the order of the layers in pyproject.toml; the table in
CONTRIBUTING.md says what each is for.
"""

from __future__ import annotations

import re
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

# Where each way begins, the modules it passes, in the order of the rooms, and what comes out at the end.
WAYS: dict[str, tuple[list[str], str]] = {
    "vt.open … fields()": (
        ["source/opening", "format/framing", "vmstate/layout", "stream/field_tables"],
        "a frame",
    ),
    "vt.check": (
        ["source/opening", "format/framing", "vmstate/layout", "stream/stream", "facts/catalog", "compat/load"],
        "a verdict",
    ),
    "vt.rewrite": (
        ["source/opening", "format/framing", "vmstate/layout", "stream/stream", "facts/catalog", "rewriting/file"],
        "a rewritten file",
    ),
}
DASHES = ("", "9 5", "2 4")  # so that the ways are told apart in grey

INK, FRAME, PAPER, CORE = "#111111", "#8b9daa", "#ffffff", "#e9eef1"
WIDTH, TOP, ROW, BOX = 1150, 84, 54, 470
LANE = 205  # pixels between the ways


def layers() -> list[str]:
    """Returns the rooms and the modules at the top, lowest first, as import-linter holds them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (found,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [name.strip("()") for name in reversed(found)]


def sentences() -> dict[str, str]:
    """Returns room or module → what may stand in it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `vmstate_tools/([\w/]+?)(?:/|\.py)` \| (.*) \|$", text, re.MULTILINE)
    return {name: re.sub(r"[`*]", "", said) for name, said in rows}


def draw() -> str:
    """Returns the picture as SVG."""
    said = sentences()
    names = [name for name in layers() if name in said]
    core = names[names.index("source") : names.index("frames") + 1]
    height = TOP + ROW * len(names) + 10
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        "<title>The rooms of vmstate_tools, and three ways through them</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        text(20, 28, "The rooms of vmstate_tools: each imports only from those above it", 16, bold=True),
    ]
    y = {name: TOP + ROW * i for i, name in enumerate(names)}
    first, last = y[core[0]], y[core[-1]] + ROW
    out.append(f'<rect x="14" y="{first - 3}" width="{BOX + 36}" height="{last - first}" fill="{CORE}" rx="6"/>')
    out.append(
        f'<text transform="translate({BOX + 30} {(first + last) / 2}) rotate(90)" text-anchor="middle" fill="{INK}">'
        "the decoding core</text>"
    )
    for name in names:
        out += room(name, said[name], y[name])
    for lane, (start, (modules, end)) in enumerate(WAYS.items()):
        out += way(lane, start, modules, end, y)
    return "\n".join([*out, "</svg>", ""])


def room(name: str, sentence: str, y: float) -> list[str]:
    """Returns a box with the name of a room and what may stand in it."""
    lines = textwrap.wrap(sentence, 46)[:2]
    out = [
        f'<rect x="20" y="{y}" width="{BOX}" height="{ROW - 8}" fill="{PAPER}" stroke="{FRAME}" rx="4"/>',
        text(30, y + 27, name, 15, bold=True),
    ]
    start = y + 27 - 7.5 * (len(lines) - 1)
    return out + [text(160, start + 16 * i, line) for i, line in enumerate(lines)]


def way(lane: int, start: str, modules: list[str], end: str, y: dict[str, float]) -> list[str]:
    """Returns a line from the start of a way through its modules to its end."""
    x = BOX + 95 + LANE * lane
    last = y[modules[-1].partition("/")[0]] + ROW / 2 + 34
    dash = f' stroke-dasharray="{DASHES[lane]}"' if DASHES[lane] else ""
    out = [
        text(x - 12, TOP - 22, start, 15, bold=True),
        f'<line x1="{x}" y1="{TOP - 12}" x2="{x}" y2="{last - 14}" stroke="{INK}" stroke-width="2.5"{dash}/>',
        f'<path d="M {x - 6} {last - 16} L {x + 6} {last - 16} L {x} {last - 4} Z" fill="{INK}"/>',
        text(x - 12, last + 14, end, 15, bold=True),
    ]
    for module in modules:
        at = y[module.partition("/")[0]] + (ROW - 8) / 2
        out.append(f'<circle cx="{x}" cy="{at}" r="6" fill="{PAPER}" stroke="{INK}" stroke-width="2.5"/>')
        out.append(text(x + 14, at + 5, module))
    return out


def text(x: float, y: float, content: str, size: int = 13, bold: bool = False) -> str:
    """Returns a line of text whose base line begins at (x, y)."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{INK}"{weight}>{escape(content)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
