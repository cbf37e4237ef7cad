"""The tree that is shown: one stream's nodes, or two streams' side by side, never more than a hundred in a row."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from vmstate_tools.show.widgets.tree import Elements, Node, place
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.description import Vmsd, element_of

MOST = 100  # children in a row; more are put into ranges

Pair = tuple[Node | None, Node | None]


class Item:
    """A row of the tree: what stands at one place of the first stream, of the second, or of both."""

    def __init__(self, number: int, label: str, pair: Pair, run: tuple[Sequence[Pair], int, int] | None = None) -> None:
        self.number, self.label, self.pair = number, label, pair
        self.run = run  # of a range: of which row of pairs, from where to where
        self.pairs: Sequence[Pair] = ()  # what is in it, and the rows made of that, as soon as it was opened
        self.children: list[Item] | None = None

    @property
    def node(self) -> Node:
        """Of the first stream, where both have it."""
        node = self.pair[0] or self.pair[1]
        assert node is not None
        return node

    @property
    def only(self) -> Literal["a", "b", ""]:
        return "b" if self.pair[0] is None else "a" if self.pair[1] is None else ""


class _Zipped(Sequence[Pair]):
    """Two arrays, element by element, each made when asked for."""

    def __init__(self, sides: tuple[Sequence[Node], Sequence[Node]]) -> None:
        self.sides = sides

    def __len__(self) -> int:
        return max(map(len, self.sides))

    def __getitem__(self, i: Any) -> Any:
        a, b = (side[i] if i < len(side) else None for side in self.sides)
        return a, b


class Items:
    """All rows that were made so far, by their numbers.

    Parameters
    ----------
    sides : the top nodes of the first stream and of the second, which may have none.
    differences : where the two differ.
    """

    def __init__(self, sides: tuple[Sequence[Node], Sequence[Node]], differences: Differences | None) -> None:
        self.differences = differences
        self._made: list[Item] = []
        self._top = _pairs(*sides, differences)
        self.top = self._row(self._top, 0, len(self._top))

    def __getitem__(self, number: int) -> Item:
        return self._made[number]

    def children(self, item: Item) -> list[Item]:
        """The rows under a row. Raises StreamError where the bytes are not what was described."""
        if item.children is None:
            if item.run is not None:
                item.children = self._row(*item.run)
            else:
                a, b = (node.children() if node else () for node in item.pair)
                item.pairs = _pairs(a, b, self.differences)
                item.children = self._row(item.pairs, 0, len(item.pairs))
        return item.children

    def reveal(self, side: int, offset: int) -> list[Item]:
        """The rows from the top down to the smallest thing of that stream that holds the byte at `offset`."""
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
        """Rows for some pairs, or for ranges of them."""
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
    a, b = pair
    if a and b and a.label != b.label:
        return f"{a.label} → {b.label}"
    return a.label if a else b.label if b else ""


def _place(pairs: Sequence[Pair], side: int, offset: int) -> int | None:
    if isinstance(pairs, _Zipped):
        return place(pairs.sides[side], offset)
    return next((i for i, pair in enumerate(pairs) if (node := pair[side]) and node.holds(offset)), None)


def _pairs(a: Sequence[Node], b: Sequence[Node], differences: Differences | None) -> Sequence[Pair]:
    """What belongs together: elements by number, all else by name."""
    if isinstance(a, Elements) or isinstance(b, Elements):
        return _Zipped((a, b))
    if not b:
        return [(node, None) for node in a]
    left, right = _keyed(a, {}), _keyed(b, differences.renamed if differences else {})
    found: list[Pair] = []
    waiting = iter(right.items())
    for key, node in left.items():
        if key in right:
            for other, lone in waiting:  # what only b has, where b has it
                if other == key:
                    break
                if other not in left:
                    found.append((None, lone))
            found.append((node, right[key]))
        else:
            found.append((node, None))
    seen = {id(pair[1]) for pair in found}
    return found + [(None, node) for key, node in right.items() if key not in left and id(node) not in seen]


def _keyed(nodes: Sequence[Node], renamed: dict[tuple[str, str, str], str]) -> dict[Any, Node]:
    found: dict[Any, Node] = {}
    for node in nodes:
        name = node.note if node.label == "ram block" else node.label
        if node.path and node.section:
            name = renamed.get((node.section.label, node.vmsd, node.path), node.path)
        for nth in itertools.count():
            key = (node.kind == "subsection", name, nth)
            if key not in found:
                found[key] = node
                break
    return found


class Differences:
    """What `vt.diff` says of two streams, counted for every row of the tree.

    `frame` is its frame; `renamed` the name in `a` of what has another name in `b`.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.renamed: dict[tuple[str, str, str], str] = {}
        self._sections: Counter[str] = Counter()
        self._vmsds: dict[str, Counter[str]] = {}
        self._paths: dict[tuple[str, str], Counter[str]] = {}  # section and path, or its beginning: rows by vmsd
        for section, instance, vmsd, path, kind in zip(
            *(frame[c].tolist() for c in ("section", "instance_id", "vmsd", "path", "kind")), strict=True
        ):
            label = section if pd.isna(instance) else f"{section}/{instance}"
            self._sections[label] += 1
            self._vmsds.setdefault(label, Counter())[vmsd] += 1
            if kind == "name":
                path, new = path.split(" → ", 1)
                self.renamed[label, vmsd, new] = path
            for end in range(1, len(path) + 1):
                if end == len(path) or path[end] in ".[":
                    self._paths.setdefault((label, path[:end]), Counter())[vmsd] += 1

    def count(self, item: Item) -> int:
        """How many rows of the frame tell of this row of the tree, or of what is under it."""
        node = item.node
        if item.run is not None:
            pairs, start, stop = item.run
            if isinstance(pairs, _Zipped) and pairs[start][0] is not None and node.section and node.path:
                return self._between(node, start, stop)
            return sum(self._of(pair) for pair in itertools.islice(pairs, start, stop))
        return self._of(item.pair)

    def _of(self, pair: Pair) -> int:
        node = pair[0] or pair[1]
        assert node is not None
        if node.section is None:
            return self._sections[node.label] if node.label == "configuration" else 0
        label = node.section.label
        if node.kind == "section":
            return self._sections[label]
        if node.kind == "subsection":
            names = _names(node.shape) if node.shape else {node.vmsd}
            return sum(self._vmsds.get(label, Counter())[name] for name in names)
        path = node.note if node.label == "ram block" else node.path
        found = self._paths.get((label, path))
        if found is None:
            return 0
        if node.shape is None:
            return found[node.vmsd]
        return sum(found[name] for name in {node.vmsd, *_names(node.shape)})

    def _between(self, node: Node, start: int, stop: int) -> int:
        """Rows of the elements `start` to `stop` of an array."""
        assert node.section is not None
        array = node.path.rpartition("[")[0]
        label = node.section.label
        elements = self._elements.get((label, array), ())
        return sum(self._paths[label, f"{array}[{i}]"].total() for i in elements if start <= i < stop)

    @functools.cached_property
    def _elements(self) -> dict[tuple[str, str], list[int]]:
        """The numbers of the elements that differ, by section and array."""
        found: dict[tuple[str, str], list[int]] = {}
        for label, path in self._paths:
            if parts := element_of(path):
                found.setdefault((label, parts[0]), []).append(int(parts[1]))
        return found


