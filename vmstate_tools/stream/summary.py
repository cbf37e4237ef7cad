"""What one stream holds, as plain data: for `vmstate info`, for notebooks' HTML and for reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vmstate_tools.stream.records import Gap, Repeated, is_command, is_section, record_detail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from vmstate_tools.errors import StreamError
    from vmstate_tools.format.framing import Parsed
    from vmstate_tools.source import Source
    from vmstate_tools.stream.ram import Ram
    from vmstate_tools.stream.records import Run, Section, StreamRecord
    from vmstate_tools.vmstate.description import StreamDescription


class Summarized(Protocol):
    """A Summarized is what a summary asks of a `Stream`."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> Source: ...
    @property
    def records(self) -> Sequence[StreamRecord | Run]: ...
    @property
    def configuration(self) -> Mapping[str, Any]: ...
    @property
    def vmdesc(self) -> StreamDescription | None: ...
    @property
    def machine(self) -> str | None: ...
    @property
    def page_size(self) -> int | None: ...
    @property
    def ram(self) -> Ram: ...
    @property
    def error(self) -> StreamError | None: ...


def summarize(stream: Summarized) -> dict[str, Any]:
    """Returns one stream as a dict that JSON can hold. Sizes and offsets in bytes; reads no guest memory.

    `sections` has an entry per section record, in file order; `how` says what it was read by. Records that are equal
    to the one before them are one entry with `repeated`, their number. `ram` has an entry per RAMBlock with its page
    records by kind. `coverage`: bytes of the file that records and fields explain, and bytes that nothing describes
    (payloads of sections without a description, and what lies outside the stream).
    """
    records = stream.records
    view = stream.source.view
    sections = [_section(record) for record in records if is_section(record)]
    outside = sum(r.size for r in records if isinstance(r, Gap))
    opaque = sum(s["payload_size"] * s.get("repeated", 1) for s in sections if s["how"] == "opaque") + outside
    vmdesc = stream.vmdesc
    return {
        "file": stream.name,
        "container": stream.source.container,
        "size": len(view),
        "start": stream.source.start,
        "machine": stream.machine,
        "page_size": stream.page_size,
        "configuration": {k: v.hex() if isinstance(v, bytes) else v for k, v in stream.configuration.items()},
        "commands": [_command(record) for record in records if is_command(record)],
        "vmdesc_size": vmdesc.size if vmdesc else None,
        "sections": sections,
        "ram": _ram(stream),
        "coverage": {"described": len(view) - opaque, "opaque": opaque, "outside": outside},
        "error": str(stream.error) if stream.error else None,
    }


def _section(record: Section | Repeated[Section]) -> dict[str, Any]:
    section, more = (record.at(0), {"repeated": record.count}) if isinstance(record, Repeated) else (record, {})
    names = ("idstr", "instance_id", "version_id", "offset", "size", "section_id", "part", "payload_offset")
    values = {name: getattr(section, name) for name in (*names, "payload_size", "how")}
    return values | {"footer": section.footer is not None} | more


def _command(record: Parsed | Repeated[Parsed]) -> str:
    if isinstance(record, Repeated):
        return f"{record_detail(record.first)} x {record.count}"
    return record_detail(record)


def _ram(stream: Summarized) -> list[dict[str, Any]]:
    counts = stream.ram.page_counts()
    return [
        {
            "block": block.name,
            "used_length": block.used_length,
            "page_size": stream.ram.page_size,
            "host_page_size": block.page_size,
            "gpa": block.gpa,
            **{kind: int(column[i]) for kind, column in counts.items() if kind != "block"},
        }
        for i, block in enumerate(stream.ram.block_list)
    ]


def by_section(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the sections of a summary, the parts of each (START, PARTs, END) taken together, in file order."""
    found: dict[tuple[int, str, int, int], dict[str, Any]] = {}
    for number, section in enumerate(summary["sections"]):
        # A section may be sent twice as FULL: each has its entry.
        once = number if section["part"] == "full" else -1
        key = (once, section["idstr"], section["instance_id"], section["section_id"])
        entry = found.setdefault(key, section | {"size": 0, "parts": 0})
        count = section.get("repeated", 1)
        entry["size"] += section["size"] * count
        entry["parts"] += count
    return list(found.values())
