"""Macros are expanded as the C preprocessor expands them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.macros import definition, expand, tokenize

DEFINITIONS = """
#define tostring(s) #s
#define stringify(s) tostring(s)
#define xglue(x, y) x ## y
#define glue(x, y) xglue(x, y)
#define N 4
#define REG(n) (0x10 + 4 * (n))
#define ONE(f, s, v) { .name = stringify(f), .version = (v), .size = sizeof(s) }
#define ALIAS ONE
#define LOG(fmt, ...) print(fmt, ## __VA_ARGS__)
#define PICK(a, b, c, d, ...) d
#define VER2(maj, min) #maj "." #min
#define VER3(maj, min, mic) #maj "." #min "." #mic
#define VER(...) PICK(__VA_ARGS__, VER3, VER2)(__VA_ARGS__)
#define SELF SELF + 1
#define EMPTY
#define CALL(f) f(1, 2)
#define PAIR(a, b) a b
"""
USES = [
    "ONE(regs[N], State, REG(N))",
    "ONE(regs[ N+1 ], State, 0)",
    "ALIAS(a.b->c, struct State, 1)",
    'stringify("quoted \\n" N)',
    "glue(vmstate_, N)",
    "glue(glue(a, b), c)",
    'LOG("x")',
    'LOG("x", 1, N)',
    "VER(7, 2)",
    "VER(7, 2, 1)",
    "SELF",
    "PAIR(EMPTY, EMPTY) N",
    "CALL(PAIR)",
    "PAIR((a, b), { c })",
    "REG (3)",
    "REG",
    "tostring(N) stringify( N )",
    "0x10UL + N.x",
]


def _lookup(name):
    macros = {m.name: m for line in re.findall(r"#define (.*)", DEFINITIONS) if (m := definition(line)) is not None}
    return macros.get(name)


def _words(text):
    return [t for t in tokenize(text) if t != " "]


def test_expands_as_the_compiler_s_preprocessor():
    cpp = shutil.which("cpp")
    if cpp is None:
        pytest.skip("cpp is not installed")
    source = DEFINITIONS + "\n".join(f"@{use}" for use in USES)
    done = subprocess.run([cpp, "-P", "-"], input=source, capture_output=True, text=True, check=True)
    expected = [_words(part) for part in done.stdout.replace("\n", " ").split("@")[1:]]
    assert [[t for t in expand(tokenize(use), _lookup) if t != " "] for use in USES] == expected


def test_white_space_in_a_string_is_one_blank():
    assert "".join(expand(tokenize("tostring(a  +\n b)"), _lookup)) == '"a + b"'


def test_a_wrong_number_of_arguments_is_an_error():
    with pytest.raises(CatalogError, match="ONE takes 3 arguments, 1 given"):
        expand(tokenize("ONE(a)"), _lookup)
