"""Descriptions seen in real streams, by release: what a release is known to know."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from vmstate_tools.compat.expectation import Entry
from vmstate_tools.description import Vmsd
from vmstate_tools.stream import Section, Stream


@dataclass(eq=False)
class Library:
    subsections: dict[str, dict[str, Vmsd | None]] = field(default_factory=dict)

    def describe(self, stream: Stream, section: Section, entry: Entry) -> None:
        """Find the description that fits an undescribed section."""


@functools.lru_cache(maxsize=64)
def of_release(release: tuple[int, int, int] | None) -> Library:
    return Library()
