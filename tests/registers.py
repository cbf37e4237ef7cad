"""Reads what QEMU's `info registers` prints for a ppc CPU."""

from __future__ import annotations

import re


def printed_registers(text: str) -> dict[str, int]:
    """Every 64-bit word of one CPU's `info registers`, by name; GPRs, FPRs and CR fields one by one."""
    found: dict[str, int] = {}
    for name, first, words in re.findall(r"^(GPR|FPR)(\d\d)((?: [0-9a-f]{16})+)$", text, re.M):
        found |= {f"{name}{int(first) + i}": int(word, 16) for i, word in enumerate(words.split())}
    for digits, reservation in re.findall(r"^CR ([0-9a-f]{8}) .*RES (?:[0-9a-f]{3}@)?([0-9a-f]{16})$", text, re.M):
        found |= {f"CR{i}": int(digit, 16) for i, digit in enumerate(digits)} | {"RES": int(reservation, 16)}
    rest = re.sub(r"^(GPR|FPR|CR).*$", "", text, flags=re.M)
    return found | {name: int(word, 16) for name, word in re.findall(r"\b([A-Z]+\d?) ([0-9a-f]{16})\b", rest)}
