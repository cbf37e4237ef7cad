"""Policies: how a destination could treat the CPU's sanity-check words, and what a sender could do about them.

A policy is a small object. `check` says what the destination makes of a word, `size_of` how many bytes it reads for
it, `on_the_way_out` what the sender puts there, `has` what the CPUs on both sides have:

    class OnlyMsr(Policy):
        name = "only-msr"
        def check(self, field, stream_value, destination_value, context):
            if context.word == "msr_mask":
                return super().check(field, stream_value, destination_value, context)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.facts import catalog, flags
from vmstate_tools.facts.machines import version_of
from vmstate_tools.release import Release
from vmstate_tools.vmstate.description import FieldDescription


@dataclass(frozen=True, slots=True)
class Context:
    """A Context says where a word is checked.

    Attributes
    ----------
    word : msr_mask, insns_flags, insns_flags2 or nb_BATs.
    path : the path of the field that carries it.
    release, machine, accel, pvr : the destination's; None where not known.
    stream_pvr : the PVR in the stream; None while a policy is asked for sizes.
    target_ulong : bytes, 4 or 8.
    """

    word: str
    path: str
    release: str | None = None
    machine: str | None = None
    accel: str | None = None
    pvr: int | None = None
    stream_pvr: int | None = None
    target_ulong: int = 8

    @property
    def kvm(self) -> bool:
        """Tells whether the destination runs the guest with KVM."""
        return self.accel == "kvm"


class Policy:
    """Every word must equal the destination's, as QEMU 1.6 to 2.7.0 had it (commit a90db1584a)."""

    name = "equal"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        """Returns the obstacle that a word is, or None; `destination_value` is None where it is not known."""
        if destination_value is None or stream_value == destination_value:
            return None
        message = f"{context.path} must equal the destination's"
        return Obstacle("F", "not equal", message, None, None, context.path, stream_value, destination_value)

    def size_of(self, field: FieldDescription, context: Context) -> int:
        """Returns the bytes that the destination reads for a word."""
        return field.size

    def on_the_way_out(self, word: str, value: int) -> int:
        """Returns what a sender that follows this policy sends for a word."""
        return value

    def has(self, word: str, value: int, pvr: int | None, context: Context) -> int:
        """Returns what a CPU of this PVR has under this policy, on either side; `value` is what its release gave it."""
        return value


class Equal(Policy):
    """Every word must equal the destination's: the policy that others are compared with."""


class Ignore(Policy):
    """The destination reads the words and forgets them, as 2.7.1 and 2.8 do (commit 16a2497bd4)."""

    name = "ignore"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        return None


class Unused(Ignore):
    """`VMSTATE_UNUSED` stands in place of the words: they are skipped, not read.

    Parameters
    ----------
    as_posted : skip `sizeof(target_ulong)` for the three flag words, as the patch on the list had it. On a 64-bit
        target that is their size. On a 32-bit one insns_flags and insns_flags2 have 8 bytes, twice that: what
        follows is misread. nb_BATs is taken to keep its own 4 bytes: with sizeof(target_ulong) every 64-bit load
        would have failed.
    """

    def __init__(self, as_posted: bool = True) -> None:
        self.as_posted = as_posted
        self.name = "unused" if as_posted else "unused-right-size"

    def size_of(self, field: FieldDescription, context: Context) -> int:
        return context.target_ulong if self.as_posted and context.word != "nb_BATs" else field.size

    def on_the_way_out(self, word: str, value: int) -> int:
        """Returns 0, which releases that compare will find (migration/vmstate.c: `put_unused_buffer`)."""
        return 0


class Subset(Policy):
    """The words are migrated; post_load refuses only a flag in the stream that the destination lacks."""

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
    """Under KVM only flags that the guest can see must be equal: the host runs its instructions. TCG compares all.

    What a KVM guest can see is column `kvm` of data/catalog/effects.csv: what QEMU itself shows of a flag.
    """

    name = "kvm-filter"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        if context.kvm and destination_value is not None:
            seen = noticed(context.word, "kvm")
            if stream_value & seen == destination_value & seen:
                return None
        return super().check(field, stream_value, destination_value, context)


