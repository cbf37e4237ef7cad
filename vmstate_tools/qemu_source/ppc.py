"""What QEMU's ppc target says of its CPUs at one revision: flags, families, models, what alters the words."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.csource import (
    Evaluator,
    Macro,
    Unit,
    child,
    designated,
    prelude,
    preprocess,
    text_of,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tree_sitter import Node

    from vmstate_tools.qemu_source.git import Repo

#: qemu-system-ppc64, the configuration whose streams the catalog speaks of.
PPC64 = {
    "TARGET_PPC64": "1",
    "CONFIG_SOFTMMU": "1",
    "CONFIG_TCG": "1",
    "CONFIG_KVM": "1",
    "NEED_CPU_H": "1",
    "TARGET_LONG_BITS": "64",
    "HOST_LONG_BITS": "64",
}
#: qemu-system-ppc.
PPC32 = {name: value for name, value in PPC64.items() if name != "TARGET_PPC64"} | {"TARGET_LONG_BITS": "32"}
WORDS = ("msr_mask", "insns_flags", "insns_flags2", "nb_BATs")
FOLDERS = ("target/ppc", "target-ppc")
MACHINES = ("hw/ppc", "hw/spapr.c")
#: target-relative files: constants, then the code that uses them (a file has moved under several names).
HEADERS = ("cpu.h", "cpu-qom.h", "cpu-models.h", "cpu_init.h")
INIT = ("translate_init.c", "translate_init.inc.c", "translate_init.c.inc", "cpu_init.c")
INIT_HELPERS = ("helper_regs.c",)
MODELS = "cpu-models.c"
TRANSLATE = "translate.c"

_ASSIGNED = r"(insns_flags2?|msr_mask|nb_BATs) *[-+|&^]?=[^=]|alter_insns\("
_ALTERS = re.compile(_ASSIGNED)
#: Which code alters the words of a CPU after its family gave them, by function: everything else is an error.
_ROLES = {
    "init": r"init_proc_\w+|gen_(low|high)_BATs|register_(low|high)_BATs|gen_spr_601|register_601_sprs"
    r"|init_ppc_proc",
    "copy": r"cpu_ppc_register(_internal)?|ppc_cpu_initfn|ppc_cpu_instance_init",
    "restored": r"helper_rac",
    "tcg": r"ppc_fixup_cpu",
    "kvm": r"kvmppc_host_cpu_(def|class_init)",
    "pseries": r"ppc_spapr_init|spapr_cpu_init|cpu_ppc_set_(papr|vhyp)",
    "family": r"ppc_\w+_cpu_family_class_init|ppe42_class_common_init",
}


class Words(NamedTuple):
    """Words are the four words that a CPU starts from, as its class and init function give them."""

    msr_mask: int
    insns_flags: int
    insns_flags2: int
    nb_BATs: int  # noqa: N815 - the field's own name


class Model(NamedTuple):
    """A Model is a CPU model: its family, and the numbers in PVR and SVR."""

    family: str
    pvr: int
    svr: int


class Adjustment(NamedTuple):
    """An Adjustment is one alteration of a word under a role (tcg, kvm or pseries).

    `op`: "and" keeps the bits of value, "host" takes them from the host (KVM).
    """

    role: str
    word: str
    op: str
    value: int


@dataclass
class Facts:
    """What one revision says. Words are unsigned, as wide as 64 bits."""

    flags: dict[tuple[str, str], int] = field(default_factory=dict)
    families: dict[str, Words] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    adjustments: tuple[Adjustment, ...] = ()


#: Characters of preprocessed text cached in memory; its parse takes many times that.
_CACHED_TEXT = 20_000_000


class Tree:
    """The ppc sources of one revision, preprocessed and parsed at need; equal blobs are read once."""

    _units: dict[tuple[object, ...], Unit] = {}  # noqa: RUF012 - shared by all revisions

    def __init__(self, repo: Repo, revision: str, config: Mapping[str, str] = PPC64) -> None:
        self.repo = repo
        self.revision = revision
        self.config = config
        self.blobs = repo.blobs(revision, (*FOLDERS, *MACHINES))
        self.folder = next((f for f in FOLDERS if f"{f}/cpu.h" in self.blobs), "")
        if not self.folder:
            raise CatalogError(f"{revision}: no ppc target found")

    @cached_property
    def constants(self) -> Evaluator:
        """Returns everything that the headers and the init files name, ready to evaluate."""
        units = [self.unit(n) for n in (*HEADERS, *INIT) if self.has(n)]
        if not any("PPC_INSNS_BASE" in unit.enumerators for unit in units):
            units.append(self.unit(TRANSLATE))  # where the flags stood until 0.13
        macros: dict[str, Macro | None] = {}
        names: dict[str, tuple[Unit, Node | None, int]] = {}
        for unit in units:
            macros |= unit.macros
            names |= unit.enumerators
        return Evaluator(macros, names)

    def has(self, name: str) -> bool:
        return f"{self.folder}/{name}" in self.blobs

    def unit(self, name: str, expand: bool = True) -> Unit:
        path = f"{self.folder}/{name}"
        return self.at(path, expand)

    def at(self, path: str, expand: bool = True) -> Unit:
        """Returns a file anywhere in the tree. The macros of the target's headers are known to the target's code."""
        name = path.removeprefix(f"{self.folder}/")
        code = name != path and name not in HEADERS
        headers = tuple(self.blobs.get(f"{self.folder}/{n}") for n in HEADERS) if code and expand else ()
        text = self.repo.read(self.revision, path)
        if text is None:
            raise CatalogError(f"{self.revision}: no {path}")
        # Other files than the target's are the same in every configuration that they do not ask for.
        config = tuple(self.config.items()) if name != path or "TARGET_" in text else ()
        key = (self.repo.path, self.blobs.get(path, ""), path, config, expand, headers)
        if key in self._units:
            self._units[key] = self._units.pop(key)  # the newest in use
        else:
            macros = dict(prelude()) if expand else {}
            for header in HEADERS if code and expand else ():
                if self.has(header):
                    macros |= self.unit(header).macros
            try:
                unit = preprocess(text, path, self.config, macros, expand=expand)
            except CatalogError as error:
                raise CatalogError(f"{self.revision}: {error}") from None
            self._units[key] = unit
            while sum(len(u.text) for u in self._units.values()) > _CACHED_TEXT:
                del self._units[next(iter(self._units))]
        return self._units[key]


def read(tree: Tree) -> Facts:
    """Returns all facts of one revision.

    Raises
    ------
    CatalogError : a construct that is not understood, with revision, file and line.
    """
    return Facts(flags(tree), families(tree), *models(tree), adjustments(tree))


def families(tree: Tree) -> dict[str, Words]:
    """Returns family → the words its class and init function give a CPU. Raises CatalogError as `read`."""
    with _at_revision(tree):
        values = tree.constants
        init = _init(tree)
        functions = {name: (init, node) for name, node in init.functions.items()}
        for name in INIT_HELPERS:
            if tree.has(name):
                unit = tree.unit(name)
                functions |= {n: (unit, node) for n, node in unit.functions.items()}
        bats = _Bats(functions, values)
        table = _table(init)
        return _from_classes(init, values, bats) if table is None else _from_table(init, table, values, bats)


def models(tree: Tree) -> tuple[dict[str, Model], dict[str, str]]:
    """Models by name, and alias → model. Raises CatalogError as `read`."""
    with _at_revision(tree):
        table = _table(_init(tree))
        if table is None:
            # For some commits of the 1.5 cycle the models stood with the families.
            return _models(tree.unit(MODELS) if tree.has(MODELS) else _init(tree), tree.constants)
        return _models_from_table(_init(tree), table, tree.constants), {}


@contextmanager
def _at_revision(tree: Tree) -> Iterator[None]:
    try:
        yield
    except CatalogError as error:
        raise CatalogError(f"{tree.revision}: {error}") from None


def _init(tree: Tree) -> Unit:
    return next(tree.unit(n) for n in INIT if tree.has(n))


def _table(init: Unit) -> Node | None:
    """Returns the array of all CPU definitions, which there was until 1.4."""
    return next((n for n in init.declarations() if _declares(n, "ppc_defs")), None)


def _declares(node: Node, name: str) -> bool:
    found: Node | None = node
    while found is not None and found.type != "identifier":
        found = found.child_by_field_name("declarator")
    return found is not None and text_of(found) == name


def flags(tree: Tree) -> dict[tuple[str, str], int]:
    """Returns (word, name) → the bit. Raises CatalogError as `read`."""
    with _at_revision(tree):
        return _flags(tree.constants)


def _flags(values: Evaluator) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    _, first, _ = values.enumerators["PPC_INSNS_BASE"]
    assert first is not None and first.parent is not None and first.parent.parent is not None
    for item in first.parent.parent.named_children:  # both words share one enum
        name = text_of(child(item, "name")) if item.type == "enumerator" else ""
        match = re.match(r"PPC(2?)_", name)
        if match is not None:
            value = values.constant(name)
            if value and not value & (value - 1):  # one bit: PPC_NONE and masks are no flags
                found[f"insns_flags{match[1]}", name] = value
    for name, macro in values.macros.items():
        # Bit numbers; MSR_HVB and its like are masks.
        number = macro is not None and re.fullmatch(r"\d+|PPC_BIT_NR\(\d+\)", macro.body)
        if number and re.fullmatch(r"MSR_[A-Z]+\d*", name):
            found["msr_mask", name] = 1 << values.constant(name)
    return found


def _from_table(unit: Unit, table: Node, values: Evaluator, bats: _Bats) -> dict[str, Words]:
    """Reads families from the table until 1.4: its macro puts the family's name into the names it pastes."""
    found: dict[str, Words] = {}
    for where, family, fields in _definitions(unit, table):
        if family not in found:
            found[family] = Words(
                values.node(fields["msr_mask"], where),
                values.node(fields["insns_flags"], where),
                values.node(fields["insns_flags2"], where) if "insns_flags2" in fields else 0,
                bats.of(_target(fields["init_proc"], values), where),
            )
    return found


