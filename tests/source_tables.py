"""A small set of tables as in data/source, of three releases: made up, in the shapes that QEMU's source has."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vmstate_tools.facts import breaks, device_history, source, tables

COLUMNS = {
    "releases": "release date commit",
    "descriptions": "description name file symbol targets since until version minimum minimum_old unmigratable "
    "early_setup priority needed hooks",
    "fields": "description position name type info vmsd flags size num num_member size_member start version "
    "struct_version test state",
    "subsections": "description position symbol needed",
    "registrations": "file function how device idstr instance version alias vmsd targets since until",
    "types": "name parent abstract file symbol targets vmsd virtio_vmsd cpu_vmsd properties ids class_init "
    "instance_init since until",
    "properties": "file list name info default bit field state targets since until",
    "machine_lists": "machine file targets list from_last since until",
    "machine_members": "machine file targets member value since until",
    "compat": "file list driver property value targets since until",
    "problems": "file what problem since until",
}
A, B, C, M, L = "hw/acme.c", "hw/always.c", "hw/inner.c", "hw/board.c", "hw/core/machine.c"


def description(number, name, symbol, since, until="", version="1", minimum="1", needed="", unmigratable="", file=A):
    return [number, name, file, symbol, "", since, until, version, minimum, "0", unmigratable, "", "", needed, ""]


def field(number, position, name, type_="uint32", size="4", test="", version="0"):
    return [number, position, name, type_, f"vmstate_info_{type_}", "", "", size, "0", "", "", "0", version, "0", test,
            "AcmeState"]  # fmt: skip


def struct(number, vmsd):
    return [number, "1", "one", "struct", "", vmsd, "STRUCT", "", "0", "", "", "0", "0", "0", "", "OuterState"]


def qom(name, parent, file, since, until="", vmsd="", properties="", ids="", abstract=""):
    return [name, parent, abstract, file, f"{name}_info", "", vmsd, "", "", properties, ids, "", "", since, until]


def prop(name, default, since, until="", list_="acme_properties"):
    return [A, list_, name, "qdev_prop_bool", default, "", name, "AcmeState", "", since, until]


ROWS = {
    "releases": [["1.0.0", "2011-12-01", ""], ["1.1.0", "2012-06-01", ""], ["1.2.0", "2012-09-05", ""]],
    "descriptions": [
        # 1.1 adds a word under the same version, and a subsection; 1.2 does it as it should be done
        description("1", "acme", "vmstate_acme", "1.0.0", "1.0.0"),
        description("2", "acme", "vmstate_acme", "1.1.0", "1.1.0"),
        description("3", "acme", "vmstate_acme", "1.2.0", version="2"),
        description("4", "acme/extra", "vmstate_extra", "1.1.0", needed="extra_needed"),
        description("5", "quiet", "vmstate_quiet", "1.0.0", "1.0.0"),
        description("6", "quiet", "vmstate_quiet", "1.1.0"),
        description("7", "stuck", "vmstate_stuck", "1.0.0", "1.0.0", unmigratable="1"),
        description("8", "stuck", "vmstate_stuck", "1.1.0", unmigratable="1"),
        description("9", "always", "vmstate_always", "1.0.0", "1.0.0", file=B),
        description("10", "always", "vmstate_renamed", "1.1.0", file=B),
        description("11", "always/sub", "vmstate_sub", "1.1.0", file=B),
        *(
            description(str(12 + 4 * lax + 2 * whole + new), name + "-lax" * lax, f"vmstate_{name}_{lax}",
                        "1.1.0" if new else "1.0.0", "" if new else "1.0.0", str(1 + new * whole),
                        str(1 + new * whole * (not lax)), file=C)
            for lax in (0, 1) for whole, name in enumerate(("inner", "outer")) for new in (0, 1)
        ),
    ],
    "fields": [
        field("1", "1", "ctrl"),
        field("2", "1", "ctrl"), field("2", "2", "late"),
        field("3", "1", "ctrl"), field("3", "2", "late"), field("3", "3", "proper", version="2"),
        field("4", "1", "more"),
        field("5", "1", "a"),
        field("6", "1", "a"), field("6", "2", "b", test="is_new"),
        field("7", "1", "a"), field("8", "1", "a"), field("8", "2", "b"),
        *(field(str(12 + 4 * lax + new), str(at), f"f{at}") for lax in (0, 1) for new in (0, 1)
          for at in range(1, 2 + new)),
        *(struct(str(14 + 4 * lax + new), f"vmstate_inner_{lax}") for lax in (0, 1) for new in (0, 1)),
        field("9", "1", "a"), field("10", "1", "a"), field("11", "1", "x"),
    ],
    "subsections": [["3", "1", "vmstate_extra", ""], ["10", "1", "vmstate_sub", ""]],
    "registrations": [
        [A, "acme_init", "vmstate_register", "", "", "0", "", "", "vmstate_quiet", "", "1.0.0", "1.1.0"],
        [A, "acme_init", "vmstate_register", "", "", "-1", "", "", "vmstate_quiet", "", "1.2.0", ""],
    ],
    "types": [
        qom("acme", "acme-base", A, "1.0.0", "1.1.0", "vmstate_acme", "acme_properties", "device_id=0x1 oui=0x1"),
        qom("acme", "acme-base", A, "1.2.0", "", "vmstate_acme", "acme_properties", "device_id=0x2 oui=0x2"),
        qom("acme-base", "device", A, "1.0.0", properties="base_properties", abstract="1"),
        qom("device", "object", "hw/core/qdev.c", "1.0.0", abstract="1"),
        qom("odd", "device", A, "1.0.0", properties="odd_properties"),
        qom("late", "device", A, "1.1.0", "1.1.0"),
        qom("board-1.0-machine", "board-machine", M, "1.0.0"),
        qom("board-machine", "machine", M, "1.0.0", abstract="1"),
    ],
    "properties": [
        prop("fast", "1", "1.0.0", "1.0.0"), prop("fast", "0", "1.1.0"),
        prop("late-word", "1", "1.1.0"),
        prop("slot", "7", "1.0.0", list_="base_properties"),
        prop("strange", "", "1.0.0", list_="odd_properties"),
    ],
    "machine_lists": [
        ["board-1.0", M, "", "", "0", "1.0.0", "1.0.0"],
        ["board-1.0", M, "", "hw_compat_1_0", "2", "1.1.0", ""],
        ["board-1.0", M, "", "board_compat_1_0", "1", "1.1.0", ""],
        ["board", M, "", "", "0", "1.0.0", ""],
        ["board-1.1", M, "", "", "0", "1.1.0", ""],
    ],
    "machine_members": [["board-1.1", M, "", "alias", '"board-newest"', "1.1.0", ""],
                        ["board-1.0", M, "", "max_cpus", "4", "1.2.0", ""]],
    "compat": [
        [L, "hw_compat_1_0", "acme", "late-word", "off", "", "1.1.0", ""],
        [L, "hw_compat_1_0", "acme-base", "slot", "5", "", "1.1.0", ""],
        [M, "board_compat_1_0", "acme-base", "slot", "6", "", "1.1.0", ""],
        [L, "hw_compat_1_0", "odd", "strange", "on", "", "1.2.0", ""],
    ],
    "problems": [[A, "odd_properties", "member is no constant", "1.0.0", ""]],
}  # fmt: skip


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in COLUMNS.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns.split())
            writer.writerows(ROWS[name])


def forget() -> None:
    of_devices = (device_history.forms_of, device_history._read, device_history._of_symbol, breaks._devices)
    of_tables = (tables.rows, tables.text, source.releases, source._places, source.place, source.by)
    for cached in (*of_devices, *of_tables):
        cached.cache_clear()


@pytest.fixture
def made_tables(tmp_path, monkeypatch):
    """Puts the made tables in the place of data/source."""
    write(tmp_path / "source")
    monkeypatch.setattr(tables, "data_path", lambda *parts: tmp_path.joinpath(*parts))
    forget()
    yield tmp_path / "source"
    monkeypatch.undo()
    forget()
