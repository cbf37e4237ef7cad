"""A verdict: loads or refused; and for each obstacle the section, field, both values and the flags between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmstate_tools.errors import printable
from vmstate_tools.facts.commits import short

if TYPE_CHECKING:
    import pandas as pd

# Where a load is refused, in the order in which `qemu_loadvm_state` (migration/savevm.c) gets there.
STAGES = {
    "start": "the destination does not start",
    "A": "header",
    "B": "configuration",
    "C": "RAM blocks",
    "D": "section header",
    "E": "version of a description",
    "F": "field",
    "G": "subsection",
    "H": "post_load",
    "I": "footer",
}

COLUMNS = (
    "stage",
    "section",
    "instance_id",
    "field",
    "kind",
    "stream_value",
    "destination_value",
    "flags_only_in_stream",
    "flags_only_in_destination",
    "commits",
    "remedy",
)


@dataclass(slots=True)
class Obstacle:
    """An Obstacle is one reason to refuse a stream.

    `stage` is a key of `STAGES`; `message` says the reason in a sentence. Values are as in the stream: int, bytes or
    str. `commits` have 40 digits; texts show the first 10 of them.
    """

    stage: str
    kind: str
    message: str
    section: str | None = None
    instance_id: int | None = None
    field: str | None = None
    stream_value: Any = None
    destination_value: Any = None
    flags_only_in_stream: list[str] = dataclasses.field(default_factory=list)
    flags_only_in_destination: list[str] = dataclasses.field(default_factory=list)
    commits: list[str] = dataclasses.field(default_factory=list)
    remedy: str | None = None

    def row(self) -> dict[str, Any]:
        """Returns the obstacle by the names of `COLUMNS`."""
        return {name: getattr(self, name) for name in COLUMNS}

    def __str__(self) -> str:
        where = "" if self.section is None else f"{self.section}/{self.instance_id}: "
        return f"[{self.stage}] {where}{self.message}"


@dataclass(frozen=True, slots=True)
class Caution:
    """A Caution stops no load, but should be known: it becomes one of a verdict's warnings."""

    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A Verdict says what a destination would do with a stream.

    Attributes
    ----------
    stream, destination : the names of both.
    policy : the name of the policy under which the words were judged; None: as the release does.
    reasons : the obstacles in the order in which the load meets them: the first stops it, the next would have then.
    warnings : what does not stop the load but should be known.
    assumptions : what was assumed for lack of knowledge.
    """

    stream: str
    destination: str
    policy: str | None
    reasons: tuple[Obstacle, ...] = ()
    warnings: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def loads(self) -> bool:
        """Tells whether the destination would take the whole stream."""
        return not self.reasons

    @property
    def first(self) -> Obstacle | None:
        """Returns the obstacle that stops the load."""
        return self.reasons[0] if self.reasons else None

    @property
    def obstacles(self) -> pd.DataFrame:
        """Returns the obstacles as a frame: the columns of the JSON, and `message`."""
        import pandas as pd

        rows = [{**o.row(), "message": o.message} for o in self.reasons]
        frame = pd.DataFrame(rows, columns=[*COLUMNS, "message"], dtype=object)  # 64-bit words beside None stay whole
        texts = ["stage", "section", "field", "kind", "remedy", "message"]
        return frame.astype({"instance_id": "Int64", **dict.fromkeys(texts, "str")})

    def to_json(self) -> dict[str, Any]:
        """Returns the verdict as `vmstate check --json` prints it: plain dicts, lists, strings and numbers."""
        obstacles = [{k: _plain(v) for k, v in o.row().items()} for o in self.reasons]
        return {"loads": self.loads, "obstacles": obstacles, "assumptions": list(self.assumptions)}

    def explain(self) -> str:
        """Returns the verdict as plain text."""
        lines = [f"{self.stream} -> {self.destination}: {'loads' if self.loads else 'refused'}"]
        if self.policy is not None:
            lines[0] += f" (policy {self.policy})"
        for i, obstacle in enumerate(self.reasons):
            lines.append(("stopped by " if i == 0 else "then       ") + str(obstacle))
            lines += [f"           {text}" for text in _details(obstacle)]
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"assumed: {text}" for text in self.assumptions]
        return "\n".join(printable(line) for line in lines)

    def __str__(self) -> str:
        return self.explain()


def _details(obstacle: Obstacle) -> Iterable[str]:
    if obstacle.stream_value is not None or obstacle.destination_value is not None:
        yield f"stream {show(obstacle.stream_value)}, destination {show(obstacle.destination_value)}"
    if obstacle.flags_only_in_stream:
        yield f"only in the stream: {' '.join(obstacle.flags_only_in_stream)}"
    if obstacle.flags_only_in_destination:
        yield f"only in the destination: {' '.join(obstacle.flags_only_in_destination)}"
    if obstacle.commits:
        yield f"commits: {' '.join(map(short, obstacle.commits))}"
    if obstacle.remedy:
        yield f"remedy: {obstacle.remedy}"


def show(value: Any) -> str:
    """Returns a value as text: large numbers in hex."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 0xFFFF:
        return f"0x{value:x}"
    if isinstance(value, bytes):
        return value[:16].hex(" ") + ("…" if len(value) > 16 else "")
    return "nothing" if value is None else str(value)


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
