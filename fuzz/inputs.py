"""Makes the inputs: each has a kind and a number, and the same number makes the same input."""

from __future__ import annotations

import base64
import bz2
import copy
import functools
import gzip
import json
import lzma
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lz4.frame
import ram_streams
import strategies
from containers import libvirt_image, qcow2_image
from writer import Vmsd, Writer, be

from vmstate_tools.source import zstd

Random = random.Random
DATA = strategies.DATA


@dataclass(frozen=True)
class Input:
    """An input is some bytes, and how they are read."""

    kind: str
    number: int
    parts: dict[str, bytes]
    """By name: the connections of one migration are "0", "1", …; other kinds have names of files."""
    options: dict[str, Any] = field(default_factory=dict)
    """`partial`: as in `vt.open`; `arguments`: of the command."""

    @property
    def size(self) -> int:
        """Returns the bytes of all parts together."""
        return sum(map(len, self.parts.values()))

    def save(self, path: Path, problem: str = "") -> None:
        """Writes one JSON file, from which `load` makes the same input."""
        parts = {name: base64.b64encode(data).decode() for name, data in self.parts.items()}
        known = {"kind": self.kind, "number": self.number, "options": self.options, "problem": problem, "parts": parts}
        path.write_text(json.dumps(known, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Input:
        """Returns the input that `save` wrote; takes any other file as one stream."""
        data = path.read_bytes()
        try:
            known = json.loads(data)
            parts = {name: base64.b64decode(text) for name, text in known["parts"].items()}
            return cls(known["kind"], known["number"], parts, known["options"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls("stream", 0, {"0": data})


# -- streams --------------------------------------------------------------------------------------------------------


def _stream(rng: Random) -> bytes:
    return strategies.mutate(rng, strategies.build(rng))


def _real(rng: Random) -> bytes:
    return strategies.mutate(rng, rng.choice(_small_samples()))


@functools.cache
def _small_samples() -> list[bytes]:
    """Returns the thirty smallest streams of real QEMUs, without the guest's memory."""
    return sorted(strategies.samples(), key=len)[:30]


def _vmdesc(rng: Random) -> bytes:
    """Returns a stream whose vmdesc was edited: as JSON, then as text."""
    data = strategies.build(rng) if rng.random() < 0.9 else rng.choice(_small_samples())
    for _ in range(rng.randrange(1, 4)):
        data = strategies.edit_vmdesc(rng, data)
    start = data.rfind(b"\x06", 0, max(data.rfind(b'"devices"'), 0))
    if rng.random() < 0.5 or start < 0:
        return data
    text = _text(rng, data[start + 5 :])
    return data[:start] + b"\x06" + be(len(text), 4) + text


_SNIPPETS = [
    *(
        b"NaN",
        b"Infinity",
        b"-0",
        b"1e999",
        b"9" * 40,
        b'"\\ud800"',
        b"\xff\xfe",
        b"[" * 3000,
        b'{"a":' * 2000,
        b"null",
    ),
    *(b'"fields": [], "fields": [{}]', b"1.0", b'""', b"\0", b"true", b"18446744073709551616", b"-1", b'"size": 0'),
]


def _text(rng: Random, text: bytes) -> bytes:
    """Returns the text with snippets put between its words or in place of them."""
    for _ in range(rng.randrange(1, 4)):
        places = [at for at in range(len(text)) if text[at] in b':,[{ \n="'] or [0]
        at = rng.choice(places) + 1
        end = next((i for i in range(at, min(at + 40, len(text))) if text[i] in b",]}\n"), at)
        text = text[:at] + rng.choice(_SNIPPETS) + text[rng.choice([at, end]) :]
    return text


def _configuration(rng: Random) -> bytes:
    """Returns a stream with configuration subsections of every kind, mutated there."""
    stream = Writer(
        machine=rng.choice(
            ["virt", "pseries-2.6", "x" * 255, "", strategies.HOSTILE_NAME.encode("ascii", "ignore").decode()]
        ),
        page_size=1024,
        page_bits=rng.choice([None, 0, 10, 12, 63]),
        capabilities=tuple(rng.sample(["mapped-ram", "x-ignore-shared", "xbzrle", "y" * 200, ""], rng.randrange(4))),
        uuid=rng.choice([None, rng.randbytes(16)]),
    )
    data = stream.finish(vmdesc=rng.random() < 0.5)
    head = data[: rng.randrange(8, 200)]
    return strategies.mutate(rng, head) + data[len(head) :]


def _ram(rng: Random) -> bytes:
    """Returns a stream whose RAM block list and page records no QEMU would write: sizes, offsets and flags at random."""
    stream = Writer(
        machine="pc-q35-9.0", page_size=4096, capabilities=rng.choice([(), ("mapped-ram",), ("x-ignore-shared",)])
    )
    sizes = [0, 1, 4096, 8192, 1 << 20, 1 << 30, 1 << 40, 1 << 50, (1 << 64) - 4096, rng.getrandbits(64)]
    names = [b"pc.ram", b"", b"a", b"\xff\x1b", b"\\xff\\x1b", b"n" * 255, b"pc.ram"]
    blocks = [(rng.choice(names), rng.choice(sizes)) for _ in range(rng.choice([1, 1, 2, 3, 200]))]
    total = rng.choice([sum(size for _, size in blocks) & ~0xFFF, 0, 4096, 1 << 40]) & (1 << 63) - 1
    section = stream.begin(1, "ram", 0, 4)
    extra = be(rng.choice(sizes), 8) * rng.randrange(2)
    stream.data += be(total | ram_streams.MEM_SIZE, 8)
    stream.data += b"".join(ram_streams.named(name) + be(size, 8) + extra for name, size in blocks)
    stream.data += be(ram_streams.EOS, 8)
    stream.footer(section)
    for kind in (2, 3):
        stream.data += be(kind, 1) + be(section, 4)
        for _ in range(rng.choice([0, 1, 5, 40])):
            record = _page(rng, rng.choice(blocks)[0], rng.choice(sizes))
            stream.data += record * rng.choice([1, 1, 1, 300])
        stream.data += be(ram_streams.EOS, 8)
        stream.footer(section)
    data = stream.finish(vmdesc=False)
    return strategies.mutate(rng, data) if rng.random() < 0.3 else data


def _page(rng: Random, name: bytes, place: int) -> bytes:
    flags = rng.choice([0x02, 0x08, 0x40, 0x100, 0x80, 0x200, 0x22, 0x28, rng.getrandbits(12)])
    named = b"" if flags & 0x20 else ram_streams.named(name)
    body = rng.choice([b"\0", b"\7", rng.randbytes(4096), b"\x01\0\x03\x01\x01a", be(9, 4) + rng.randbytes(9), b""])
    return be(place & ~0xFFF | flags, 8) + named + body


# -- containers -----------------------------------------------------------------------------------------------------


def _lzop(data: bytes) -> bytes:
    """Returns a file that lzop wrote, whatever `data` is: no package here writes the format."""
    del data
    return ram_streams.unzst(DATA / "libvirt" / "libvirt-9.0-lzop.save.zst")[65536 + 92 :]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": functools.partial(gzip.compress, mtime=0),
    "zstd": zstd.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "lz4": lz4.frame.compress,
    "lzop": _lzop,
}


def _packed(kind: str, rng: Random) -> bytes:
    pack = PACKERS[kind]
    inner = strategies.build(rng) if rng.random() < 0.5 else _stream(rng)
    data = pack(inner)
    match rng.randrange(6):
        case 0:
            return data
        case 1:  # members one after another, empty ones among them
            cut = rng.randrange(len(inner) + 1)
            return pack(inner[:cut]) + pack(b"") * rng.choice([1, 1, 3000]) + pack(inner[cut:])
        case 2:  # one container in another
            return strategies.mutate(rng, rng.choice([*PACKERS.values()])(data))
    return strategies.mutate(rng, data)


def _repeated(rng: Random) -> bytes:
    """Returns a small compressed file of one record over and over: what the records cost is not in the file's size."""
    stream = Writer(machine=rng.choice([None, "pc-q35-9.0"]), footers=rng.random() < 0.7)
    mark = len(stream.data)
    match rng.randrange(5):
        case 0:
            stream.command(rng.choice([1, 2, 10, 99]), rng.choice([b"", b"\0\0\0\1"]))
        case 1:
            stream.full("dev", Vmsd("dev", []), rng.randrange(2))
        case 2:
            stream.old_style("", b"", 0)
        case 3:
            section = stream.begin(1, "ram", 0, 4)
            stream.data += be(ram_streams.EOS, 8)
            stream.footer(section)
            mark = len(stream.data)
            stream.data += be(2, 1) + be(section, 4) + be(ram_streams.EOS, 8)
            stream.footer(section)
        case 4:
            stream.full("dev", Vmsd("dev", [], [Vmsd("dev/x", [])]), 0)
    head, record = bytes(stream.data[:mark]), bytes(stream.data[mark:])
    data = head + record * rng.choice([1000, 20_000, 200_000]) + rng.choice([b"", b"\0", b"\x7f"])
    return PACKERS[rng.choice(["gzip", "zstd", "bz2", "lz4"])](data)


def _libvirt(rng: Random) -> bytes:
    kind = rng.choice([0, 0, *range(7), rng.getrandbits(32)])
    packers = [bytes, PACKERS["gzip"], PACKERS["bz2"], PACKERS["xz"], PACKERS["lzop"], PACKERS["zstd"]]
    body = packers[kind if kind < len(packers) else 0](strategies.build(rng))
    data = libvirt_image(body, kind, rng.choice("<>"))
    head = data[: rng.choice([64, 92, 200])]
    match rng.randrange(4):
        case 0:
            return head + strategies.mutate(rng, data[len(head) :])
        case 1:
            return data
    return strategies.mutate(rng, head) + data[len(head) :]


def _qcow2(rng: Random) -> bytes:
    names = [b"one", b"", b"x" * 300, strategies.HOSTILE_NAME.encode()]
    states = [strategies.build(rng) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    data = qcow2_image([(rng.choice(names), state) for state in states], extended=rng.random() < 0.3)
    at = rng.choice([0, 0, *range(0, len(data), 4096)])
    return data[:at] + strategies.mutate(rng, data[at : at + 4096]) + data[at + 4096 :]


# -- files of other kinds -------------------------------------------------------------------------------------------


def _manifest(rng: Random) -> dict[str, bytes]:
    """Returns a `manifest.csv` and the streams beside it."""
    columns = [
        "file",
        "release",
        "machine",
        "cpu",
        "config",
        "sha256",
        "size",
        "arguments",
        "capabilities",
        "memory_mib",
    ]
    names = rng.sample(columns, rng.randrange(1, len(columns))) + rng.choice([[], [], ["file"], ["x"]])
    cells = [
        "a.mig",
        "b.mig",
        "2.7.0",
        "2.10",
        "pseries-2.6",
        "POWER8_v2.0",
        "",
        "12",
        "-1",
        "1e9",
        "x",
        "=cmd|' /C x'!A0",
    ]
    cells += [
        "../a.mig",
        "/dev/null",
        "-m 128 -smp 2",
        "9" * 30,
        "\u202e",
        '"',
        "nan",
        "None",
        "a\nb",
        "inf",
        "-chardev file,path=x",
    ]
    rows = [[rng.choice(cells) for _ in names] for _ in range(rng.choice([0, 1, 2, 5]))]
    quote = rng.choice([lambda cell: cell, lambda cell: '"' + cell.replace('"', '""') + '"'])
    text = "\n".join(",".join(map(quote, row)) for row in [names, *rows]).encode()
    if rng.random() < 0.4:
        text = strategies.mutate(rng, text)
    if rng.random() < 0.2:
        text = rng.choice([b"", b"\xff\xfe", b"\xef\xbb\xbf" + text, text.decode(errors="replace").encode("utf-16")])
    return {"manifest.csv": text, "a.mig": strategies.build(rng), "b.mig": _stream(rng)}


@functools.cache
def _dumped() -> list[dict[str, Any]]:
    """Returns dumps of real QEMUs, as documents of a few device classes each."""
    documents = []
    for path in sorted((DATA / "dumps").glob("*.json.zst")):
        classes = json.loads(ram_streams.unzst(path))
        names = sorted(classes, key=lambda name: len(json.dumps(classes[name])))
        documents += [
            {name: classes[name] for name in ("vmschkmachine", *some) if name in classes}
            for some in (names[at : at + 4] for at in range(0, 60, 4))
        ]
    return documents


def _dump(rng: Random) -> dict[str, bytes]:
    """Returns two -dump-vmstate files, one of them edited: as JSON, then perhaps as text."""
    document = copy.deepcopy(rng.choice(_dumped()))
    before = json.dumps(document).encode()
    for _ in range(rng.randrange(1, 5)):
        strategies._edit(rng, document)
    after = json.dumps(document).encode()
    if rng.random() < 0.3:
        after = rng.choice([_text, strategies.mutate])(rng, after)
    return {"a.json": before, "b.json": after, "a.mig": strategies.build(rng)}


# -- the command ----------------------------------------------------------------------------------------------------

_ODD = [
    *(
        "",
        " ",
        "*",
        "[",
        "[a-",
        "a/b",
        "cpu/env.insns_flags",
        "cpu/0/x",
        "toy/1/f0",
        "f0",
        "f[0]",
        "f0[0:3]",
        "/",
        "//",
        "=",
        "cpu/",
    ),
    *(
        "=cmd|' /C x'!A0",
        "memory::x.mig",
        "%s",
        "{}",
        "\u202e",
        "\x1b[31m",
        "\x00",
        "é",
        "\udcff",
        "9" * 40,
        "-1",
        "0x",
        "0x7f",
    ),
    *(
        "1e9",
        "nan",
        "--",
        "-",
        "-o",
        "POWER8",
        "PPC_64BX",
        "2.7.0",
        "2.7",
        "2.10",
        "99.0",
        "2.x",
        "pseries-2.6",
        "q35",
        "qemu64",
    ),
    *(
        "a.mig",
        "b.mig",
        "./a.mig",
        "no.mig",
        "x" * 5000,
        "True",
        "deadbeef",
        "0xffffffffffffffffff",
        "a=b=c",
        "toy/f0=1",
        "cpu/a=0x1",
    ),
]


def _odd(rng: Random) -> str:
    text = rng.choice(_ODD)
    while rng.random() < 0.25:
        text += rng.choice([*_ODD[:40], *string.punctuation])[:200]
    # No address of another computer, no file outside the folder.
    return "x" if "//" in text or ("::" in text and not text.startswith("memory::x")) or text.startswith("/") else text


_COMMANDS: list[list[str]] = [
    ["info", "a.mig"], ["info", "?"], ["info", "--json", "a.mig", "?"], ["fields", "a.mig", "--field", "?"],
    ["fields", "a.mig", "--section", "?"], ["fields", "a.mig", "--format", "csv", "--field", "?"],
    ["fields", "a.mig", "--json", "--section", "?"], ["fields", "a.mig", "--format", "?"], ["cpu", "a.mig", "--json"],
    ["cpu", "a.mig", "--against", "?"], ["flag", "?"], ["flag", "?", "?"], ["diff", "a.mig", "b.mig"], ["diff", "a.mig", "?"],
    ["diff", "--json", "a.mig", "b.mig", "--ram"], ["check", "a.mig", "--to", "?"], ["check", "a.mig", "--reference", "?"],
    ["check", "a.mig", "--to", "2.7.0", "--machine", "?"], ["check", "a.mig", "--to", "2.7.0", "--cpu", "?", "--json"],
    ["check", "a.mig", "--to", "2.7.0", "--policy", "?"], ["check", "a.mig", "--dump", "?"], ["matrix", "a.mig", "--to", "?"],
    ["lint", "a.mig"], ["lint", "?"], ["lint", "a.mig", "--against", "?"], ["history", "--cpu", "?"],
    ["history", "--from", "?", "--until", "?"], ["history", "--cpu", "POWER8", "--from", "?"],
    ["ram", "a.mig", "--block", "?", "-o", "out"], ["ram", "a.mig", "-o", "out"], ["rewrite", "a.mig", "-o", "out", "--set", "?"],
    ["rewrite", "a.mig", "-o", "out", "--set", "?=?"], ["rewrite", "a.mig", "-o", "out", "--set", "toy/f0=?"],
    ["rewrite", "a.mig", "-o", "out", "--for", "?"], ["info", "a.mig", "--description", "?"], ["info", "a.mig", "--snapshot", "?"],
    ["?"], ["?", "a.mig"], ["fields", "b.mig", "?"], ["fields", "b.mig", "?", "?"],
]  # fmt: skip


def _command(rng: Random) -> tuple[list[str], dict[str, bytes]]:
    arguments = []
    for word in rng.choice(_COMMANDS):
        while "?" in word:
            word = word.replace("?", _odd(rng).replace("?", ""), 1)
        arguments.append(word)
    if rng.random() < 0.1:
        arguments.insert(rng.randrange(1, len(arguments) + 1), _odd(rng))
    return arguments, {"a.mig": strategies.build(rng), "b.mig": _stream(rng)}


# -- all of them ----------------------------------------------------------------------------------------------------

_STREAMS: dict[str, Callable[[Random], bytes]] = {
    "stream": _stream,
    "real stream": _real,
    "vmdesc": _vmdesc,
    "configuration": _configuration,
    "ram": _ram,
    **{kind: functools.partial(_packed, kind) for kind in PACKERS},
    "repeated": _repeated,
    "libvirt": _libvirt,
    "qcow2": _qcow2,
}
# How many of a hundred inputs are of this kind.
SHARES = {
    "stream": 18, "repeated": 1, "real stream": 2, "connections": 1, "vmdesc": 12, "configuration": 6, "ram": 10, "gzip": 4, "zstd": 4, "xz": 4,
    "bz2": 3, "lz4": 4, "lzop": 3, "libvirt": 5, "qcow2": 5, "manifest": 2, "dump": 6, "command": 10,
}  # fmt: skip
_SCHEDULE = [kind for kind, share in SHARES.items() for _ in range(share)]
random.Random(0).shuffle(_SCHEDULE)


def make(number: int, kind: str | None = None) -> Input:
    """Returns the input of this number; of this kind, or of the kind whose turn it is."""
    kind = kind or _SCHEDULE[number % len(_SCHEDULE)]
    rng = Random(number)
    options = {"partial": bool(rng.getrandbits(1))}
    match kind:
        case "connections":
            parts = {str(n): data for n, data in enumerate(strategies.connections(rng))}
        case "manifest":
            parts = _manifest(rng)
        case "dump":
            parts = _dump(rng)
        case "command":
            arguments, parts = _command(rng)
            options = {"arguments": arguments}
        case _:
            parts = {"0": _STREAMS[kind](rng)}
    return Input(kind, number, parts, options)
