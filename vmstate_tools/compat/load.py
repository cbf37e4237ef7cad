"""The verdict: load a stream the way the destination's `qemu_loadvm_state` would (migration/savevm.c)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from vmstate_tools.compat import rules, sanity_words, startup
from vmstate_tools.compat.destination import Destination
from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.compat.plans import Planner
from vmstate_tools.compat.policy import Policy, named
from vmstate_tools.compat.post_load import post_load
from vmstate_tools.compat.reader import LostError, Reader
from vmstate_tools.compat.verdict import Caution, Obstacle, Verdict
from vmstate_tools.format import framing as wire
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate.description import FieldDescription


def arriving(stream: Stream) -> list[Section | wire.Parsed]:
    """Returns sections and commands as the loader meets them; of a section sent in parts, the first part."""
    sections = (s for s in stream.distinct_sections if s.part in ("start", "full"))
    return sorted([*sections, *stream.commands.distinct], key=lambda record: record.offset)


@dataclass
class Load:
    """A Load takes one stream into one destination; `run` gives the verdict.

    `ended` is set when the loader has read what it takes for the end of the stream.
    """

    stream: Stream
    destination: Destination
    policy: Policy | None = None
    obstacles: list[Obstacle] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    ended: bool = False

    def __post_init__(self) -> None:
        self.loader = self.destination.loader
        self.planner = Planner(self.destination.knowledge, self.loader, self.policy)

    @property
    def expectation(self) -> Expectation:
        """Returns what the destination expects."""
        return self.loader.expectation

    def run(self) -> Verdict:
        """Loads the stream to its end, past each obstacle where that is possible."""
        if self.destination.absent is not None:
            self.obstacles.append(self.destination.absent)
        self.configuration()
        for record in arriving(self.stream):
            if self.ended:
                break
            if isinstance(record, Section):
                self.section(record)
            else:
                self.obstacles += rules.command(record, self.loader)
        assumptions = dict.fromkeys([*self.destination.derived.assumptions, *self.assumptions])
        return Verdict(
            self.stream.name,
            self.destination.name,
            self.policy.name if self.policy else None,
            tuple(self.obstacles),
            tuple(dict.fromkeys(self.warnings)),
            tuple(assumptions),
        )

    def refuse(self, stage: str, kind: str, message: str, section: Section | None = None, **more: Any) -> None:
        """Adds an obstacle, which belongs to a section where one is given."""
        if section is not None:
            more |= {"section": section.idstr, "instance_id": section.instance_id}
        self.obstacles.append(Obstacle(stage, kind, message, **more))

    # -- A, B: header and configuration -----------------------------------------------------------------------

    def configuration(self) -> None:
        """Reads the configuration section: `qemu_loadvm_state_header`, `configuration_post_load`."""
        name, local = self.stream.machine, self.expectation.configuration
        if (local is None and name is None) or (not self.expectation.framing_known and None in (local, name)):
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
            release = self.loader.release
            gone = startup.obstacle(release, name, None) if release is not None else None
            cure = f"destination: -machine {name}" if gone is None else gone.remedy
            self.refuse("B", "machine type", message, **both, remedy=cure)
        self.obstacles += rules.configuration(self.stream, self.loader)
        return None

    # -- D to I: sections -------------------------------------------------------------------------------------

    def section(self, section: Section) -> None:
        """Reads one section: `qemu_loadvm_section_start_full`."""
        entry, assumption = self.destination.registry.find(section)
        if assumption is not None:
            self.assumptions.append(assumption)
        if entry is None:
            self.refuse_unknown(section)
        elif section.version_id > entry.version_id:
            message = (
                f"{section.idstr} has version {section.version_id}, the destination takes at most {entry.version_id}"
            )
            both = {"stream_value": section.version_id, "destination_value": entry.version_id}
            self.refuse("D", "version too new", message, section, **both)
        else:
            found = self.contents(section, entry)
            for obstacle in found:
                obstacle.section, obstacle.instance_id = section.idstr, section.instance_id
            self.obstacles += found
            if not found:
                self.footer(section)

    def refuse_unknown(self, section: Section) -> None:
        """Refuses a section that nothing is registered for."""
        registry = self.destination.registry
        if section.description is not None and registry.refuses_to_migrate(section):
            message = f"this release does not migrate {section.description.vmsd.name}"
            self.refuse("D", "not migratable", message, section)
            return
        others = registry.instances(section.idstr)
        message = f"the destination has no section {section.label}" + (f", only instances {others}" if others else "")
        remedy = "give the destination the same devices" if section.idstr not in rules.INTERNAL else None
        self.refuse("D", "unknown section", message, section, stream_value=section.label, remedy=remedy)

    def contents(self, section: Section, entry: Entry) -> list[Obstacle]:
        """Returns the obstacles in what a section holds."""
        if entry.iterable:
            return rules.iterable(section, entry, self.stream, self.loader)
        if entry.old_style:
            return []
        if entry.vmsd is None and section.description is None:
            self.assumptions.append(f"{section.idstr}: nothing describes it; taken as readable")
            return []
        return self.payload(section, entry)

    def payload(self, section: Section, entry: Entry) -> list[Obstacle]:
        """Reads a section's payload as the destination would; returns the obstacles in it."""
        plan = self.planner.plan(self.stream, section, entry)
        self.assumptions += plan.assumptions

        def check(vmsd: str, path: str, f: FieldDescription, value: Any) -> Obstacle | None:
            if sanity_words.is_word(vmsd, f):
                return sanity_words.judge(path, f, value, entry, self.loader, self.policy, read)
            return rules.compare(path, f, value, entry.values.get((vmsd, path)))

        read = Reader(self.stream.view, section.payload_offset, len(self.stream.view), check)
        lost = False
        try:
            plan.program.load(read, section.version_id)
        except LostError:
            lost = True
        if not lost and read.position < section.payload_end and not read.obstacles and self.ends_at(read.position):
            done = read.position - section.payload_offset
            text = f"{section.label}: {done} of {section.payload_size} bytes are read"
            self.warnings.append(f"{text}; the next is 0, taken for the stream's end: what follows is never loaded")
            self.ended = True
        elif (not lost and read.position != section.payload_end) or (
            lost and not any(o.stage in "EG" for o in read.obstacles)
        ):
            read.obstacles.append(self.misfit(section, read, plan.differences))
        elif not lost:
            self.run_hooks(read, section, entry)
        return read.obstacles

    def run_hooks(self, read: Reader, section: Section, entry: Entry) -> None:
        """Runs the post_load hooks of a section that has been read."""
        for found in post_load(read, section, entry, self.loader):
            if isinstance(found, Caution):
                self.warnings.append(found.message)
            else:
                read.obstacles.append(found)

    def ends_at(self, position: int) -> bool:
        """Tells whether the loader stops here: where no footer is expected, a byte of 0 is QEMU_VM_EOF to it."""
        known = self.expectation.framing_known and not self.expectation.footers
        return known and self.stream.view[position] == 0

    def misfit(self, section: Section, read: Reader, differences: Iterable[Obstacle]) -> Obstacle:
        """Returns the obstacle that the destination reads another number of bytes than the stream has."""
        size, there = read.position - section.payload_offset, section.payload_size
        stage, noticed = "D", "the next section is not where it looks"
        if self.expectation.footers:
            stage, noticed = "I", "the footer is missing where it looks for it"
        for first in differences:  # those of the plan, which other streams share
            text = f"{first.message}: it reads {size} bytes, the stream has {there}; {noticed}"
            return replace(first, stage=stage, message=text)
        message = f"the destination reads {size} bytes, the stream has {there}: {noticed}"
        return Obstacle(stage, "length", message, stream_value=there, destination_value=size)

    def footer(self, section: Section) -> None:
        """Looks for the footer behind a section: `check_section_footer`."""
        if not self.expectation.framing_known:
            return
        if self.expectation.footers and section.footer is None:
            message = "the destination expects a footer, the stream has none"
            remedy = "destination: -global migration.send-section-footer=off (since 2.11)"
            self.refuse("I", "footer missing", message, section, remedy=remedy)
        elif not self.expectation.footers and section.footer is not None:
            message = "the stream has a footer, the destination expects the next section"
            remedy = "destination: -global migration.send-section-footer=on (since 2.11)"
            self.refuse("D", "footer unexpected", message, section, remedy=remedy)


def check(
    stream: Stream | str | os.PathLike[str], destination: Destination, policy: Policy | str | None = None
) -> Verdict:
    """Returns whether this destination would load this stream, and if not, why.

    Parameters
    ----------
    stream : an opened stream, or where it is.
    destination : where it lacks machine type or CPU the stream's are taken; the verdict's `assumptions` say so.
    policy : how the CPU's sanity-check words are treated instead of what the release does: a `Policy`, or its name.

    Raises
    ------
    StreamError : the stream cannot be read.
    KeyError : there is no policy of that name.
    """
    if not isinstance(stream, Stream):
        with open_stream(stream) as opened:
            return check(opened, destination, policy)
    return Load(stream, destination.for_stream(stream), named(policy)).run()
