"""Sets what a release checks of a stream's ppc CPUs to what it wants to see, as far as that is true.

Up to 2.7.0 a destination compares four words of each CPU with its own (`VMSTATE_*_EQUAL` in target-ppc/machine.c:
`vmstate_ppc_cpu`), and up to 2.0 the PVR too. They say what QEMU makes of a CPU model, not what the guest did with
it: between two releases they differ for one and the same CPU. Setting them to the destination's is no lie about the
guest, unless something in the stream is there because of a flag that the destination's CPU lacks.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vmstate_tools.compat import Destination, Obstacle, check
from vmstate_tools.errors import CatalogError, RewriteError
from vmstate_tools.facts import catalog, flags
from vmstate_tools.rewriting.changes import Change, fields_at
from vmstate_tools.stream.cpu_words import CPU_WORDS

if TYPE_CHECKING:
    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.stream import Stream
    from vmstate_tools.vmstate.description import Vmsd

(_PVR,) = CPU_WORDS["pvr"]
_MSR = "env.msr"
# The subsection that holds what the flag makes the guest have.
_STATE = {"PPC_FLOAT": "cpu/fpu", "PPC_ALTIVEC": "cpu/altivec", "PPC2_VSX": "cpu/vsx", "PPC2_TM": "cpu/tm"}
_BATS_4_TO_7 = range(560, 576)  # SPR numbers


def changes_for(
    stream: Stream,
    release: str,
    *,
    machine: str | None = None,
    cpu: str | None = None,
    accel: str | None = None,
) -> list[Change]:
    """Returns the changes after which a release takes the stream; none where it takes it as it is.

    The CPUs' words and PVR are changed, and windows of a PCI bus that the source left 0. What else the release refuses
    (`vmstate_tools.check`) is the guest's, or has no place in the stream: the error says it, and nothing is changed.

    Parameters
    ----------
    release : of the destination.
    machine : the machine type, where the stream does not say it (before 2.4, and machine types up to 2.3), and the
        destination's options: "pseries-2.7,cap-htm=off".
    cpu : CPU model or family, where the PVR in the stream does not tell it.
    accel : the destination's, "tcg" or "kvm"; needed where that makes a difference (up to 2.0).

    Raises
    ------
    RewriteError : the release does not have the machine type or CPU, its CPU section has other fields, a word would
        have to say that the guest does not have what it has, or it refuses the stream for something else.
    CatalogError : no such release in the catalog.
    """
    given, *options = (machine or "").split(",")
    name = stream.machine or given or _manifest_machine(stream)
    if name is None:
        raise RewriteError(f"{stream.name} does not say its machine type: name it")
    cpus = [s for s in stream.sections if s.idstr == "cpu" and s.described and _number(stream, s, _PVR) is not None]
    if not cpus:
        raise RewriteError(f"{stream.name} has no ppc CPU section: of others no release's checks are known")
    at = catalog.resolve(release)
    try:
        catalog.default_cpu(name, at)
    except CatalogError:
        raise RewriteError(f"QEMU {release} has no machine type {name!r}") from None
    repairs = [_Repair(stream, section, release, name, cpu, accel) for section in cpus]
    changes = [change for repair in repairs for change in repair.changes()]
    destination = Destination(release, ",".join([name, *options]), repairs[0].cpu, accel)
    changed = {(change.section, change.instance_id, _plain(change.path)) for change in changes}
    for obstacle in check(stream, destination).reasons:
        if (obstacle.section, obstacle.instance_id, _plain(obstacle.field or "")) in changed:
            continue
        window = _window(stream, obstacle)
        if window is None:
            raise RewriteError(f"QEMU {release} would refuse the stream whatever the words: {obstacle}")
        changes.append(window)
    return changes


def _window(stream: Stream, obstacle: Obstacle) -> Change | None:
    """Returns the window of a PCI bus that the source did not fill in, as the destination has it.

    2.8 sends the windows for older releases alone, and leaves them 0 where no device has MSIs (hw/ppc/spapr_pci.c:
    `spapr_pci_pre_save` returns before it sets `mig_liobn` and the rest). The machine type says where they are.
    """
    name, value = obstacle.field or "", obstacle.destination_value
    if obstacle.section != "spapr_pci" or obstacle.kind != "not equal" or not isinstance(value, int):
        return None
    section = stream.section("spapr_pci", obstacle.instance_id)
    found = fields_at(stream, section, "mig_" + name.removeprefix("dma_").removesuffix("[0]"), "spapr_pci")
    if not found or found[0].before != 0:
        return None
    if "liobn" in name and not any((s.idstr, s.instance_id) == ("spapr_iommu", value) for s in stream.sections):
        return None  # the guest has no such window
    return found[0].to(value, "the guest's, which the source did not fill in")


def _manifest_machine(stream: Stream) -> str | None:
    """Returns the machine type in the manifest beside the stream."""
    from vmstate_tools.frames.manifest import manifest_rows

    return manifest_rows([stream.name]).get(stream.name, {}).get("machine") or None


def _number(stream: Stream, section: Section, path: str) -> int | None:
    for found in fields_at(stream, section, path, section.idstr):
        return int.from_bytes(found.data, "big")
    return None


class _Repair:
    """A CPU section, and what a release wants to see in it."""

    def __init__(
        self, stream: Stream, section: Section, release: str, machine: str, cpu: str | None, accel: str | None
    ) -> None:
        self.stream = stream
        self.section = section
        self.release = release
        self.machine = machine
        self.cpu = self.model(cpu)
        self.accel = accel
        # The words' fields by their names in QEMU, `mig_` or not.
        self.words: dict[str, Change] = {}
        for prefix in ("env.", "mig_"):
            for word in catalog.WORDS:
                for field in fields_at(stream, section, prefix + word, "cpu"):
                    self.words[word] = field

    def refuse(self, why: str) -> RewriteError:
        return RewriteError(f"section {self.section.label} for QEMU {self.release}: {why}")

    def model(self, cpu: str | None) -> str:
        """Returns the CPU model: what `cpu` names, the one of the stream's PVR, or the family with that PVR."""
        pvr = _number(self.stream, self.section, _PVR) or 0
        models = catalog.model_of_pvr(pvr, self.release)
        families = {model.family for model in models} or {
            row["family"] for row in catalog.table("models") if int(row["pvr"], 16) == pvr
        }
        if cpu is not None:
            family = catalog.family(cpu, self.release)
            if families and family not in families:
                raise self.refuse(f"the guest's CPU is of family {' or '.join(sorted(families))}, not {family}")
            return cpu
        if len(families) == 1:
            with contextlib.suppress(CatalogError):
                return models[0].name if models else catalog.family(next(iter(families)), self.release)
        raise self.refuse(f"it knows no one family of CPUs of PVR 0x{pvr:08x}: name the CPU")

    def changes(self) -> list[Change]:
        rows = catalog.section_fields(self.release, self.machine)
        known = rows[rows["position"] == 0].set_index("vmsd")
        assert self.section.description is not None
        for sub in self.section.description.vmsd.subsections:
            self.check_subsection(sub, known)
        own = rows[(rows["vmsd"] == "cpu") & rows["name"].map(_is_word)]
        expected = own[own["present"].map(lambda there: there is not False)]
        if bool(len(expected)) != bool(self.words):
            has, lacks = ("the stream", "the release") if self.words else ("the release", "the stream")
            raise self.refuse(f"{has} has the words {', '.join(catalog.WORDS)} for {self.machine}, {lacks} has not")
        found = []
        if (expected["treatment"] == "equal").any():
            found += self.set_words()
        found += self.set_pvr(rows)
        return [change for change in found if change.before != change.after]

    def check_subsection(self, sub: Vmsd, known: Any) -> None:
        if sub.name not in known.index:
            raise self.refuse(f"the guest has {sub.name}, which the release does not know")
        row = known.loc[[sub.name]].iloc[0]
        if not row["minimum"] <= sub.version_id <= row["version"]:
            raise self.refuse(
                f"{sub.name} is of version {sub.version_id}, the release takes {row['minimum']} to {row['version']}"
            )

    def set_words(self) -> list[Change]:
        after = self.wanted()
        found = []
        for word, field in self.words.items():
            value = after[word] & (1 << 8 * field.size) - 1  # msr_mask has 32 bits on qemu-system-ppc
            found.append(field.to(value, self.why(word, int(field.before), value)))
        return found

    def wanted(self) -> dict[str, int]:
        """Returns the words that the destination's CPU has."""
        if self.accel not in ("tcg", "kvm", None):
            raise RewriteError(f"unknown accelerator {self.accel!r}: there are 'tcg' and 'kvm'")
        tcg, kvm = (catalog.words(self.cpu, self.release, a, self.machine)._asdict() for a in ("tcg", "kvm"))
        for word, bits in catalog.host_flags(self.release).items():  # the hosts are taken to be alike
            kvm[word] = kvm[word] & ~bits | int(self.words[word].before) & bits
        if self.accel is None and tcg != kvm:
            raise self.refuse(f"its {self.cpu} has other words under TCG than under KVM: name the accelerator")
        return kvm if self.accel == "kvm" else tcg

    def why(self, word: str, before: int, after: int) -> str:
        """Returns what the change means. Raises RewriteError if it would deny what the guest has."""
        reason = f"as {self.cpu} has it in QEMU {self.release}"
        if word == "nb_BATs":
            if after < before and any(_number(self.stream, self.section, f"env.spr[{n}]") for n in _BATS_4_TO_7):
                raise self.refuse(f"the guest uses BATs that a CPU with {after} does not have")
            return reason
        if word == "msr_mask":
            lost = (_number(self.stream, self.section, _MSR) or 0) & before & ~after
            if lost:
                names = ", ".join(flags.decode(word, lost))
                raise self.refuse(f"the guest's MSR has {names} set, which the release's CPU does not")
        gone, new = flags.decode(word, before & ~after), flags.decode(word, after & ~before)
        there = {sub.name for sub in self.section.description.vmsd.subsections} if self.section.description else set()
        for flag in gone:
            if _STATE.get(flag) in there:
                raise self.refuse(f"the guest has {_STATE[flag]}, and the release's {self.cpu} lacks {flag}")
        if new:
            reason += "; adds " + ", ".join(new)
        if gone:
            reason += "; takes away " + ", ".join(gone)
        return reason

    def set_pvr(self, rows: Any) -> list[Change]:
        """Returns the change of the PVR that stands before the registers up to 2.0; later releases send zeros there."""
        first = rows[(rows["vmsd"] == "cpu") & (rows["position"] == 1)]
        if not (len(first) and first["treatment"].iloc[0] == "equal"):
            return []
        pvr = _number(self.stream, self.section, _PVR) or 0
        if not any(model.name.lower() == self.cpu.lower() for model in catalog.model_of_pvr(pvr, self.release)):
            raise self.refuse(f"it compares the PVR, and no CPU model of it has 0x{pvr:08x}")
        (field,) = fields_at(self.stream, self.section, self.stream.layout(self.section).paths[0], "cpu")
        if field.size not in (4, 8):
            raise self.refuse("the stream has no place for the PVR")
        value = pvr if isinstance(field.before, int) else pvr.to_bytes(field.size, "big")
        return [field.to(value, "the PVR of the guest's CPU, which this release compares")]


def _plain(path: str) -> str:
    """Returns the name of a word's field without `env.` and `mig_`."""
    return path.rsplit(".", 1)[-1].removeprefix("mig_")


def _is_word(name: str) -> bool:
    return _plain(name) in catalog.WORDS
