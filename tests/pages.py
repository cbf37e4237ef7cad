"""Says what a page of HTML has in it."""

from __future__ import annotations

from html.parser import HTMLParser


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)


def tags(page: str) -> set[str]:
    """Returns the names of all tags that a browser would see."""
    parser = _Tags()
    parser.feed(page)
    return parser.seen


class _Frames(HTMLParser):
    """Collects the cells of tables that pandas made; the index of a frame is in `th` and left out."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._inside = self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table" and "dataframe" in (dict(attrs).get("class") or ""):
            self.tables.append([])
            self._inside = True
        elif self._inside and tag == "tr":
            self.tables[-1].append([])
        elif self._inside and tag == "td":
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "table"
        self._cell = self._cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.tables[-1][-1][-1] += data


def frames(page: str) -> list[list[list[str]]]:
    """Returns the cells of each pandas frame of a page, row by row, without its head and its index."""
    parser = _Frames()
    parser.feed(page)
    return [[row for row in table if row] for table in parser.tables]