class Mask(Policy):
    """The sender masks what was added since 2.6, as shipped (16a2497bd4, bce009645b).

    A destination that compares the words still does so; where it reads and ignores them, the field is no `_EQUAL`.

    Parameters
    ----------
    release : the release whose masks the sender applies (target/ppc/machine.c: `cpu_pre_save`).
    """

    name = "mask"

    def __init__(self, release: str = "7.2.0") -> None:
        self.release = release

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        return super().check(field, stream_value, destination_value, context) if field.equal else None

    def on_the_way_out(self, word: str, value: int) -> int:
        release = Release(self.release)
        for row in catalog.table("masks"):
            if row["word"] == word and release.within(row["since"], row["until"]):
                bits = int(row["value"], 16)
                value = value & bits if row["op"] == "and" else value | bits
        return value


class Shipped(Mask):
    """What 2.7.1 shipped (both parts of 16a2497bd4): the sender masks, the destination ignores."""

    name = "shipped"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        return None


class MachineGated(Policy):
    """The words go with the machine type: a CPU has the words of the release that brought it; both are compared."""

    name = "machine-gated"

    def has(self, word: str, value: int, pvr: int | None, context: Context) -> int:
        born = version_of(context.machine or "")
        if born is None or pvr is None:
            return value
        words = _words(pvr, str(born), context.accel or "tcg", context.machine)
        return value if words is None else int(getattr(words, word))


class SentBy(Policy):
    """Another policy, applied to the words of a given release and accelerator, whatever the stream carries.

    From 2.7.1 on a stream carries masked words, and under TCG not always the words that a KVM guest had.
    """

    def __init__(self, release: str, accel: str = "tcg", policy: Policy | str = "equal") -> None:
        self.release, self.accel = release, accel
        self.policy = POLICIES[policy]() if isinstance(policy, str) else policy
        self.name = f"{self.policy.name}, sent by {release} {accel}"

    def check(
        self, field: FieldDescription, stream_value: int, destination_value: int | None, context: Context
    ) -> Obstacle | None:
        words = _words(context.stream_pvr, self.release, self.accel, context.machine)
        if words is not None:
            value = self.policy.has(context.word, int(getattr(words, context.word)), context.stream_pvr, context)
            stream_value = self.policy.on_the_way_out(context.word, value)
        return self.policy.check(field, stream_value, destination_value, context)

    def size_of(self, field: FieldDescription, context: Context) -> int:
        return self.policy.size_of(field, context)

    def has(self, word: str, value: int, pvr: int | None, context: Context) -> int:
        return self.policy.has(word, value, pvr, context)


@functools.lru_cache(maxsize=4096)  # PVRs and machine types come from streams
def _words(pvr: int | None, release: str, accel: str, machine: str | None) -> catalog.Words | None:
    models = catalog.model_of_pvr(pvr, release, nearest=True) if pvr else []
    return catalog.words(models[0].name, release, accel, machine, nearest=True) if models else None


@functools.cache
def noticed(word: str, accel: str, hypervisor: bool = False) -> int:
    """Returns the bits of a word that a guest could notice the lack of, by data/catalog/effects.csv.

    Under TCG: bits whose instructions or modes a program or an operating system can use, or, with `hypervisor`, a
    guest that has hypervisor mode. Under KVM: bits that QEMU itself shows; the host runs the instructions.
    """
    who = {"program", "system", *(["hypervisor"] if hypervisor else [])}
    names = [
        row["name"]
        for row in catalog.table("effects")
        if row["word"] == word and (row["kvm"] if accel == "kvm" else row["tcg"] in who)
    ]
    return flags.encode(word, names) if names else 0


POLICIES: dict[str, Callable[[], Policy]] = {
    "equal": Equal,
    "unused": Unused,
    "unused-right-size": lambda: Unused(as_posted=False),
    "ignore": Ignore,
    "subset": Subset,
    "kvm-filter": KvmFilter,
    "mask": Mask,
    "shipped": Shipped,
    "machine-gated": MachineGated,
}


def named(policy: Policy | str | None) -> Policy | None:
    """Returns a policy by its name. Raises KeyError that lists all names."""
    if not isinstance(policy, str):
        return policy
    if policy not in POLICIES:
        raise KeyError(f"no policy {policy!r}; there are {', '.join(POLICIES)}")
    return POLICIES[policy]()
