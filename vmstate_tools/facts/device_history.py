"""How the VMState descriptions of QEMU's devices changed from release to release, and what that does to a migration.

From the tables in `data/source`, which name the file and the symbol of each description.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts.tables import Row, rows
from vmstate_tools.release import Release

#: Bytes of one element in a stream, for the types that are alike in memory and in a stream.
_BYTES = {
    **{
        f"{sign}int{bits}{more}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64) for more in ("", " equal")
    },
    "bool": 1,
    "timer": 8,
    "float64": 8,
    "int32 le": 4,
}

Piece = tuple[str, str, str, str]
Layout = list[Piece]
LOADS, REFUSED, DEPENDS, UNKNOWN = "loads", "refused", "depends", "unknown"
#: Most bytes that an element of a device's own type is taken to have.
_ELEMENT = 256
#: Arrays of structs up to this long are laid out element by element, and structs up to this deep.
_UNROLLED, _DEPTH = 8, 6


@dataclass(frozen=True)
class Form:
    """A description as one or more successive releases have it."""

    name: str
    file: str
    symbol: str
    targets: str
    since: str
    until: str
    version: int
    minimum: int
    needed: str
    fields: tuple[Row, ...]
    subsections: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """A step at which a description changed.

    Attributes
    ----------
    release : the first release x.y.0 that has the new form; `before` is the one before it.
    what : the changes, in words.
    forward, back : whether a section of the old form loads in the new release, and of the new form in the old one:
        loads, refused, depends (on test functions, and with them often on the machine type), or unknown (a device's
        own code writes a part whose bytes the tables do not have).
    same_version : the section's version did not change, so that nothing but its bytes tells the two forms apart.
    """

    name: str
    file: str
    symbol: str
    targets: str
    before: str
    release: str
    what: tuple[str, ...]
    forward: str
    back: str
    same_version: bool

    @property
    def broken(self) -> bool:
        """Whether streams stopped to load, at least in one direction, though the version is the same."""
        return self.same_version and REFUSED in (self.forward, self.back)


@cache
def forms() -> dict[str, list[Form]]:
    """Returns every form of every description, by name, oldest first.

    Raises
    ------
    CatalogError : the tables are missing.
    """
    fields: dict[str, list[Row]] = {}
    for row in rows("source", "fields"):
        fields.setdefault(row["description"], []).append(row)
    subsections: dict[str, list[str]] = {}
    for row in rows("source", "subsections"):
        subsections.setdefault(row["description"], []).append(row["symbol"])
    found: dict[str, list[Form]] = {}
    for row in rows("source", "descriptions"):
        key = row["description"]
        form = Form(
            row["name"],
            row["file"],
            row["symbol"],
            row["targets"],
            row["since"],
            row["until"],
            int(row["version"] or 0),
            int(row["minimum"] or 0),
            row["needed"],
            tuple(fields.get(key, ())),
            tuple(subsections.get(key, ())),
        )
        found.setdefault(form.name, []).append(form)
    for each in found.values():
        each.sort(key=lambda form: Release(form.since))
    return found


def described_by(word: str) -> list[str]:
    """Returns the names of the descriptions that a word means: of that name, or those of a device type.

    Those of its subsections and of the structs in it that stand in the same file come behind it.

    Raises
    ------
    CatalogError : nothing has that name.
    """
    names = [word] if word in forms() else _of_type(word)
    if not names:
        raise CatalogError(f"no description or device type is called {word!r} in {_releases()[0]} to {_releases()[-1]}")
    by_symbol: dict[tuple[str, str], str] = {
        (form.file, form.symbol): form.name for each in forms().values() for form in each
    }
    for name in names:
        for form in forms()[name]:
            inner = [*form.subsections, *(f["vmsd"] for f in form.fields if f["vmsd"])]
            found = [by_symbol[form.file, symbol] for symbol in inner if (form.file, symbol) in by_symbol]
            names += [each for each in dict.fromkeys(found) if each and each not in names]
    return names


def _of_type(name: str) -> list[str]:
    types: dict[str, list[Row]] = {}
    for row in rows("source", "types"):
        types.setdefault(row["name"], []).append(row)
    symbols = {(form.file, form.symbol): form.name for each in forms().values() for form in each}
    anywhere = {form.symbol: form.name for each in forms().values() for form in each}
    seen: set[str] = set()
    while name in types and name not in seen:
        seen.add(name)
        vmsd = [(row["file"], row[column]) for row in types[name] for column in ("vmsd", "virtio_vmsd") if row[column]]
        found = [symbols.get(key) or anywhere.get(key[1], "") for key in vmsd]
        if any(found):
            return list(dict.fromkeys(f for f in found if f))
        name = types[name][-1]["parent"]
    return []


@cache
def _releases() -> tuple[str, ...]:
    return tuple(row["release"] for row in rows("source", "releases"))


def changes(name: str | None = None) -> Iterator[Change]:
    """Yields every step at which a description changed, of one name or of all, in order of name and release.

    A description that moves to another file keeps its symbol; one that goes and one that comes at the same release
    under the same symbol are the same.

    Raises
    ------
    CatalogError : no description has that name.
    """
    if name is not None and name not in forms():
        raise CatalogError(f"no description is called {name!r} in the releases {_releases()[0]} to {_releases()[-1]}")
    for each in [name] if name is not None else sorted(n for n in forms() if n):
        known = forms()[each]
        for new in known:
            at = _releases().index(new.since)
            before = _releases()[at - 1] if at else ""
            old = [
                f for f in known if f.until == before and (f.symbol, f.targets) == (new.symbol, new.targets) and before
            ]
            if len(old) == 1:
                change = _change(old[0], new, before)
                if change is not None:
                    yield change


def _change(old: Form, new: Form, before: str) -> Change | None:
    what = list(_differences(old, new))
    if not what:
        return None
    forward = REFUSED if old.version < new.minimum else _fits(old, new, old.version)
    back = REFUSED if new.version > old.version else _fits(new, old, new.version)
    return Change(
        new.name,
        new.file,
        new.symbol,
        new.targets,
        before,
        new.since,
        tuple(what),
        forward,
        back,
        old.version == new.version,
    )


def _differences(old: Form, new: Form) -> Iterator[str]:
    for what, a, b in (("version", old.version, new.version), ("minimum version", old.minimum, new.minimum)):
        if a != b:
            yield f"{what} {a} → {b}"
    theirs, mine = ([_shown(f) for f in form.fields] for form in (old, new))
    gone = [f for f in theirs if f not in mine]
    come = [f for f in mine if f not in theirs]
    yield from (f"- {f}" for f in gone)
    yield from (f"+ {f}" for f in come)
    if not gone and not come and theirs != mine:
        yield "fields in another order"
    yield from (f"- subsection {s}" for s in old.subsections if s not in new.subsections)
    yield from (f"+ subsection {s}" for s in new.subsections if s not in old.subsections)


def _shown(field: Row) -> str:
    kind = field["type"] or field["vmsd"] or field["info"]
    kind = _struct_name(field) if kind in ("struct", field["vmsd"]) and kind else kind
    number = f"[{field['num_member'] or field['num']}]" if field["num_member"] or field["num"] not in ("", "0") else ""
    size = f" of {field['size']} bytes" if "buffer" in kind and field["size"] not in ("", "0") else ""
    gate = (f" if {field['test']}" if field["test"] else "") + (
        f" since version {field['version']}" if field["version"] not in ("", "0") else ""
    )
    return f"{field['name']}: {kind}{number}{size}{gate}"


def _fits(sent: Form, read: Form, version: int) -> str:
    """Whether a section of one form, at a version, is laid out as another form reads it."""
    # A struct that both name alike changes in its own right.
    one, other = (_layout(form, version, _DEPTH) for form in (sent, read))
    if one == other:
        return LOADS
    if _may_agree(one, other, exact=True):
        return DEPENDS
    one, other = (_layout(form, version) for form in (sent, read))
    if one == other:
        return LOADS
    if _may_agree(one, other, exact=True):
        return DEPENDS  # with some answers of the test functions the two are alike
    return UNKNOWN if _may_agree(one, other, exact=False) else REFUSED


def _may_agree(one: Layout, other: Layout, exact: bool) -> bool:
    """Whether two layouts are the same for some choice of the pieces that stand behind a test.

    Not `exact`: a piece of a type of a device's own may be any other piece, as its bytes are not known.
    """
    pieces, budget = (one, other), [20_000]

    def rest(at: tuple[int, int], used: tuple[int, int]) -> bool:
        budget[0] -= 1
        if budget[0] < 0:
            return True  # too many ways: nothing is said against it
        mine, theirs = (p[i] if i < len(p) else None for p, i in zip(pieces, at, strict=True))
        if mine is None and theirs is None:
            return True
        for side, piece in enumerate((mine, theirs)):
            if piece is not None and piece[1] == "test" and not used[side]:
                skipped = (at[0] + 1, at[1]) if side == 0 else (at[0], at[1] + 1)
                if step(skipped, used):
                    return True
        if mine is None or theirs is None:
            return False
        if mine[0] == theirs[0] == "bytes":
            left = int(mine[2]) - used[0], int(theirs[2]) - used[1]
            taken = min(left)
            after = tuple(0 if n == taken else u + taken for n, u in zip(left, used, strict=True))
            return step((at[0] + (left[0] == taken), at[1] + (left[1] == taken)), (after[0], after[1]))
        alike = (mine[0], *mine[2:]) == (theirs[0], *theirs[2:])
        if alike or exact or not any(_own(piece[0]) for piece in (mine, theirs)):
            return alike and step((at[0] + 1, at[1] + 1), (0, 0))
        return any(step(*after) for after in _taken(mine, theirs, at, used))

    step = cache(rest)
    return step((0, 0), (0, 0))


def _taken(
    mine: Piece, theirs: Piece, at: tuple[int, int], used: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yields where two layouts may go on behind a piece of a device's own type, whose bytes are not known."""
    if "bytes" not in (mine[0], theirs[0]):
        if used == (0, 0):
            yield (at[0] + 1, at[1] + 1), (0, 0)
        return
    side = 0 if mine[0] == "bytes" else 1
    plain, own = (mine, theirs) if side == 0 else (theirs, mine)
    number = int(own[2]) or 1
    last = min(int(plain[2]), used[side] + _ELEMENT * number)
    for taken in range(used[side] + number, last + 1, number):
        ends = taken == int(plain[2])
        moved = (at[0] + (1 if side else ends), at[1] + (ends if side else 1))
        rest = 0 if ends else taken
        yield moved, (rest, 0) if side == 0 else (0, rest)


