"""Questions of 07-design-a-field. Designs are tried: each guest is sent to each release, as `vt.check` loads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import vmstate_tools as vt
from course import question, same
from course.toy import Description, Field, load, stream
from vmstate_tools.data import data_path

FULL, WHITE = 0xFFFF, 0xFFFFFF


def lamp(release: int, brightness: int = 255) -> Description:
    """Returns the device of release 1 or 2, as `subsection` in the notebook; brightness has 8 bits."""
    dimmed = Description("lamp/brightness", [Field("brightness", "uint8", brightness)], needed=brightness != 255)
    return Description("lamp", [Field("on", "uint8", 1)], [dimmed] if release == 2 else [])


@question("07-footer")
def _(answer: Any) -> bool | str:
    """It is the byte behind `on` in that stream: `stream(...)` has it, and so has the first notebook."""
    raw = stream(lamp(1), "toy-1")
    with vt.open(raw) as s:
        end = s.section("lamp").payload_end
    wrong = [(0, "There is no end that a reader sees: it takes the byte that comes next.")]
    wrong += [(1, "That is `on`."), (255, "255 is what it ought to be.")]
    return same(answer, raw[end], wrong)


@question("07-minimum")
def _(answer: Any) -> bool | str:
    """Try it: the design with `minimum=2` in release 2, and with `minimum=1`."""

    def refused(minimum: int) -> set[tuple[int, int]]:
        made = {
            release: Description("lamp", [Field("on", "uint8", 1), *more], version=release, minimum=least)
            for release, more, least in ((1, [], 1), (2, [Field("brightness", "uint8", 255, since=2)], minimum))
        }
        return {(a, b) for a in made for b in made if not load(made[a], made[b], "toy-1").loads}

    before, after = refused(1), refused(2)
    wrong = [(after, "One of these is refused with `minimum=1` as well."), (before, "That was so before.")]
    answer = {answer} if isinstance(answer, tuple) and answer and isinstance(answer[0], int) else answer
    return same(answer, after - before, wrong)


@question("07-iommu")
def _(answer: Any) -> bool | str:
    """`vt.diff` of a stream of each, `section` spapr_iommu: what is only in one of them?"""
    fields = []
    for release in ("5.2", "7.2"):
        with vt.open(data_path("streams", f"qemu-{release}", "pseries-2.6", "POWER7_v2.3.mig.zst")) as s:
            description = s.section("spapr_iommu").description
            assert description is not None
            fields.append({f.name for f in description.vmsd.fields})
    old, new = fields
    return same(answer, (new - old).pop(), [("version", "Why was it raised? Something came with it.")])


@question("07-policy")
def _(answer: Any) -> bool | str:
    """`vt.check(stream, destination, policy)` for each of `POLICIES`, in both directions."""
    from vmstate_tools.compat import POLICIES

    there = {r: vt.Destination(r, "pseries-2.6", "POWER8_v2.0", "tcg") for r in ("2.6.0", "2.7.0")}
    path = {r: data_path("streams", f"qemu-{r}", "pseries-2.6", "POWER8_v2.0.mig.zst") for r in there}
    forward = {p for p in POLICIES if vt.check(path["2.6.0"], there["2.7.0"], p).loads}
    backward = {p for p in POLICIES if vt.check(path["2.7.0"], there["2.6.0"], p).loads}
    wrong = [(forward & backward, "Those let the guest with new flags go back to a CPU that lacks them.")]
    return same(answer, forward - backward, wrong)


@question("07-lamp")
def _(answer: Any) -> bool | str:
    """It is a function of machine, brightness and colour that returns a Description."""
    return next(_broken(answer), True)


def _broken(lamp3: Callable[[str, int, int], Description]) -> Iterator[str]:
    """Yields in words what does not hold."""
    for machine in ("toy-1", "toy-2"):
        for brightness, colour in (
            (FULL, WHITE),
            (80 * 257, WHITE),
            (12345, WHITE),
            (FULL, 0x123456),
            (12345, 0x123456),
        ):
            guest = f"A guest of {machine} with brightness {brightness} and colour {colour:#08x}"
            made = lamp3(machine, brightness, colour)
            plain, sayable = (brightness, colour) == (FULL, WHITE), brightness % 257 == 0 and colour == WHITE
            for release, fine in ((1, plain), (2, sayable), (3, True)):
                there = lamp3(machine, FULL, WHITE) if release == 3 else lamp(release)
                verdict = load(made, there, machine)
                if fine and verdict.first is not None:
                    yield f"{guest} does not get from release 3 to {release}: {verdict.first}"
                if not fine and verdict.loads:
                    yield f"{guest} gets from release 3 to {release}, where part of it is lost without a word."
            with vt.open(stream(made, machine)) as s:
                sent = {(row.vmsd, row.path): row.value for row in s.fields("lamp").itertuples()}
            if sayable and not plain and sent.get(("lamp/brightness", "brightness")) != brightness // 257:
                yield f"{guest}: release 2 reads {sent.get(('lamp/brightness', 'brightness'))!r} as its brightness."
            if not sayable and not {brightness, colour} - {FULL, WHITE} <= set(sent.values()):
                yield f"{guest} loses something on its way from release 3 to 3: {sent} is sent."
        for release, brightness in ((1, 255), (2, 255), (2, 80)):
            verdict = load(lamp(release, brightness), lamp3(machine, FULL, WHITE), machine)
            if verdict.first is not None:
                yield f"Release 3 refuses a guest of release {release}, brightness {brightness}: {verdict.first}"
