"""A revision of QEMU's source as one target is compiled from it: every file's view, and what a name means where."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vmstate_tools.qemu_source.macros import closing, definition, expand, tokenize
from vmstate_tools.qemu_source.views import SourceFile, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.macros import Macro
    from vmstate_tools.qemu_source.revision import Revision
    from vmstate_tools.qemu_source.targets import Target
    from vmstate_tools.qemu_source.views import Chunk, View

#: Checks that the compiler makes and that are worth nothing to a reader (0), and macros of the host's headers.
_REPLACED = {
    m.name: m
    for m in map(
        definition,
        (
            "QEMU_BUILD_BUG_ON_ZERO(x) 0",
            "QEMU_BUILD_BUG_ON(x)",
            "QEMU_BUILD_BUG_MSG(x, msg)",
            "type_check(t1, t2) 0",
            "type_check_array(t1, t2, n) 0",
            "type_check_2darray(t1, t2, n, m) 0",
            "type_check_pointer(t1, t2) 0",
            "type_check_varray(t1, t2, f) 0",
            "ARRAY_SIZE(x) (sizeof(x) / sizeof((x)[0]))",
            "QEMU_PACKED __attribute__((packed))",
            "QEMU_ALIGNED(X) __attribute__((aligned(X)))",
            "G_BEGIN_DECLS",
            "G_END_DECLS",
            "G_STRINGIFY(x) #x",
            "qemu_build_not_reached() 0",
            "INTERFACE_CHECK(a, b, c) (a)",
            "INT64_C(x) x",
            "UINT64_C(x) x",
            "INT32_C(x) x",
            "UINT32_C(x) x",
            "CHAR_BIT 8",
            "INT_MAX 0x7fffffff",
            "UINT8_MAX 0xff",
            "UINT16_MAX 0xffff",
            "UINT32_MAX 0xffffffff",
            "UINT64_MAX 0xffffffffffffffff",
            "INT32_MAX 0x7fffffff",
            "INT64_MAX 0x7fffffffffffffff",
            'PRIx64 "lx"',
            'PRIu64 "lu"',
            "SIZE_MAX 0xffffffffffffffff",
            "TRUE 1",
            "FALSE 0",
            "PATH_MAX 4096",
            "IFNAMSIZ 16",
            "ETH_ALEN 6",
        ),
    )
    if m is not None
}


_USE = re.compile(r"^\s*(?:static\s+)?([A-Za-z_]\w*)[ \t]*\(", re.MULTILINE)
_QAPI_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_QAPI_ENUM = re.compile(r"\{\s*'enum'\s*:\s*'(\w+)'[^\[]*\[([^\]]*)\]")


class Files:
    """Files of all revisions that are read, by the id of their blob: a file that several share is read once."""

    def __init__(self) -> None:
        self._files: dict[str, SourceFile] = {}

    def get(self, revision: Revision, path: str) -> SourceFile:
        blob = revision.blobs[path]
        if blob not in self._files:
            self._files[blob] = SourceFile(revision.text(path))
        return self._files[blob]

    def keep(self, blobs: set[str]) -> None:
        """Forgets all files but these."""
        self._files = {blob: file for blob, file in self._files.items() if blob in blobs}


class Program:
    """A revision as one target is compiled from it; `base` is the same revision for another target."""

    def __init__(self, revision: Revision, target: Target, files: Files, base: Program | None = None) -> None:
        self.revision = revision
        self.base = base
        self.target = target
        self._files = files
        self._views: dict[str, View] = {}
        self._closures: dict[str, dict[str, None]] = {}
        self._scopes: dict[str, Scope] = {}
        self._included: dict[str, list[str]] = {}

    def view(self, path: str) -> View:
        if path not in self._views:
            self._views[path] = self._files.get(self.revision, path).view(self.target)
        return self._views[path]

    def scope(self, path: str) -> Scope:
        if path not in self._scopes:
            self._scopes[path] = Scope(self, path)
        return self._scopes[path]

    def includes(self, path: str) -> list[str]:
        """Files that a file includes itself."""
        if path not in self._included:
            found = (self.revision.include(n, path, self.target.folder) for n in self.view(path).includes)
            self._included[path] = [p for p in found if p is not None]
        return self._included[path]

    def closure(self, path: str) -> dict[str, None]:
        """Returns the files that a file includes, directly or not, in order; the file itself is the first."""
        if path not in self._closures:
            # A header relies on what every .c file includes first.
            found: dict[str, None] = {path: None, **dict.fromkeys(self.first)}
            stack = [*self.first, path]
            while stack:
                for item in self.includes(stack.pop()):
                    if item not in found:
                        found[item] = None
                        stack.append(item)
            self._closures[path] = found
        return self._closures[path]

    @cached_property
    def first(self) -> list[str]:
        """Returns the headers that every .c file includes first, by name (since 2.6) or not."""
        names = ("include/qemu/osdep.h", "include/qemu-common.h", "include/qemu/compiler.h", "osdep.h", "qemu-common.h")
        return [name for name in names if name in self.revision.blobs]

    @cached_property
    def headers(self) -> list[str]:
        """Returns all headers that may be part of this target."""
        other = ("target/", "target-")
        own = (f"target/{self.target.folder}/", f"target-{self.target.folder}/")
        return [
            p
            for p in self.revision.blobs
            if p.endswith((".h", ".inc")) and (not p.startswith(other) or p.startswith(own))
        ]

    @cached_property
    def indexed(self) -> frozenset[str]:
        """Returns the headers, as a set."""
        return frozenset(self.headers)

    @cached_property
    def macros(self) -> Index:
        """Returns name → the headers that define it as a macro."""
        return Index(self, "macros", self.base)

    @cached_property
    def tags(self) -> Index:
        return Index(self, "tags", self.base)

    @cached_property
    def typedefs(self) -> Index:
        return Index(self, "typedefs", self.base)

    @cached_property
    def enumerators(self) -> Index:
        return Index(self, "enumerators", self.base)

    @cached_property
    def functions(self) -> dict[str, str]:
        """Returns name of a function of a device or machine → a file under hw/ that defines it."""
        found: dict[str, str] = {}
        for path in self.revision.blobs:
            if (
                path.startswith("hw/")
                and path.endswith(".c")
                and "TypeInfo" in self._files.get(self.revision, path).text
            ):
                for name in self.view(path).functions:
                    found.setdefault(name, path)
        return found

    @cached_property
    def qapi_enums(self) -> dict[str, list[str]]:
        """Returns enum of QAPI's schema, of which the build makes a header → its values."""
        found: dict[str, list[str]] = {}
        for path in self.revision.blobs:
            if path.endswith(".json") and (path.startswith("qapi/") or "/" not in path):
                text = _QAPI_COMMENT.sub("", self.revision.text(path))
                for name, values in _QAPI_ENUM.findall(text):
                    found[name] = re.findall(
                        r"'([\w-]+)'(?!\s*:)", re.sub(r"'(?:if|features)'\s*:\s*[^,}]*", "", values)
                    )
        return found

    @cached_property
    def qapi_enumerators(self) -> dict[str, int]:
        """Returns the constants that the build makes of QAPI's enums (c_enum_const in scripts/qapi) → value."""
        found: dict[str, int] = {}
        for name, values in self.qapi_enums.items():
            prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()
            for number, value in enumerate([*values, "_MAX"]):
                found[f"{prefix}_{value.replace('-', '_').upper()}"] = number
        return found