def _own(kind: str) -> bool:
    return kind != "bytes" and not kind.startswith("struct ")


def _layout(form: Form, version: int, depth: int = 0) -> Layout:
    """Lays a form out as a stream has it at a version: bytes that are alike are one piece, whatever they are called.

    A piece is its kind, "test" where it is not always there, its number or bytes, and "length" where that varies.
    Structs that are there once are laid out in place.
    """
    found: Layout = []
    for field in form.fields:
        if "MUST_EXIST" in field["flags"] or int(field["version"] or 0) > version:
            continue
        test = field["test"] and "test"
        inner = _form(field["vmsd"], form) if field["type"] in ("", "struct") and field["vmsd"] else None
        number = int(field["num"] or 0) if "ARRAY" in field["flags"].split("|") else 1
        fixed = not field["num_member"] and "ARRAY_OF_POINTER" not in field["flags"]
        if inner is not None and fixed and not test and number <= _UNROLLED and depth < _DEPTH:
            pieces = _layout(inner, inner.version, depth + 1) * number
        else:
            pieces = [_piece(field, number, test, inner)]
        for piece in pieces:
            if found and found[-1][:2] == piece[:2] == ("bytes", piece[1]):
                found[-1] = ("bytes", piece[1], str(int(found[-1][2]) + int(piece[2])), "")
            else:
                found.append(piece)
    return found


