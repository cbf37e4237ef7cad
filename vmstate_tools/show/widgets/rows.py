"""The rows of the tree that is shown: nodes of one stream, or of two side by side, at most a hundred in a row."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vmstate_tools.show.widgets.tree import Elements, Node, Pair, place

MOST = 100  # children in a row; more are put into ranges

# (section, vmsd, path in the second stream) → the path of the same field in the first.
Renamed = Mapping[tuple[str, str, str], str]


class Item:
    """An Item is a row of the tree: what stands at one place of the first stream, of the second, or of both.

    `run` is set for a range of children that are too many for one row: the pairs, and which of them, from and to.
    `pairs` and `children` are made when the row is opened.
    """

    def __init__(self, number: int, label: str, pair: Pair, run: tuple[Sequence[Pair], int, int] | None = None) -> None:
        self.number, self.label, self.pair = number, label, pair
        self.run = run
        self.pairs: Sequence[Pair] = ()
        self.children: list[Item] | None = None

    @property
    def node(self) -> Node:
        """Returns the node of the first stream, or of the second where only that has one."""
        node = self.pair[0] or self.pair[1]
        assert node is not None
        return node

    @property
    def only(self) -> Literal["a", "b", ""]:
        """Returns which stream alone has it; '' where both do."""
        return "b" if self.pair[0] is None else "a" if self.pair[1] is None else ""

    @property
    def elements(self) -> tuple[Node, int, int] | None:
        """Returns, for a range of elements of an array, the first element, and their numbers, from and to."""
        if self.run is None or not isinstance(self.run[0], _Zipped):
            return None
        pairs, start, stop = self.run
        first = pairs[start][0]
        return (first, start, stop) if first is not None and first.section and first.path else None


class _Zipped(Sequence[Pair]):
    """Two arrays, element by element, each made when it is asked for."""

    def __init__(self, sides: tuple[Sequence[Node], Sequence[Node]]) -> None:
        self.sides = sides

    def __len__(self) -> int:
        return max(map(len, self.sides))

    def __getitem__(self, i: Any) -> Any:
        a, b = (side[i] if i < len(side) else None for side in self.sides)
        return a, b


class Items:
    """Items are all rows that were made so far, by their numbers.

    Parameters
    ----------
    sides : the top nodes of the first stream and of the second, which may have none.
    renamed : the fields that have another name in the second stream.
    """

    def __init__(self, sides: tuple[Sequence[Node], Sequence[Node]], renamed: Renamed) -> None:
        self.renamed = renamed
        self._made: list[Item] = []
        self._top = _pairs(*sides, renamed)
        self.top = self._row(self._top, 0, len(self._top))

    def __getitem__(self, number: int) -> Item:
        return self._made[number]

    def children(self, item: Item) -> list[Item]:
        """Returns the rows under a row. Raises StreamError where the bytes do not fit the description."""
        if item.children is None:
            if item.run is not None:
                item.children = self._row(*item.run)
            else:
                a, b = (node.children() if node else () for node in item.pair)
                item.pairs = _pairs(a, b, self.renamed)
                item.children = self._row(item.pairs, 0, len(item.pairs))
        return item.children

    def reveal(self, side: int, offset: int) -> list[Item]:
        """Returns the rows from the top down to the smallest node of that stream that holds the byte at `offset`."""
        chain: list[Item] = []
        row, pairs = self.top, self._top
        while (at := _place(pairs, side, offset)) is not None:
            first = 0
            while row[0].run is not None:  # ranges
                item = next(item for item in row if item.run and item.run[1] <= at < item.run[2])
                assert item.run is not None
                chain.append(item)
                row, first = self.children(item), item.run[1]
            item = row[at - first]
            chain.append(item)
            row, pairs = self.children(item), item.pairs
        return chain

    def _row(self, pairs: Sequence[Pair], start: int, stop: int) -> list[Item]:
        """Returns rows for some pairs, or for ranges of them where they are too many."""
        if stop - start <= MOST:
            return [self._add(_label(pairs[i]), pairs[i]) for i in range(start, stop)]
        step = MOST
        while (stop - start) > step * MOST:
            step *= MOST
        found = []
        for first in range(start, stop, step):
            last = min(first + step, stop)
            label = f"{_label(pairs[first])} … {_label(pairs[last - 1])}".replace("] … [", " … ")
            found.append(self._add(label, pairs[first], (pairs, first, last)))
        return found

    def _add(self, label: str, pair: Pair, run: tuple[Sequence[Pair], int, int] | None = None) -> Item:
        self._made.append(Item(len(self._made), label, pair, run))
        return self._made[-1]


def _label(pair: Pair) -> str:
    """Returns the name of what stands there; both names where the streams have two."""
    a, b = pair
    if a and b and a.label != b.label:
        return f"{a.label} → {b.label}"
    return a.label if a else b.label if b else ""


def _place(pairs: Sequence[Pair], side: int, offset: int) -> int | None:
    """Returns the number of the pair whose node of that stream holds the byte at `offset`."""
    if isinstance(pairs, _Zipped):
        return place(pairs.sides[side], offset)
    return next((i for i, pair in enumerate(pairs) if (node := pair[side]) and node.holds(offset)), None)


def _pairs(a: Sequence[Node], b: Sequence[Node], renamed: Renamed) -> Sequence[Pair]:
    """Returns the nodes of two streams that belong together: elements by number, all others by name."""
    if isinstance(a, Elements) or isinstance(b, Elements):
        return _Zipped((a, b))
    if not b:
        return [(node, None) for node in a]
    left, right = _keyed(a, {}), _keyed(b, renamed)
    found: list[Pair] = []
    waiting = iter(right.items())
    placed: set[Any] = set()
    for key, node in left.items():
        if key in right:
            for other, lone in waiting:  # nodes that only b has stand where b has them
                if other == key:
                    break
                if other not in left:
                    found.append((None, lone))
                    placed.add(other)
        found.append((node, right.get(key)))
    return found + [(None, node) for key, node in right.items() if key not in left and key not in placed]


def _keyed(nodes: Sequence[Node], renamed: Renamed) -> dict[Any, Node]:
    """Returns a name for each node, by which it is found in the other stream; equal names are numbered."""
    found: dict[Any, Node] = {}
    for node in nodes:
        name = node.note if node.label == "ram block" else node.label
        if node.path and node.section:
            name = renamed.get((node.section.label, node.vmsd, node.path), node.path)
        nth = next(nth for nth in itertools.count() if (node.kind == "subsection", name, nth) not in found)
        found[node.kind == "subsection", name, nth] = node
    return found
