"""How the VMState descriptions of QEMU's devices changed from release to release, and what that does to a migration.

From the tables in `data/source`, which name the file and the symbol of each description.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import source
from vmstate_tools.facts.tables import Row

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
    list_needed: tuple[str, ...] = ()
    """For each subsection, the function that the list itself names (until 2.3)."""
    unmigratable: bool = False


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
    gates : the functions that say whether a field or subsection that came or went is in a stream.
    certain : all that differs is bytes that are always there; else a part of it is behind a test or a device's own
        code writes it.
    travels : both forms are in streams; a description that is unmigratable stops the migration instead.
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
    gates: tuple[str, ...] = ()
    certain: bool = False
    travels: bool = True

    @property
    def broken(self) -> bool:
        """Tells whether streams stopped to load, at least in one direction, though the version is the same."""
        return self.travels and self.same_version and REFUSED in (self.forward, self.back)


def forms() -> dict[str, list[Form]]:
    """Returns every form of every description that has a name, by name, oldest first.

    Raises
    ------
    CatalogError : the tables are missing.
    """
    return {name: forms_of(name) for name in sorted(source.by("descriptions", "name").names()) if name}


@cache
def forms_of(name: str) -> list[Form]:
    """Returns every form of the descriptions of a name, oldest first; [] where none has it.

    Raises
    ------
    CatalogError : the tables are missing.
    """
    found = [_read(row["description"]) for row in source.by("descriptions", "name").get(name)]
    return sorted(found, key=lambda form: source.place(form.since))


@cache
def _read(number: str) -> Form:
    (row,) = source.by("descriptions", "description").get(number)
    subsections = source.by("subsections", "description").get(number)
    return Form(
        row["name"],
        row["file"],
        row["symbol"],
        row["targets"],
        row["since"],
        row["until"],
        int(row["version"] or 0),
        int(row["minimum"] or 0),
        row["needed"],
        tuple(source.by("fields", "description").get(number)),
        tuple(sub["symbol"] for sub in subsections),
        tuple(sub["needed"] for sub in subsections),
        bool(row["unmigratable"]),
    )


@cache
def _of_symbol(symbol: str) -> list[Form]:
    return [_read(row["description"]) for row in source.by("descriptions", "symbol").get(symbol)]


def described_by(word: str, needs: bool = True) -> list[str]:
    """Returns the names of the descriptions that a word means: the one of that name, or all of a device type.

    Those of its subsections and of the structs in it that stand in the same file come behind it.

    Parameters
    ----------
    needs : a word that means none is an error; else it gives [].

    Raises
    ------
    CatalogError : nothing has that name.
    """
    names = [word] if word and forms_of(word) else _of_type(word)
    if not names and needs:
        first, last = source.releases()[0], source.releases()[-1]
        raise CatalogError(f"no description or device type is called {word!r} in {first} to {last}")
    for name in names:
        for form in forms_of(name):
            inner = [*form.subsections, *(f["vmsd"] for f in form.fields if f["vmsd"])]
            found = [each.name for symbol in inner for each in _of_symbol(symbol) if each.file == form.file]
            names += [each for each in dict.fromkeys(found) if each and each not in names]
    return names


def _of_type(name: str) -> list[str]:
    seen: set[str] = set()
    types = source.by("types", "name")
    while name in types and name not in seen:
        seen.add(name)
        found: list[str] = []
        for row in types.get(name):
            for symbol in filter(None, (row["vmsd"], row["virtio_vmsd"])):
                known = _of_symbol(symbol)
                found += [form.name for form in [f for f in known if f.file == row["file"]] or known]
        if any(found):
            return list(dict.fromkeys(f for f in found if f))
        name = types.get(name)[-1]["parent"]
    return []


def changes(name: str | None = None) -> Iterator[Change]:
    """Yields every step at which a description changed, with this name or of all, in order of name and release.

    A description that moves to another file keeps its symbol, and one whose symbol changes keeps its name: one that
    goes and one that comes at the same release under the same symbol, or alone under the same name, are the same.

    Raises
    ------
    CatalogError : no description has that name.
    """
    if name is not None and not (name and forms_of(name)):
        first, last = source.releases()[0], source.releases()[-1]
        raise CatalogError(f"no description is called {name!r} in the releases {first} to {last}")
    for known in [forms_of(name)] if name is not None else forms().values():
        for new in known:
            at = source.place(new.since)
            before = source.releases()[at - 1] if at else ""
            for old in _before(new, known, before) if before else ():
                change = _change(old, new, before)
                if change is not None:
                    yield change


def _before(new: Form, known: list[Form], before: str) -> list[Form]:
    """Returns the forms that ended with the release before and that a new form stands in the place of."""
    ended = [f for f in known if f.until == before and _share(f.targets, new.targets)]
    same = [f for f in ended if f.symbol == new.symbol]
    exact = [f for f in same if f.targets == new.targets]
    if exact or same:
        return exact if len(exact) == 1 else same if len(same) == 1 or not exact else []
    went_on = {f.symbol for f in known if f.since == new.since}
    renamed = [f for f in ended if f.symbol not in went_on]
    return renamed if len(renamed) == 1 else []


def _share(one: str, other: str) -> bool:
    return not one or not other or bool(set(one.split()) & set(other.split()))


def _change(old: Form, new: Form, before: str) -> Change | None:
    what = list(_differences(old, new))
    if not what:
        return None
    forward = REFUSED if old.version < new.minimum else _fits(old, new, old.version)
    back = REFUSED if new.version > old.version else _fits(new, old, new.version)
    theirs, mine = _subsections(old), _subsections(new)
    # A subsection that the reader does not know is an error, one that is not there is none.
    forward = _worse(forward, [needed for name, needed in theirs.items() if name not in mine])
    back = _worse(back, [needed for name, needed in mine.items() if name not in theirs])
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
        _gates(old, new),
        _is_certain(old, new),
        not (old.unmigratable or new.unmigratable),
    )


def _is_certain(old: Form, new: Form) -> bool:
    """Tells whether all that two forms do not share is bytes that are always there, and subsections always sent."""
    one, other = (_layout(form, form.version, _DEPTH) for form in (old, new))
    if one == other:
        return True
    while one and other and one[0] == other[0]:
        one, other = one[1:], other[1:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    return all(piece[:2] == ("bytes", "") for piece in one + other)


def _subsections(form: Form) -> dict[str, str]:
    """Returns the subsections of a form by name, each with the function that says whether it is sent, '' for always."""
    found = {}
    for at, symbol in enumerate(form.subsections):
        inner = _form(symbol, form)
        needed = form.list_needed[at] if at < len(form.list_needed) else ""
        # A description that was not found may have any function.
        found[inner.name if inner else symbol] = needed or (inner.needed if inner else "not known")
    return found


def _worse(verdict: str, sent: list[str]) -> str:
    """Returns a verdict, given the functions of the subsections that the reader does not know."""
    if verdict == REFUSED or "" in sent:
        return REFUSED
    return DEPENDS if sent and verdict == LOADS else verdict


def _gates(old: Form, new: Form) -> tuple[str, ...]:
    theirs, mine = ({_shown(f): f["test"] for f in form.fields} for form in (old, new))
    tests = [test for shown, test in (theirs | mine).items() if (shown in theirs) != (shown in mine)]
    subs, more = _subsections(old), _subsections(new)
    tests += [needed for name, needed in (subs | more).items() if (name in subs) != (name in more)]
    return tuple(dict.fromkeys(test for test in tests if test))


def _differences(old: Form, new: Form) -> Iterator[str]:
    for what, a, b in (("version", old.version, new.version), ("minimum version", old.minimum, new.minimum)):
        if a != b:
            yield f"{what} {a} → {b}"
    if old.needed != new.needed:
        yield f"needed {old.needed or 'always'} → {new.needed or 'always'}"
    if old.unmigratable != new.unmigratable:
        yield "unmigratable" if new.unmigratable else "no longer unmigratable"
    theirs, mine = ([_shown(f) for f in form.fields] for form in (old, new))
    gone = [f for f in theirs if f not in mine]
    come = [f for f in mine if f not in theirs]
    yield from (f"- {f}" for f in gone)
    yield from (f"+ {f}" for f in come)
    if not gone and not come and theirs != mine:
        yield "fields in another order"
    subs, more = _subsections(old), _subsections(new)
    for sign, some, known in (("-", subs, more), ("+", more, subs)):
        for name, needed in some.items():
            if name not in known:
                yield f"{sign} subsection {name}" + (f" if {needed}" if needed else "")


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
    """Tells whether a section of one form, at a version, is laid out as another form reads it."""
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
    """Tells whether two layouts are the same for some choice of the pieces that stand behind a test.

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
            last = found[-1] if found else ("", "", "", "")
            # An array is its elements one after another; of pieces behind a test, each may be there or not.
            if last[:2] == piece[:2] and (piece[0] == "bytes" or last[3] == piece[3] == piece[1] == ""):
                found[-1] = (*piece[:2], str(int(found[-1][2]) + int(piece[2])), "")
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
    at = source.place(by.since)
    found = [
        form for form in _of_symbol(symbol)
        if source.place(form.since) <= at and (not form.until or at <= source.place(form.until))
    ]  # fmt: skip
    near = [f for f in found if f.file == by.file] or found
    return next((f for f in near if f.targets == by.targets), near[0] if near else None)


def _struct_name(field: Row) -> str:
    """Returns the name of the description of a struct: its symbol changes more often."""
    found = _of_symbol(field["vmsd"])
    return found[-1].name if found else field["vmsd"] or field["info"]
