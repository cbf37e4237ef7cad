"""Sizes and offsets are those the compiler gives."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from small_qemu import commit

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import expressions
from vmstate_tools.qemu_source.git import Repo
from vmstate_tools.qemu_source.layout import Layout
from vmstate_tools.qemu_source.macros import tokenize
from vmstate_tools.qemu_source.program import Files, Program
from vmstate_tools.qemu_source.revision import Revision
from vmstate_tools.qemu_source.targets import TARGETS

TYPES = """
#define N 3
#define LIST(type) struct { type *first; type **last; }
#define FIRST_FLAG (1 << 4)
enum { RED, GREEN = 7, BLUE, MASK = FIRST_FLAG | BLUE, LAST = sizeof(int) * 2 };
typedef enum { A_KIND, B_KIND } Kind;
typedef struct Node Node;
struct Node { Node *next; char tag; short s; Kind kind; };
typedef union { unsigned char bytes[12]; unsigned long long word; double d; } Word;
typedef struct __attribute__((packed)) { char a; int b; short c; } Tight;
typedef struct { unsigned a : 3, b : 30; unsigned c : 1; char d; unsigned long long e : 40; } Bits;
typedef struct Big {
    LIST(Node) list;
    int (*call)(void *, int);
    Node nodes[N][LAST];
    Word words[GREEN];
    struct { char x; union { int y; long z; }; } named;
    struct { char p; long q; };
    Tight tight;
    Bits bits;
    char aligned __attribute__((aligned(16)));
    unsigned char tail[];
} Big;
static const int table[] = { 1, 2, 3, 4, 5 };
"""
EXPRESSIONS = [
    "sizeof(Node)", "sizeof(Word)", "sizeof(Tight)", "sizeof(Bits)", "sizeof(Big)", "sizeof(struct Big)",
    "sizeof(Kind)",
    "sizeof(((Big *)0)->nodes)", "sizeof(((Big *)0)->nodes[0])", "sizeof(((Big *)0)->words[1].bytes)",
    "offsetof(Big, nodes)", "offsetof(Big, words)", "offsetof(Big, named)", "offsetof(Big, q)",
    "offsetof(Big, tight.b)",
    "offsetof(Big, bits)", "offsetof(Big, aligned)", "offsetof(Big, nodes[1][2].kind)", "offsetof(Node, s)",
    "sizeof(table) / sizeof(table[0])", "MASK", "BLUE << 2 | 1", "(unsigned char)-1", "~0 & 0xff", "7 / -2", "-7 % 3",
    "LAST > 5 ? GREEN : RED", "sizeof(unsigned long long) * N", "sizeof(void *)", "1 ? 2 : 3 ? 4 : 5", "'A' + 1",
    "sizeof(\"four\")", "!(1 && 0) + (2 == 2)", "sizeof(typeof(((Big *)0)->words[0]))",
]  # fmt: skip


@pytest.fixture
def program(tmp_path):
    commit(tmp_path, {"VERSION": "2.0.0\n", "hw/a.c": TYPES})
    with Repo(tmp_path) as repo:
        program = Program(Revision(repo, "master"), TARGETS["x86_64"], Files())
        yield program


def test_evaluates_as_the_compiler_does(program, tmp_path):
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not installed")
    lines = "".join(f'printf("%lld\\n", (long long)({e}));' for e in EXPRESSIONS)
    source = f"#include <stddef.h>\n#include <stdio.h>\n{TYPES}\nint main(void) {{ {lines} return 0; }}"
    subprocess.run([gcc, "-w", "-x", "c", "-", "-o", tmp_path / "a"], input=source, text=True, check=True)
    done = subprocess.run([tmp_path / "a"], capture_output=True, text=True, check=True)
    scope, layout = program.scope("hw/a.c"), Layout(program)
    mine = {e: layout.integer(scope.expand(tokenize(e)), scope) for e in EXPRESSIONS}
    assert mine == dict(zip(EXPRESSIONS, map(int, done.stdout.split()), strict=True))


@pytest.mark.parametrize(
    "text", ["missing", "sizeof(Missing)", "sizeof(((Big *)0)->gone)", "1 / 0", "f(2)", "1.5", "1 +"]
)
def test_what_is_no_constant_is_an_error(program, text):
    scope, layout = program.scope("hw/a.c"), Layout(program)
    with pytest.raises(CatalogError):
        layout.integer(scope.expand(tokenize(text)), scope)


def test_strings_and_members_are_parsed():
    assert expressions.parse(tokenize('"a" "b\\n"')) == ("string", "ab\n")
    assert expressions.parse(tokenize("x->y[2]")) == ("index", ("member", ("name", "x"), "y"), ("number", 2))
