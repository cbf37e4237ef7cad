"""What a page of HTML has in it."""

from __future__ import annotations

from html.parser import HTMLParser


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)


def tags(page: str) -> set[str]:
    """The names of all tags that a browser would see."""
    parser = _Tags()
    parser.feed(page)
    return parser.seen