def _names(vmsd: Vmsd) -> set[str]:
    """The names of all vmsds inside one."""
    inner = [f.struct for f in vmsd.fields if f.struct] + list(vmsd.subsections)
    return {vmsd.name}.union(*({sub.name} if sub is vmsd else _names(sub) for sub in inner))


def locate(stream: Stream, label: str, vmsd: str | None, path: str) -> int | None:
    """Where a field or vmsd stands in a stream, in bytes of the file; None where it does not. `vmsd` None: any."""
    for section in stream.sections:
        if section.label != label:
            continue
        for leaf in section.leaves:
            if leaf.path == path:
                return leaf.offset
        if section.described and (path or vmsd):
            layout = stream.layout(section)
            for i, element in layout.find(path) or [(i, 0) for i in layout.index.get(path, ())]:
                if vmsd in (None, layout.vmsds[i]):
                    return section.payload_offset + int(layout.offset[i]) + element * int(layout.width[i])
            for i, name in enumerate(layout.paths):  # a struct, or a subsection
                if name.startswith((f"{path}.", f"{path}[")) or (layout.vmsds[i] == vmsd and name.startswith(path)):
                    return section.payload_offset + int(layout.offset[i])
        if section.how == "ram" and path:
            for block in stream.ram.block_list:
                if block.name == path:
                    return block.offset
        if not path and not vmsd:
            return section.offset
    return None
