"""The verdict: load a stream the way the destination's `qemu_loadvm_state` would (migration/savevm.c)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vmstate_tools.compat import compose, rules
from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.compat.policy import Policy, named
from vmstate_tools.compat.program import LostError, Reader
from vmstate_tools.compat.verdict import Obstacle, Verdict
from vmstate_tools.format import framing as wire
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate.description import FieldDescription

if TYPE_CHECKING:
    from vmstate_tools.compat.destination import Destination


_heads: WeakKeyDictionary[Stream, list[Section | wire.Parsed]] = WeakKeyDictionary()


def heads(stream: Stream) -> list[Section | wire.Parsed]:
    """Sections and commands as the loader meets them; of those sections sent in parts, the first."""
    if stream not in _heads:
        sections = (s for s in stream.sections if s.part in ("start", "full"))
        _heads[stream] = sorted([*sections, *stream.commands], key=lambda record: record.offset)
    return _heads[stream]


@dataclass
class Load:
    """One load. `section` is set where an obstacle belongs to one."""

    stream: Stream
    destination: Destination
    policy: Policy | None = None
    obstacles: list[Obstacle] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    ended: bool = False  # has it read what it takes for the end of the stream

    def run(self) -> Verdict:
        expectation = self.destination.expectation
        if self.destination.absent is not None:
            self.obstacles.append(self.destination.absent)
        self.configuration(expectation)
        for record in heads(self.stream):
            if self.ended:
                break
            if isinstance(record, Section):
                self.section(record, expectation)
            else:
                self.obstacles += rules.command(record, self.destination)
        assumptions = dict.fromkeys([*self.destination.assumptions, *self.assumptions])
        return Verdict(
            self.stream.name,
            self.destination.name,
            self.policy.name if self.policy else None,
            tuple(self.obstacles),
            tuple(dict.fromkeys(self.warnings)),
            tuple(assumptions),
        )

    def refuse(self, stage: str, kind: str, message: str, section: Section | None = None, **more: Any) -> None:
        if section is not None:
            more |= {"section": section.idstr, "instance_id": section.instance_id}
        self.obstacles.append(Obstacle(stage, kind, message, **more))

    # -- A, B: header and configuration -----------------------------------------------------------------------

    def configuration(self, expectation: Expectation) -> None:
        """`qemu_loadvm_state_header`, `configuration_post_load`."""
        name, local = self.stream.machine, expectation.configuration
        if (local is None and name is None) or (not expectation.framing_known and None in (local, name)):
            return None
        if local is None:
            message = "the stream has a configuration section, the destination expects none"
            remedy = "destination: -global migration.send-configuration=on (since 2.11)"
            return self.refuse("A", "configuration unexpected", message, stream_value=name, remedy=remedy)
        if name is None:
            message = "the destination expects a configuration section, the stream has none"
            remedy = "destination: -global migration.send-configuration=off (since 2.11)"
            return self.refuse("A", "configuration missing", message, destination_value=local, remedy=remedy)
        # strncmp over the length that the stream gives: a prefix passes.
        if local and not local.startswith(name):
            message = f"the stream is of machine type {name}, the destination's is {local}"
            both: dict[str, Any] = {"field": "name", "stream_value": name, "destination_value": local}
            release = self.destination.version
            gone = compose.absent(release, name, None, None) if release is not None else None
            cure = f"destination: -machine {name}" if gone is None else gone.remedy
            self.refuse("B", "machine type", message, **both, remedy=cure)
        self.obstacles += rules.configuration(self.stream, self.destination)
        return None

    # -- D to I: sections -------------------------------------------------------------------------------------

    def section(self, section: Section, expectation: Expectation) -> None:
        entry = self.destination.registered(section)
        if entry is None:
            others = [e.instance_id for e in expectation.entries.values() if e.idstr == section.idstr]
            if self.destination.unmigratable(section):
                message = (
                    f"this release does not migrate {section.description.vmsd.name}" if section.description else ""
                )
                self.refuse("D", "not migratable", message, section)
                return
            message = f"the destination has no section {section.label}" + (
                f", only instances {others}" if others else ""
            )
            remedy = "give the destination the same devices" if section.idstr not in rules.INTERNAL else None
            self.refuse("D", "unknown section", message, section, stream_value=section.label, remedy=remedy)
            return
        if section.version_id > entry.version_id:
            message = (
                f"{section.idstr} has version {section.version_id}, the destination takes at most {entry.version_id}"
            )
            both = {"stream_value": section.version_id, "destination_value": entry.version_id}
            self.refuse("D", "version too new", message, section, **both)
            return
        if entry.iterable:
            found = rules.iterable(section, entry, self.stream, self.destination)
        elif entry.old_style or (entry.vmsd is None and section.description is None):
            found = []
            if not entry.old_style:
                self.assumptions.append(f"{section.idstr}: nothing describes it; taken as readable")
        else:
            found = self.payload(section, entry)
        for obstacle in found:
            obstacle.section, obstacle.instance_id = section.idstr, section.instance_id
        self.obstacles += found
        if not found:
            self.footer(section, section.payload_end, expectation)

    def payload(self, section: Section, entry: Entry) -> list[Obstacle]:
        """Read one section's payload as the destination would; returns what it met."""
        plan = self.destination.plan(self.stream, section, entry, self.policy)
        self.assumptions += plan.assumptions
        view = self.stream.view
        destination = self.destination

        def check(vmsd: str, path: str, f: FieldDescription, value: Any) -> Obstacle | None:
            own = entry.values.get((vmsd, path))
            if vmsd != "cpu" or f.name not in rules.SANITY:
                return rules.compare(path, f, value, own)
            word = rules.SANITY[f.name]
            if self.policy is None:
                found = rules.compare(path, f, value, own)
            else:
                own = destination.word(word, entry) if not f.equal else own
                where = rules.context(word, path, destination, entry, r)
                value = self.policy.on_the_way_out(word, self.policy.has(word, value, where.stream_pvr, where))
                own = None if own is None else self.policy.has(word, own, where.pvr, where)
                found = self.policy.check(f, value, own, where)
            if found is None:
                return None
            return rules.name_flags(
                found, word, destination, rules.context(word, path, destination, entry, r).stream_pvr
            )

        r = Reader(view, section.payload_offset, len(view), check)
        lost = False
        try:
            plan.program.load(r, section.version_id)
        except LostError:
            lost = True
        if not lost and r.position < section.payload_end and not r.obstacles and self.ends_at(r.position):
            text = f"{section.label}: {r.position - section.payload_offset} of {section.payload_size} bytes are read"
            self.warnings.append(f"{text}; the next is 0, taken for the stream's end: what follows is never loaded")
            self.ended = True
        elif (not lost and r.position != section.payload_end) or (
            lost and not any(o.stage in "EG" for o in r.obstacles)
        ):
            r.obstacles.append(self.misfit(section, entry, r, plan.differences))
        elif not lost:
            r.obstacles += rules.post_load(r, section, entry, self)
        return r.obstacles

    def ends_at(self, position: int) -> bool:
        """Where no footer is expected a byte of 0 in the place of the next section ends the load (QEMU_VM_EOF)."""
        expectation = self.destination.expectation
        return expectation.framing_known and not expectation.footers and self.stream.view[position] == 0

    def misfit(self, section: Section, entry: Entry, r: Reader, differences: Iterable[Obstacle]) -> Obstacle:
        """The destination reads another number of bytes than the stream has there."""
        read, there = r.position - section.payload_offset, section.payload_size
        footers = self.destination.expectation.footers
        stage = "I" if footers else "D"
        noticed = "the footer is missing where it looks for it" if footers else "the next section is not where it looks"
        for first in differences:  # those of the plan, which other streams share
            return replace(
                first, stage=stage, message=f"{first.message}: it reads {read} bytes, the stream has {there}; {noticed}"
            )
        message = f"the destination reads {read} bytes, the stream has {there}: {noticed}"
        return Obstacle(stage, "length", message, stream_value=there, destination_value=read)

    def footer(self, section: Section, end: int, expectation: Expectation) -> None:
        """`check_section_footer`."""
        if not expectation.framing_known:
            return
        if expectation.footers and section.footer is None:
            message = "the destination expects a footer, the stream has none"
            remedy = "destination: -global migration.send-section-footer=off (since 2.11)"
            self.refuse("I", "footer missing", message, section, remedy=remedy)
        elif not expectation.footers and section.footer is not None:
            message = "the stream has a footer, the destination expects the next section"
            remedy = "destination: -global migration.send-section-footer=on (since 2.11)"
            self.refuse("D", "footer unexpected", message, section, remedy=remedy)


def check(
    stream: Stream | str | os.PathLike[str], destination: Destination, policy: Policy | str | None = None
) -> Verdict:
    """Would this destination load this stream?

    Parameters
    ----------
    stream : an opened stream, or where it is.
    destination : where what it was not told is taken from the stream, the verdict's `assumptions` say so.
    policy : how the CPU's sanity-check words are treated instead of what the release does: a `Policy`, or its name.

    Raises StreamError where the stream cannot be read, KeyError for an unknown policy.
    """
    if not isinstance(stream, Stream):
        with open_stream(stream) as opened:
            return check(opened, destination, policy)
    return Load(stream, destination.for_stream(stream), named(policy)).run()