def _models_from_table(unit: Unit, table: Node, values: Evaluator) -> dict[str, Model]:
    return {
        values.text(fields["name"], where): Model(
            family, values.node(fields["pvr"], where), values.node(fields["svr"], where)
        )
        for where, family, fields in _definitions(unit, table)
    }


def _definitions(unit: Unit, table: Node) -> Iterator[tuple[str, str, dict[str, Node]]]:
    for entry in child(table, "value").named_children:
        if entry.type == "comment":
            continue
        where = unit.where(entry)
        if entry.type != "initializer_list" or entry.has_error:
            raise CatalogError(f"{where}: CPU definition {text_of(entry)[:60]!r} not understood")
        fields = designated(entry)
        yield where, text_of(fields["insns_flags"]).removeprefix("POWERPC_INSNS_"), fields


def _target(node: Node, values: Evaluator) -> str:
    """Returns the function that a pointer expression names, through macros that rename it."""
    name = text_of(node).lstrip("&")
    seen: set[str] = set()
    # A macro may stand for its own name, which ends its expansion.
    while name not in seen and (macro := values.macros.get(name)) is not None and macro.params is None:
        seen.add(name)
        name = macro.body
    return name


def _from_classes(unit: Unit, values: Evaluator, bats: _Bats) -> dict[str, Words]:
    """Reads families since 1.5: each has a class_init function."""
    families: dict[str, Words] = {}
    functions = unit.functions
    for name, node in functions.items():
        match = re.fullmatch(r"ppc_(\w+)_cpu_family_class_init", name)
        if match is None:
            continue
        if node.has_error:
            raise CatalogError(f"{unit.where(node)}: {name} does not parse")
        words = dict.fromkeys(WORDS, 0)
        init_proc = ""
        for target, operator, value, where in _assignments(unit, node, functions):
            if target == "pcc->init_proc":
                init_proc = _target(value, values)
            word = target.removeprefix("pcc->")
            if word in words:
                number = values.node(value, where)
                if operator not in ("=", "|="):
                    raise CatalogError(f"{where}: {target} {operator} not understood")
                words[word] = number if operator == "=" else words[word] | number
        words["nb_BATs"] = bats.of(init_proc, unit.where(node))
        families[match[1]] = Words(**words)
    for word in ("insns_flags", "msr_mask"):
        # In some commits of the 1.5 cycle each model's class still gave them.
        if not any(getattr(words, word) for words in families.values()):
            raise CatalogError(f"{unit.path}: no family gives its {word}")
    return families