def _piece(field: Row, number: int, test: str, inner: Form | None) -> Piece:
    size = _BYTES.get(field["type"], 0)
    if "buffer" in field["type"] and field["size"] and not field["size_member"]:
        size = int(field["size"])
    if size and not field["num_member"]:
        return "bytes", test, str(size * number), ""
    if field["type"] in ("", "struct") and field["vmsd"]:
        return f"struct {inner.name if inner is not None else field['vmsd']}", test, str(number), ""
    return field["type"] or field["info"], test, str(number), field["size_member"] and "length"


def _form(symbol: str, by: Form) -> Form | None:
    """Finds the description that a symbol is, in the releases of the form that names it."""
    place = _places()
    found = [
        f
        for f in _by_symbol().get(symbol, ())
        if place[f.since] <= place[by.since] and (not f.until or place[by.since] <= place[f.until])
    ]
    near = [f for f in found if f.file == by.file] or found
    return next((f for f in near if f.targets == by.targets), near[0] if near else None)


@cache
def _places() -> dict[str, int]:
    return {release: at for at, release in enumerate(_releases())}


@cache
def _by_symbol() -> dict[str, list[Form]]:
    found: dict[str, list[Form]] = {}
    for each in forms().values():
        for form in each:
            found.setdefault(form.symbol, []).append(form)
    return found


def _struct_name(field: Row) -> str:
    """Returns the name of the description of a struct: its symbol changes more often."""
    found = _by_symbol().get(field["vmsd"])
    return found[-1].name if found else field["vmsd"] or field["info"]
