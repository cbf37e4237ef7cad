"""How many differences between two streams lie in each row of the explorer's tree."""

from __future__ import annotations

import functools
from collections import Counter

import pandas as pd

from vmstate_tools.show.widgets.tree import Node, Pair
from vmstate_tools.vmstate.description import Vmsd, element_of


class Differences:
    """Differences are the frame of `vt.diff`, counted for every node of the tree.

    `renamed` maps (section, vmsd, path in `b`) to the path in `a`, for fields that have two names.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.renamed: dict[tuple[str, str, str], str] = {}
        self._sections: Counter[str] = Counter()
        self._vmsds: dict[str, Counter[str]] = {}
        # (section, path or the beginning of a path) → vmsd → number of rows of the frame
        self._paths: dict[tuple[str, str], Counter[str]] = {}
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

    def of_pair(self, pair: Pair) -> int:
        """Returns how many rows of the frame are about these nodes, or about what is inside them."""
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

    def of_elements(self, first: Node, start: int, stop: int) -> int:
        """Returns how many rows are about the elements `start` to `stop` of an array; `first` is one of them."""
        assert first.section is not None
        array = first.path.rpartition("[")[0]
        label = first.section.label
        elements = self._elements.get((label, array), ())
        return sum(self._paths[label, f"{array}[{i}]"].total() for i in elements if start <= i < stop)

    @functools.cached_property
    def _elements(self) -> dict[tuple[str, str], list[int]]:
        """Returns (section, array) → the numbers of the elements that differ."""
        found: dict[tuple[str, str], list[int]] = {}
        for label, path in self._paths:
            if parts := element_of(path):
                found.setdefault((label, parts[0]), []).append(int(parts[1]))
        return found


def _names(vmsd: Vmsd) -> set[str]:
    """Returns the names of a vmsd and of all vmsds inside it."""
    inner = [f.struct for f in vmsd.fields if f.struct] + list(vmsd.subsections)
    return {vmsd.name}.union(*({sub.name} if sub is vmsd else _names(sub) for sub in inner))