def _assignments(
    unit: Unit, node: Node, functions: Mapping[str, Node] | None = None
) -> list[tuple[str, str, Node, str]]:
    """Returns (target, operator, value, where) of the assignments in a function, in order.

    With `functions`, those of the functions it hands its class to are among them.
    """
    found = []
    for item in walk(node, "assignment_expression", "call_expression"):
        if item.type == "call_expression":
            name = text_of(child(item, "function"))
            if functions and name in functions and "pcc" in text_of(child(item, "arguments")):
                found += _assignments(unit, functions[name], functions)
            continue
        left, operator, right = (child(item, n) for n in ("left", "operator", "right"))
        found.append((text_of(left), text_of(operator), right, unit.where(item)))
    return found


def _models(unit: Unit, values: Evaluator) -> tuple[dict[str, Model], dict[str, str]]:
    """Reads models since 1.5: a type per model, with its class_init, and a table of aliases."""
    classes: dict[str, dict[str, int]] = {}
    for name, node in unit.functions.items():
        if name.endswith("_class_init"):
            fields = classes.setdefault(name, {})
            for target, _, right, where in _assignments(unit, node):
                if target in ("pcc->pvr", "pcc->svr"):
                    fields[target.removeprefix("pcc->")] = values.node(right, where)
    models: dict[str, Model] = {}
    aliases: dict[str, str] = {}
    for node in unit.declarations():
        value = node.child_by_field_name("value")
        where = unit.where(node)
        if value is None or value.type != "initializer_list":
            continue
        if _declares(node, "ppc_cpu_aliases"):
            for pair in value.named_children:
                if pair.named_children[0].type == "string_literal":
                    alias, model = (values.text(part, where) for part in pair.named_children[:2])
                    aliases[alias] = model
            continue
        parts = designated(value)
        if {"name", "parent", "class_init"} <= parts.keys() and "abstract" not in parts:
            own = classes.get(text_of(parts["class_init"]), {})
            if own.keys() != {"pvr", "svr"}:
                raise CatalogError(f"{where}: {text_of(parts['class_init'])} gives no PVR and SVR")
            family = _first_literal(parts["parent"], where).removesuffix("-family-")
            models[_first_literal(parts["name"], where)] = Model(family, own["pvr"], own["svr"])
    if not models:
        raise CatalogError(f"{unit.path}: no CPU models found")
    return models, aliases


