"""Griffe extension: the sections of a docstring as Markdown lists; types stand in the signature."""

from __future__ import annotations

import re
from typing import Any

import griffe

_OF_ITEMS = ("Parameters", "Raises", "Attributes")


class Sections(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Sections of a docstring as lists, the rest as it is."""
    out: list[str] = []
    section = ""
    for line in re.sub(r"\n+(\w+)\n-{4,}\n", r"\n\n§\1\n\n", "\n" + text).strip("\n").split("\n"):
        item = re.match(r"([\w*][\w*, .]*) : (.*)", line)
        if line.startswith("§"):
            section = line[1:]
            out.append(f"**{section}**")
        elif section in _OF_ITEMS and item:
            names = ", ".join(f"`{name}`" for name in item[1].split(", "))
            out.append(f"- {names}: {item[2]}")
        else:
            if section in _OF_ITEMS and line and not line.startswith(" "):
                section = ""  # text behind the items
            out.append(line)
    return "\n".join(out)
