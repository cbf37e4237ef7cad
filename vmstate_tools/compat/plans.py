"""Plans: how a destination reads a section of a stream. A plan is made once for sections that are described alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from vmstate_tools.compat import sanity_words, source_descriptions
from vmstate_tools.compat.expectation import Entry, Values
from vmstate_tools.compat.fit import Fit
from vmstate_tools.compat.from_stream import asked_for, values_of
from vmstate_tools.compat.knowledge import Knowledge
from vmstate_tools.compat.loader import Loader
from vmstate_tools.compat.policy import Policy
from vmstate_tools.compat.reader import NUMBERS, Compiler, Program, compared
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.facts.cpu_section import WORD_OF_FIELD
from vmstate_tools.release import Release
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.description import Description, FieldDescription, Vmsd

# Plans that an entry remembers; then it forgets all of them.
_MOST_PLANS = 256

# Fields of a description whose plan is remembered. 20,481 is the most seen; a stranger's stream may have many more.
_MOST_FIELDS = 1 << 16


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """A Plan is how a section is read, where that differs from what the stream has, and what had to be assumed."""

    program: Program
    differences: tuple[Obstacle, ...] = ()
    assumptions: tuple[str, ...] = ()


class Hashed:
    """A description whose hash is worked out once; equal to one that says the same."""

    __slots__ = ("_hash", "vmsd")

    def __init__(self, vmsd: Vmsd) -> None:
        self.vmsd = vmsd
        self._hash = hash(vmsd)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hashed):
            return NotImplemented
        return self.vmsd is other.vmsd or (self._hash == other._hash and self.vmsd == other.vmsd)


def hashed(description: Description) -> Hashed:
    """Returns a description's tree; descriptions that have the same share it."""
    found: Hashed | None = description.cache.get("hashed")
    if found is None:
        found = description.cache["hashed"] = Hashed(description.vmsd)
    return found


@dataclass(frozen=True, eq=False, slots=True)
class Planner:
    """A Planner makes the plans of a destination; `policy` treats the words of a ppc CPU, None: as its release does."""

    knowledge: Knowledge
    loader: Loader
    policy: Policy | None

    def plan(self, stream: Stream, section: Section, entry: Entry) -> Plan:
        """Returns how the destination reads a section; `entry`, which takes it, remembers the plan."""
        policy = self.policy if entry.idstr == "cpu" else None
        key = (None if section.description is None else hashed(section.description), policy)
        made: Plan | None = entry.plans.get(key)
        if made is None:
            made = self._made(stream, section, entry)
            if section.description is None or section.description.vmsd.unrolled <= _MOST_FIELDS:
                if len(entry.plans) >= _MOST_PLANS:
                    entry.plans.clear()
                entry.plans[key] = made
        return made

    def _made(self, stream: Stream, section: Section, entry: Entry) -> Plan:
        if entry.vmsd is not None:
            return self._fitted(stream, section, entry, self.knowledge.with_minimum(entry.vmsd))
        assert section.description is not None, "no plan is asked for where nothing describes a section"
        made = self._fitted(stream, section, entry, self.knowledge.with_minimum(section.description.vmsd))
        text = f"{entry.idstr}: its description is not known; taken to be the stream's"
        return replace(made, assumptions=(*made.assumptions, text))

    def _fitted(self, stream: Stream, section: Section, entry: Entry, own: Vmsd) -> Plan:
        other = section.description
        compiler = self._compiler(entry)
        if other is None:
            compiler = replace(compiler, count_of=_count_by_value(entry.values))
            return Plan(compiler(source_descriptions.as_read(own)))
        if other.vmsd is own:
            return Plan(compiler(source_descriptions.as_read(own)))
        common = self.knowledge.dump is None and (self.policy is None or entry.idstr != "cpu")
        if common and other.vmsd.unrolled <= _MOST_FIELDS:
            shared = _shared(Hashed(own), hashed(other), self.knowledge.release, self.knowledge.derived)
            if shared is not None:
                return shared

        @functools.cache
        def sent() -> Values:
            return values_of(stream, section, other)

        fit = Fit(self.knowledge, lambda *place: entry.values.get(place), lambda *place: sent().get(place))
        program = compiler(source_descriptions.as_read(fit.vmsd(own, other.vmsd)))
        return Plan(program, tuple(fit.differences), tuple(fit.assumptions))

    def _compiler(self, entry: Entry) -> Compiler:
        compiler = Compiler(known=self.knowledge.subsections, wanted=asked_for)
        policy, loader = self.policy, self.loader
        if policy is None or entry.idstr != "cpu":
            return compiler

        def size_of(vmsd: str, f: FieldDescription) -> int:
            if not sanity_words.is_word(vmsd, f):
                return f.size
            return policy.size_of(f, sanity_words.context(WORD_OF_FIELD[f.name], f.label, loader, entry))

        def checked(vmsd: str, f: FieldDescription) -> bool:
            return sanity_words.is_word(vmsd, f) or compared(vmsd, f)

        return replace(compiler, checked=checked, size_of=size_of)


@functools.lru_cache(maxsize=1 << 13)
def _shared(own: Hashed, other: Hashed, release: Release | None, derived: bool) -> Plan | None:
    """Returns the plan for all destinations of a release; None where a value or the machine type has a say in it."""
    knowledge = Knowledge(release, None, derived=derived)
    fit = Fit(knowledge, _unknown, _unknown)
    fitted = fit.vmsd(own.vmsd, other.vmsd)
    if fit.specific:
        return None
    program = Compiler(known=knowledge.subsections, wanted=asked_for)(source_descriptions.as_read(fitted))
    return Plan(program, tuple(fit.differences), tuple(fit.assumptions))


def _unknown(vmsd: str, path: str) -> None:
    return None


def _count_by_value(values: Values) -> Callable[[Vmsd, FieldDescription], str | None]:
    """Returns a guess which number gives an array's length: the nearest one before it that had that value."""

    def count_of(vmsd: Vmsd, f: FieldDescription) -> str | None:
        length = f.count if f.count is not None else f.size if f.type == "buffer" else 0
        found = None
        for n in vmsd.fields:
            if n is f or length < 2:
                break
            if n.type in NUMBERS and n.count is None and values.get((vmsd.name, n.label)) == length:
                found = n.name
        return found

    return count_of