def _first_literal(node: Node, where: str) -> str:
    literal = next(walk(node, "string_literal"), None)
    if literal is None:
        raise CatalogError(f"{where}: {text_of(node)!r} has no literal")
    return text_of(literal)[1:-1]


class _Bats:
    """nb_BATs as an init function leaves it.

    The function is followed through its calls. Conditions over integer parameters are decided; one that
    cannot be decided may hold nothing that alters nb_BATs.
    """

    def __init__(self, functions: dict[str, tuple[Unit, Node]], values: Evaluator) -> None:
        self.functions = functions
        self.values = values
        self._known: dict[tuple[str, tuple[int | None, ...]], list[tuple[str, int]]] = {}
        self._relevant: dict[str, bool] = {}

    def of(self, function: str, where: str) -> int:
        if not function:
            return 0
        if function not in self.functions:
            raise CatalogError(f"{where}: init function {function} not found")
        count = 0
        for operator, value in self._call(function, ()):
            count = value if operator == "=" else count + value
        return count

    def _touches(self, function: str) -> bool:
        """Tells whether the function, or one it calls, alters nb_BATs at all."""
        if function not in self._relevant:
            self._relevant[function] = False
            body = self.functions[function][1]
            self._relevant[function] = any(
                text_of(child(a, "left")).endswith("nb_BATs") for a in walk(body, "assignment_expression")
            ) or any(self._touches(name) for name in self._calls(body))
        return self._relevant[function]

    def _calls(self, node: Node) -> list[str]:
        names = (text_of(child(c, "function")) for c in walk(node, "call_expression"))
        return [n for n in names if n in self.functions]

    def _call(self, function: str, arguments: tuple[int | None, ...]) -> list[tuple[str, int]]:
        if not self._touches(function):
            return []
        key = (function, arguments)
        if key not in self._known:
            unit, node = self.functions[function]
            names = [text_of(next(walk(p, "identifier"), p)) for p in walk(node, "parameter_declaration")]
            bound = {n: a for n, a in zip(names, arguments, strict=False) if a is not None}
            effects: list[tuple[str, int]] = []
            body = node.child_by_field_name("body")
            assert body is not None
            self._run(unit, body, self.values.binding(bound), effects)
            self._known[key] = effects
        return self._known[key]

    def _run(self, unit: Unit, node: Node, values: Evaluator, effects: list[tuple[str, int]]) -> bool:
        """Appends the effects of a statement; True where it ends the enclosing switch or function."""
        where = unit.where(node)
        if node.type in ("compound_statement", "case_statement", "else_clause"):
            label = node.child_by_field_name("value")
            return any(self._run(unit, c, values, effects) for c in node.named_children if c != label)
        if node.type in ("break_statement", "return_statement"):
            return True
        if node.type == "if_statement":
            return self._if(unit, node, values, effects)
        if node.type == "switch_statement":
            self._switch(unit, node, values, effects)
        elif node.type in ("for_statement", "while_statement", "do_statement"):
            if any(self._touches(name) for name in self._calls(node)) or "nb_BATs" in text_of(node):
                raise CatalogError(f"{where}: nb_BATs in a loop")
        else:
            self._plain(unit, node, values, effects)
        return False

    def _if(self, unit: Unit, node: Node, values: Evaluator, effects: list[tuple[str, int]]) -> bool:
        condition, then = node.child_by_field_name("condition"), node.child_by_field_name("consequence")
        otherwise = node.child_by_field_name("alternative")
        assert condition is not None and then is not None
        try:
            chosen = then if values.node(condition, unit.where(node)) else otherwise
        except CatalogError:
            if "nb_BATs" in text_of(node) or any(self._touches(name) for name in self._calls(node)):
                raise CatalogError(f"{unit.where(node)}: nb_BATs under an undecided condition") from None
            return False
        return chosen is not None and self._run(unit, chosen, values, effects)

    def _switch(self, unit: Unit, node: Node, values: Evaluator, effects: list[tuple[str, int]]) -> None:
        condition, body = node.child_by_field_name("condition"), node.child_by_field_name("body")
        assert condition is not None and body is not None
        if "nb_BATs" not in text_of(body) and not any(self._touches(name) for name in self._calls(body)):
            return
        value = values.node(condition, unit.where(node))
        cases = [c for c in body.named_children if c.type == "case_statement"]
        labels = [c.child_by_field_name("value") for c in cases]
        start = next(
            (i for i, v in enumerate(labels) if v is not None and values.node(v, unit.where(v)) == value),
            next((i for i, v in enumerate(labels) if v is None), len(cases)),
        )
        for case in cases[start:]:
            if self._run(unit, case, values, effects):
                return

    def _plain(self, unit: Unit, node: Node, values: Evaluator, effects: list[tuple[str, int]]) -> None:
        for item in walk(node, "assignment_expression", "call_expression"):
            where = unit.where(item)
            if item.type == "assignment_expression":
                left, right = item.child_by_field_name("left"), item.child_by_field_name("right")
                operator = text_of(child(item, "operator"))
                assert left is not None and right is not None
                if text_of(left).endswith("nb_BATs"):
                    if operator not in ("=", "+="):
                        raise CatalogError(f"{where}: nb_BATs {operator} not understood")
                    effects.append((operator, values.node(right, where)))
                continue
            name = text_of(child(item, "function"))
            if name in self.functions and self._touches(name):
                given = item.child_by_field_name("arguments")
                assert given is not None
                effects += self._call(name, tuple(_integer(values, a, where) for a in given.named_children))


