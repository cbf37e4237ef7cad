"""Policies: how a destination could treat the CPU's sanity-check words, and what senders could do for them.

A policy is a small object. `check` says what the destination makes of a word, `size_of` how many bytes it reads for
it, `on_the_way_out` what the sender puts there:

    class OnlyMsr(Policy):
        name = "only-msr"
        def check(self, field, stream_value, destination_value, context):
            if context.word == "msr_mask":
                return super().check(field, stream_value, destination_value, context)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmstate_tools import catalog
from vmstate_tools.compat import facts
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.description import FieldDescription

if TYPE_CHECKING:
    from vmstate_tools.compat.destination import Destination


@dataclass(frozen=True, slots=True)
class Context:
    """Where a word is checked.

    `word` is one of msr_mask, insns_flags, insns_flags2, nb_BATs; `path` its field's. `target_ulong` is 4 or 8 bytes.
    `stream_pvr` is the PVR that the stream has (None while sizes are asked for).
    """

    word: str
    path: str
    destination: Destination
    target_ulong: int = 8
    stream_pvr: int | None = None

    @property
    def machine(self) -> str | None:
        return self.destination.machine

    @property
    def kvm(self) -> bool:
        return self.destination.accel == "kvm"


class Policy:
    """Every word must equal the destination's, as QEMU 1.6 to 2.7.0 had it (commit a90db1584a)."""

    name = "equal"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        """The obstacle that a word is, None where it is none. `destination_value` is None where not known."""
        if destination_value is None or stream_value == destination_value:
            return None
        message = f"{context.path} must equal the destination's"
        return Obstacle("F", "not equal", message, None, None, context.path, stream_value, destination_value)

    def size_of(self, field: FieldDescription, context: Context) -> int:
        """Bytes that the destination reads for a word."""
        return field.size

    def on_the_way_out(self, word: str, value: int) -> int:
        """What a sender that follows this policy sends for a word."""
        return value


class Equal(Policy):
    pass


class Ignore(Policy):
    """Read and forget, as 2.7.1 and 2.8 shipped it (commit 16a2497bd4)."""

    name = "ignore"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        return None


class Unused(Ignore):
    """`VMSTATE_UNUSED` in place of the words: skipped, not read.

    `as_posted`: with `sizeof(target_ulong)` for each, as the patch on the list had it. Right on a 64-bit target but for
    nb_BATs, which has 4 bytes; on a 32-bit one the two 64-bit words have twice that: what follows is misread.
    """

    def __init__(self, as_posted: bool = True) -> None:
        self.as_posted = as_posted
        self.name = "unused" if as_posted else "unused-right-size"

    def size_of(self, field: FieldDescription, context: Context) -> int:
        return context.target_ulong if self.as_posted and context.word != "nb_BATs" else field.size


class Subset(Policy):
    """Migrate, then refuse in post_load only if the stream has a flag that the destination lacks."""

    name = "subset"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        if context.word == "nb_BATs" or destination_value is None:
            return None
        extra = stream_value & ~destination_value
        if not extra:
            return None
        message = f"{context.path} has flags that the destination lacks: 0x{extra:x}"
        return Obstacle("H", "not a subset", message, None, None, context.path, stream_value, destination_value)


class KvmFilter(Policy):
    """Only flags that a KVM guest can see must be equal: under KVM the host decides, TCG's words are its own.

    What counts under KVM: VMX (PPC_ALTIVEC), VSX and DFP, which `kvmppc_host_cpu_class_init` takes from the host
    (target/ppc/kvm.c). Without KVM every flag counts.
    """

    name = "kvm-filter"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        if destination_value is None:
            return None
        if context.kvm:
            visible = catalog.host_flags(context.destination.release or "2.7.0", nearest=True).get(context.word, 0)
            if stream_value & visible == destination_value & visible:
                return None
        return super().check(field, stream_value, destination_value, context)


class Mask(Policy):
    """The sender masks what was added since 2.6, as shipped (16a2497bd4, bce009645b); receivers still compare.

    The masks are those of `cpu_pre_save` in the release given, or of the newest that has them.
    """

    name = "mask"

    def __init__(self, release: str = "7.2.0") -> None:
        self.release = release

    def on_the_way_out(self, word: str, value: int) -> int:
        never = (0, 0, 0)
        release = facts.version(self.release) or never
        for row in catalog.table("masks"):
            since, until = facts.version(row["since"]) or never, facts.version(row["until"]) or release
            if row["word"] == word and since <= release <= until:
                bits = int(row["value"], 16)
                value = value & bits if row["op"] == "and" else value | bits
        return value


class MachineGated(Policy):
    """The words go with the machine type: each side has those its CPU had in the release that brought the machine."""

    name = "machine-gated"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        born = facts.version(context.machine)
        if born is not None and context.machine is not None and context.stream_pvr is not None:
            release, accel = f"{born[0]}.{born[1]}.0", context.destination.accel or "tcg"
            sides = []
            for pvr in (context.stream_pvr, context.destination.pvr):
                models = catalog.model_of_pvr(pvr, release, nearest=True) if pvr else []
                if models:
                    words = catalog.words(models[0].name, release, accel, context.machine, nearest=True)
                    sides.append(getattr(words, context.word))
            if len(sides) == 2:
                stream_value, destination_value = sides
        return super().check(field, stream_value, destination_value, context)


POLICIES: dict[str, Callable[[], Policy]] = {
    "equal": Equal,
    "unused": Unused,
    "unused-right-size": lambda: Unused(as_posted=False),
    "ignore": Ignore,
    "subset": Subset,
    "kvm-filter": KvmFilter,
    "mask": Mask,
    "machine-gated": MachineGated,
}


def named(policy: Policy | str | None) -> Policy | None:
    """A policy by its name. Raises KeyError naming those there are."""
    if not isinstance(policy, str):
        return policy
    if policy not in POLICIES:
        raise KeyError(f"no policy {policy!r}; there are {', '.join(POLICIES)}")
    return POLICIES[policy]()