class Index:
    """An Index has name → the headers that say something of it, for one target.

    Most headers are the same for all targets: what another target's index holds of them serves here too.
    """

    def __init__(self, program: Program, kind: str, base: Program | None) -> None:
        self._own: dict[Any, list[str]] = {}
        self._base = getattr(base, kind) if base is not None else None
        common = set()
        for path in program.headers:
            view = program.view(path)
            if base is not None and path in base.indexed and base.view(path) is view:
                common.add(path)
                continue
            for name in getattr(view, "own" if kind == "macros" else kind):
                self._own.setdefault(name, []).append(path)
        self._common = common

    def get(self, name: Any, default: Any = ()) -> list[str]:
        """Returns the headers, in order."""
        own = self._own.get(name, [])
        if self._base is None:
            return own
        return [p for p in self._base.get(name) if p in self._common] + own


class Scope:
    """What names mean in one file: what it says itself, then what it includes, then what only one header says."""

    def __init__(self, program: Program, path: str) -> None:
        self.program = program
        self.path = path
        self.view = program.view(path)
        self._macros: dict[str, Macro | None] = {}
        #: What a reader found in the file and another asks for too, by the reader's name.
        self.found: dict[str, list[Any]] = {}

    def visible(self, index: Index, name: object) -> Iterator[str]:
        """Files that say what a name is, the nearest first; `index` lists headers by name."""
        paths = index.get(name)
        closure = self.program.closure(self.path)
        yield from (p for p in paths if p in closure)
        yield from (p for p in paths if p not in closure)

    def macro(self, name: str, place: int | None = None) -> Macro | None:
        """Returns the macro a name stands for at a place of the file (by default its end)."""
        if name in _REPLACED:
            return _REPLACED[name]
        if name in self.view.own:
            said, macro = self.view.macro(name, len(self.view.text) if place is None else place)
            if said:
                return macro
        if name not in self._macros:
            self._macros[name] = self._included(name)
        return self._macros[name]

    def _included(self, name: str) -> Macro | None:
        configured = self.program.target.value(name)
        if configured is not None:
            return definition(f"{name} {configured}")
        closure = self.program.closure(self.path)
        for path in self.program.macros.get(name):
            if path in closure:
                view = self.program.view(path)
                macro = view.own[name][-1][1]
                if macro is not None:
                    return macro
        # A file that is included may be a .c file.
        for path in self._included_sources:
            if name in self.program.view(path).own:
                return self.program.view(path).own[name][-1][1]
        return None

    @cached_property
    def _included_sources(self) -> list[str]:
        return [p for p in self.program.closure(self.path) if p.endswith(".c") and p != self.path]

    def expand(self, tokens: list[str], place: int | None = None) -> list[str]:
        return expand(tokens, lambda name: self.macro(name, place))

    @cached_property
    def made(self) -> list[tuple[int, str]]:
        """Returns what the file's uses of macros at file scope stand for: (line, text)."""
        found: list[tuple[int, str]] = []
        for chunk in self.view.chunks:
            source = self.view.slice(chunk)  # a function too: a use without a semicolon may stand before it
            for call in _USE.finditer(source[:2000] if chunk.kind == "other" else source[: chunk.body - chunk.start]):
                macro = self.macro(call[1], chunk.start)
                if macro is None or macro.params is None or macro.name in _REPLACED:
                    continue
                end = closing(source, call.end() - 1)
                if end:
                    made = "".join(self.expand(tokenize(source[call.start(1) : end]), chunk.start))
                    found.append((self.view.line(chunk.start + call.start(1)), made))
        return found

    def function(self, name: str) -> tuple[Scope, str, int] | None:
        """Finds a function's text: in the file, in what its macros make, or in another device's file.

        Returns the scope it is in, its text and its place there.
        """
        chunk = self.view.functions.get(name)
        if chunk is not None:
            return self, self.view.slice(chunk), chunk.start
        if name in self._made_functions:
            return self, self._made_functions[name], len(self.view.text)
        elsewhere = self.program.functions.get(name)
        return self.program.scope(elsewhere).function(name) if elsewhere not in (None, self.path) else None

    @cached_property
    def _made_functions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for _, made in self.made:
            found.update({c.name: made[c.start : c.end] for c in chunks(made) if c.kind == "function"})
        return found

    def tokens(self, chunk: Chunk) -> list[str]:
        """Returns the tokens of a declaration, macros expanded."""
        return self.expand(tokenize(self.view.slice(chunk)), chunk.start)