def _integer(values: Evaluator, node: Node, where: str) -> int | None:
    try:
        return values.node(node, where)
    except CatalogError:
        return None


def adjustments(tree: Tree) -> tuple[Adjustment, ...]:
    """Returns what TCG, KVM and the pseries machine do to the words after the family gave them.

    Raises CatalogError as `read`, also where code not known to the reader alters a word.
    """
    with _at_revision(tree):
        values = tree.constants
        found: list[Adjustment] = []
        for path in sorted({path for path, _ in altering(tree)}):
            # Macros make functions of families only, which are read already, expanded.
            unit = tree.at(path, expand=path.endswith(INIT))
            for name, node in unit.functions.items():
                if re.search(_ASSIGNED, text_of(node)):
                    found += _adjust(unit, name, node, values)
        return tuple(sorted(set(found)))


def altering(tree: Tree) -> list[tuple[str, str]]:
    """Returns (path, line) of the code that alters one of the words."""
    found = []
    for path, blob in tree.blobs.items():
        if path.endswith((".c", ".inc")) and not path.endswith("/machine.c"):
            if blob not in _altering:
                text = tree.repo.read(tree.revision, path) or ""
                _altering[blob] = [line.strip() for line in text.split("\n") if _ALTERS.search(line)]
            found += [(path, line) for line in _altering[blob]]
    return found


_altering: dict[str, list[str]] = {}  # by blob: the same in every revision


def _adjust(unit: Unit, function: str, node: Node, values: Evaluator) -> list[Adjustment]:
    role = next((r for r, names in _ROLES.items() if re.fullmatch(names, function)), None)
    found: list[Adjustment] = []
    for target, operator, value, where in _assignments(unit, node):
        word = re.split(r"->|\.", target)[-1]
        if word not in WORDS or target == word or target.startswith("ctx"):
            continue
        if role is None:
            raise CatalogError(f"{where}: {function} alters {target}: unknown role")
        if role in ("tcg", "pseries"):
            if operator != "&=":
                raise CatalogError(f"{where}: {target} {operator} not understood")
            found.append(Adjustment(role, word, "and", values.node(value, where)))
    for call in walk(node, "call_expression"):
        if text_of(child(call, "function")) == "alter_insns":
            where = unit.where(call)
            if role != "kvm":
                raise CatalogError(f"{where}: {function} alters flags: unknown role")
            pointer, flag, _ = child(call, "arguments").named_children
            word = re.split(r"->|\.", text_of(pointer))[-1]
            found.append(Adjustment("kvm", word, "host", values.node(flag, where)))
    return found
