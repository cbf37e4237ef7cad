"""Every VMStateDescription in QEMU's source, release by release: which fields and versions a release can write.

Reads a git checkout by plumbing alone. What it cannot follow (a field list kept elsewhere, a macro of the file's
own) it leaves open: the facts say what a release may and must write, never more than the source does.
"""

from __future__ import annotations

import collections
import csv
import functools
import operator
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from vmstate_tools.qemu_source.git import Repo
from vmstate_tools.release import Release as ReleaseName
from vmstate_tools.release import covered
from vmstate_tools.source.new_file import new_text_file

_RELEASES = covered()

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')", re.DOTALL)
_DEFINITION = re.compile(r"\bVMStateDescription\s*(?:(\w+)\s*=\s*|\)\s*)\{")
_TEXT_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+\"([^\"\n]*)\"[ \t]*$", re.MULTILINE)
_FIELD_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(VMSTATE_\w+)\(\s*(\w*)((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
_TARGET = re.compile(r"target[-/](\w+)/")
_SKIPPED = re.compile(
    r"(?:tests|disas|roms|pc-bios|linux-user|bsd-user|linux-headers|libdecnumber|fpu|tcg|contrib|docs|subprojects)/"
)
_LITERAL = re.compile(r"\"([\w./ :+,-]{1,80})\"")
_DIRECTIVE = re.compile(r"^[ \t]*#.*(?:\\\n.*)*$", re.MULTILINE)
_INFO = re.compile(r"\bVMStateInfo\s+(\w+)\s*=\s*\{\s*\.name\s*=\s*\"([^\"]+)\"")
_PASTED = re.compile(r"\.name\s*=\s*\"([\w/-]+)\"\s*#")  # the rest of the name is a macro's argument
_MACHINE = re.compile(
    r"DEFINE_MACHINE(?:_\w+)?\(\s*\"([^\"]+)\"|MACHINE_TYPE_NAME\(\s*\"([^\"]+)\"|"
    r"QEMUMachine\s+\w+\s*=\s*\{[^{}]*?\.name\s*=\s*\"([^\"]+)\"|DEFINE_\w*MACHINE\w*\(\s*\w+\s*,\s*\"([^\"]+)\""
)
_VERSIONED = re.compile(
    r"\bDEFINE_(SPAPR|PC|I440FX|Q35|VIRT|CCW|PC_I440FX)_MACHINE(?:_\w+)?\(\s*(?:v?(\d+)(?:_|\s*,\s*)(\d+)\b)(_sxxm)?"
)
_FAMILY = {"SPAPR": "pseries", "I440FX": "pc-i440fx", "Q35": "pc-q35", "VIRT": "virt", "CCW": "s390-ccw-virtio"}

# Macros whose field is written whenever its description is: not _TEST, not an array that may have no elements.
_ALWAYS = re.compile(
    r"(?:U?INT(?:8|16|32|64)|UINTTL|BOOL|BUFFER|STRUCT|TIMER|TIMER_PTR|CPU_DOUBLE|FLOAT64|PCI_DEVICE|CLOCK)"
    r"(?:_ARRAY|_SUB_ARRAY|_2DARRAY|_POINTER)?(?:_EQUAL)?(?:_V)?"
)
_TYPE = re.compile(
    r"(U?INT(?:8|16|32|64)|BOOL|BUFFER|STRUCT|TIMER|TIMER_PTR|FLOAT64)"
    r"(?:_ARRAY|_SUB_ARRAY|_2DARRAY|_VARRAY(?:_U?INT\d+)?)?(_EQUAL)?(?:_V|_TEST)?"
)


class FieldFact(NamedTuple):
    """A FieldFact is a field of a description, and whether it is there whatever version and state."""

    name: str
    type: str  # as a vmdesc spells it, '' where not known
    always: bool


@dataclass(frozen=True)
class Definition:
    """One VMStateDescription in one file. `version` and `fields` are None where the source does not say plainly."""

    symbol: str
    name: str  # a literal, or the macro that stands for it
    literal: bool
    version: int | None
    fields: tuple[FieldFact, ...]
    complete: bool


@dataclass
class Blob:
    """What one file's text holds."""

    definitions: list[Definition] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    literals: frozenset[str] = frozenset()
    infos: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    pasted: tuple[str, ...] = ()


def read(text: str) -> Blob:
    """Returns the facts of one C file."""
    text = _COMMENT.sub(lambda m: m[1] or " ", text)
    blob = Blob(literals=frozenset(_LITERAL.findall(text)), texts=dict(_TEXT_MACRO.findall(text)))
    # The file's own macros count where their first parameter becomes the field's name: macro -> field type.
    infos = dict(_INFO.findall(text))
    macros = _FIELD_MACRO.findall(text)
    bodies: dict[str, str] = collections.defaultdict(str)
    for macro, _, body in macros:
        bodies[macro] += body
    own: dict[str, str | None] = {}
    for macro, first, body in macros:
        named = first and re.search(rf"(?:stringify|VMSTATE_\w+)\(\s*{first}\s*[,)]", body)
        used, todo, done = set(), [macro], set()
        while todo:
            word = todo.pop()
            if word not in done:
                done.add(word)
                used |= {infos[word]} if word in infos else set()
                todo += re.findall(r"\w+", bodies[word]) if word in bodies else []
        own[macro] = (used.pop() if len(used) == 1 else "") if named else None
    blob.infos = frozenset(infos.values())
    blob.pasted = tuple(_PASTED.findall(text))
    machines = {next(filter(None, names)) for names in _MACHINE.findall(text)}
    for family, major, minor, suffix in _VERSIONED.findall(text):
        prefix = _FAMILY.get(family)
        if prefix:
            machines.add(f"{prefix}-{major}.{minor}{suffix.replace('_', '-')}")
    blob.machines = frozenset(machines)
    for match in _DEFINITION.finditer(text):
        body = _braced(text, match.end() - 1)
        found = _definition(match[1] or "", body, own)
        if found is not None:
            blob.definitions.append(found)
    return blob


def _braced(text: str, at: int) -> str:
    """Returns what stands between the brace at `at` and its partner."""
    depth = 0
    for m in re.compile(r"[{}]|\"(?:\\.|[^\"\\\n])*\"").finditer(text, at):
        if m[0] == "{":
            depth += 1
        elif m[0] == "}":
            depth -= 1
            if not depth:
                return text[at + 1 : m.start()]
    return text[at + 1 :]


def _items(body: str) -> Iterator[str]:
    """Returns the comma-separated items of an initializer."""
    depth, start = 0, 0
    for m in re.finditer(r"[(){}\[\],]|\"(?:\\.|[^\"\\\n])*\"", body):
        if m[0] in "({[":
            depth += 1
        elif m[0] in ")}]":
            depth -= 1
        elif m[0] == "," and not depth:
            yield body[start : m.start()].strip()
            start = m.end()
    rest = body[start:].strip()
    if rest:
        yield rest


def _unconditional(body: str) -> str:
    """Returns the text that stands under no #if."""
    out, depth = [], 0
    for line in body.splitlines():
        word = re.match(r"\s*#\s*(\w+)", line)
        if word is None:
            out.append(line if not depth else "")
        elif word[1].startswith("if"):
            depth += 1
        elif word[1] == "endif":
            depth -= 1
    return "\n".join(out)


def _definition(symbol: str, body: str, own: dict[str, str | None]) -> Definition | None:
    parts: dict[str, str] = {}
    complete = True
    for item in _items(_DIRECTIVE.sub("", body)):
        m = re.match(r"\.(\w+)\s*=\s*(.*)", item, re.DOTALL)
        if m:
            complete &= m[1] not in parts
            parts[m[1]] = m[2].strip()
    always = _unconditional(body)
    name = parts.get("name", "")
    literal = re.fullmatch(r"\"([^\"]*)\"", name)
    if literal is None and not re.fullmatch(r"\w+", name):
        return None
    version = parts.get("version_id", "0")
    number = int(version, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", version) else None
    fields: list[FieldFact] = []
    listed = re.match(r"\(\s*(?:const\s+)?VMStateField\s*\[\s*\]\s*\)\s*\{", parts.get("fields", ""))
    if listed is not None:
        for item in _items(_braced(parts["fields"], listed.end() - 1)):
            fact, understood = _field(item, own)
            complete &= understood
            if fact is not None:
                fields.append(fact._replace(always=fact.always and item in always))
    elif parts.get("fields", "NULL") != "NULL" or "fields" not in parts:
        complete = False
    return Definition(symbol, literal[1] if literal else name, literal is not None, number, tuple(fields), complete)


def _field(item: str, own: dict[str, str | None]) -> tuple[FieldFact | None, bool]:
    """Returns the field that an item stands for, and whether all that it stands for is known."""
    call = re.fullmatch(r"(VMSTATE_\w+)\s*\((.*)\)", item, re.DOTALL)
    if item == "VMSTATE_VIRTIO_DEVICE":
        return FieldFact("virtio", "", False), True
    if call is None:
        if item.startswith("{") and (m := re.search(r"\.name\s*=\s*(?:\"([^\"]*)\"|\(?stringify\(([^)]*)\))", item)):
            return FieldFact((m[1] or m[2]).strip(), "", False), True
        return None, item.strip() in ("{}", "{0}", "{ 0 }")
    macro = call[1].removeprefix("VMSTATE_")
    if macro == "END_OF_LIST":
        return None, True
    if own.get(call[1], "") is None:
        return None, False
    args = [re.sub(r"\s+", " ", a) for a in _items(call[2])]
    if macro.startswith("UNUSED"):
        return FieldFact("unused", "", False), True
    if macro == "WITH_TMP" or macro == "WITH_TMP_TEST":
        return FieldFact("tmp", "", False), True
    if macro.startswith("VALIDATE"):
        return FieldFact(args[0].strip('"'), "", False), True
    # stringify() spells a name's macros out: what they stand for is not followed here.
    if len(args) < 2 or re.search(r"[()]|\[\s*[A-Z_]", args[0]):
        return None, False
    typed = _TYPE.fullmatch(macro)
    type_ = ""
    if typed:
        type_ = typed[1].lower().removesuffix("_ptr")
        if typed[2]:  # the unsigned 64-bit one has changed its name: not told apart here
            type_ = f"{type_} equal" if not type_.endswith("64") else ""
    return FieldFact(args[0], own.get(call[1], type_) or "", bool(_ALWAYS.fullmatch(macro))), True


class ReleaseSource(NamedTuple):
    """All that one release's source holds."""

    release: str
    definitions: list[tuple[str, Definition]]  # name resolved
    literals: set[str]
    infos: set[str]
    machines: set[str]
    pasted: tuple[str, ...]  # what names start with that no literal spells whole


def sources(repos: Iterable[Path]) -> Iterator[tuple[str, Repo, str]]:
    """Yields (release x.y, repository, revision) of every release and stable release since the first that is known.

    From tags; where there are none, from the commits that set the file VERSION.
    """
    found: dict[str, tuple[Repo, str]] = {}
    for repo in map(Repo, repos):
        for release, revision in {**repo.version_commits, **repo.tags}.items():
            found.setdefault(release, (repo, revision))
    for release, (repo, revision) in sorted(found.items(), key=lambda item: ReleaseName(item[0])):
        series = ReleaseName(release).series
        if series in _RELEASES.series:
            yield series, repo, revision


def releases(repos: Iterable[Path]) -> Iterator[ReleaseSource]:
    """Reads all releases there are; a file that several share is read once."""
    seen: dict[str, Blob] = {}
    for release, repo, revision in tqdm(list(sources(repos)), desc="releases", unit="release"):
        blobs: dict[str, str] = {}
        for path, blob in repo.blobs(revision, []).items():
            if path.endswith((".c", ".h", ".inc")) and not _SKIPPED.match(path):
                target = _TARGET.match(path)
                blobs[blob] = f"{target[1]}:" if target else ""
                if blob not in seen:
                    seen[blob] = read((repo.content(blob) or b"").decode("latin-1"))
        yield _release(release, [(seen[b], target) for b, target in blobs.items()])


def _release(release: str, found: list[tuple[Blob, str]]) -> ReleaseSource:
    blobs = [blob for blob, _ in found]
    texts: dict[str, set[str]] = collections.defaultdict(set)
    for blob in blobs:
        for name, text in blob.texts.items():
            texts[name].add(text)
    definitions = []
    for blob, target in found:
        for d in blob.definitions:
            here = replace(d, symbol=target + d.symbol)  # targets use one symbol for things of their own
            definitions += [(n, here) for n in ({d.name} if d.literal else texts.get(d.name, ()))]
    return ReleaseSource(
        release,
        definitions,
        set().union(*(b.literals for b in blobs)),
        set().union(*(b.infos for b in blobs)),
        set().union(*(b.machines for b in blobs)),
        tuple(sorted({p for b in blobs for p in b.pasted})),
    )


# -- facts ------------------------------------------------------------------------------------------------------


def write(read: Iterable[ReleaseSource], folder: Path) -> None:
    """Writes `descriptions.csv` and `machines.csv` of `data/fingerprint`."""
    found = list(read)
    folder.mkdir(parents=True, exist_ok=True)
    with new_text_file(folder / "descriptions.csv", overwrite=True) as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("vmsd", "symbol", "kind", "what", "releases"))
        for *key, bits in sorted(_description_rows(found), key=lambda row: row[:4]):
            out.writerow((*key, _RELEASES.runs(bits)))
    with new_text_file(folder / "machines.csv", overwrite=True) as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("machine", "releases"))
        for machine, bits in sorted(_machine_bits(found).items()):
            out.writerow((machine, _RELEASES.runs(bits)))


def _still(bits: int) -> int:
    """Returns a set of releases with all later ones, if the newest source is in it: nothing says that they lack it."""
    return bits | _RELEASES.unread if bits & _RELEASES.bit[_RELEASES.newest_read] else bits


def _bits(found: Iterable[ReleaseSource]) -> int:
    return _still(functools.reduce(operator.or_, (_RELEASES.span(r.release, r.release) for r in found), 0))


def _machine_bits(found: list[ReleaseSource]) -> dict[str, int]:
    every = set().union(*(r.machines for r in found))
    bits: dict[str, int] = {}
    for machine in every:
        if machine.endswith("-") or re.fullmatch(r"v?\d+[._]\d+", machine):
            continue
        numbered = re.search(r"-\d+\.\d+(-sxxm)?$", machine)
        # A name without a number is looked for as text too: it is defined in more ways than are read here.
        bits[machine] = _bits(r for r in found if machine in r.machines or (not numbered and machine in r.literals))
    return bits


def _description_rows(found: list[ReleaseSource]) -> Iterator[tuple[str, str, str, str, int]]:
    # (vmsd, symbol) -> release -> its definitions there
    table: dict[tuple[str, str], dict[str, list[Definition]]] = collections.defaultdict(
        lambda: collections.defaultdict(list)
    )
    for release in found:
        for name, definition in release.definitions:
            table[name, definition.symbol][release.release].append(definition)
    symbols = collections.Counter(vmsd for vmsd, _ in table)
    occurs: dict[str, int] = collections.defaultdict(int)
    for release in found:
        here = release.literals | {name for name, _ in release.definitions}
        for vmsd in symbols:
            if vmsd in here or vmsd.startswith(release.pasted):
                occurs[vmsd] |= _RELEASES.span(release.release, release.release)
    for vmsd, bits in occurs.items():
        yield vmsd, "", "name", "", _still(bits)
    for (vmsd, symbol), by_release in table.items():
        yield from ((vmsd, symbol, *row) for row in _rows_of(by_release, alone=symbols[vmsd] == 1))
    for info in set().union(*(r.infos for r in found)):
        bits = _bits(r for r in found if info in r.literals)
        if bits != _RELEASES.all:
            yield "", "", "info", info, bits


def _rows_of(by_release: dict[str, list[Definition]], alone: bool) -> Iterator[tuple[str, str, int]]:
    exists = open_ = 0
    versions: dict[str, int] = collections.defaultdict(int)
    fields: dict[str, int] = collections.defaultdict(int)
    always: dict[str, int] = collections.defaultdict(int)
    types: dict[tuple[str, str], int] = collections.defaultdict(int)
    for release, definitions in by_release.items():
        bit = _RELEASES.span(release, release)
        exists |= bit
        if not all(d.complete for d in definitions):
            open_ |= bit
        for d in definitions:
            versions["?" if d.version is None else str(d.version)] |= bit
            for f in d.fields:
                fields[f.name] |= bit
                types[f.name, f.type or "?"] |= bit
        each = [{f.name for f in d.fields if f.always} for d in definitions]
        for name in set.intersection(*each):
            always[name] |= bit
    yield "defined", "", _still(exists)
    if open_:
        yield "open", "", _still(open_)
    unknown = versions.pop("?", 0)
    for version, bits in versions.items():
        yield "version", version, _still(bits)
    if unknown:
        yield "version", "?", _still(unknown)
    for name, bits in fields.items():
        may = _still(bits | open_ & exists)
        if not alone or may != _still(exists):
            yield "field", name, may
    for name, bits in always.items():
        if not alone or bits != exists:
            yield "always", name, bits
    kinds: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for (name, type_), bits in types.items():
        kinds[name][type_] = bits
    for name, by_type in kinds.items():
        if len(by_type) > 1:
            unknown = by_type.pop("?", 0)
            for type_, bits in by_type.items():
                yield "type", f"{name}:{type_}", _still(bits)
            yield "type", f"{name}:?", _still(unknown | open_)
