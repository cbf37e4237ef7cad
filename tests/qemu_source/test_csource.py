from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.csource import Evaluator, Unit, designated, preprocess, text_of, walk


def unit(text: str, **config: str) -> Unit:
    return preprocess(text, "file.c", config)


def value(text: str, expression: str) -> int:
    parsed = unit(text)
    return Evaluator(parsed.macros, parsed.enumerators).expression(expression, "here")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 << 4 | 3", 19),
        ("0x10 + 010 + 9", 33),
        ("~(1 << 6)", -65),  # an int, as in C: it keeps the high bits of a wider word
        ("~0x80000000", 0x7FFFFFFF),  # a hexadecimal literal that fits no int is unsigned
        ("~0x80000000ULL", 0xFFFFFFFF7FFFFFFF),
        ("(uint64_t)~(1 << 6)", 0xFFFFFFFFFFFFFFBF),
        ("(1ull << 63) | 1", 0x8000000000000001),
        ("1 << 31", -(1 << 31)),
        ("-1 > 0u", 1),  # the usual conversions make -1 unsigned
        ("7 / 2 * 2 == 6 && !0", 1),
    ],
)
def test_arithmetic_is_that_of_c(expression: str, expected: int) -> None:
    assert value("", expression) == expected


def test_names_are_followed_through_macros_and_enumerators() -> None:
    text = """
    enum { A = 4, B, C, D = 0x10, /* note */ E };
    #define TWO (B | C)
    #define SAME SAME
    #define BIT(n) (1ULL << (n))
    #define MASK (BIT(A) \\
                  | TWO)
    """
    assert value(text, "E") == 17
    assert value(text, "MASK") == 0x17
    with pytest.raises(CatalogError, match="here: nothing known of SAME"):
        value(text, "SAME")


def test_a_name_defined_twice_is_not_guessed() -> None:
    with pytest.raises(CatalogError, match="X has two definitions"):
        value("#define X 1\n#define X 2\n", "X")
    assert value("#define X 1\n#undef X\n#define X 2\n", "X") == 2


@pytest.mark.parametrize(
    "expression", ["unknown", "f(1)", "1 << 40", "1ull << 64", "x[2]", "1 +", "99999999999999999999"]
)
def test_what_is_not_understood_says_where(expression: str) -> None:
    with pytest.raises(CatalogError, match="here"):
        value("", expression)


def test_conditionals() -> None:
    text = """
    #if defined(WIDE) && !defined(NARROW)
    int a;
    #elif 1
    int b;
    #else
    int c;
    #endif
    #ifndef WIDE
    # if LEVEL >= 3
    int d;
    # endif
    #endif
    #if 0
    #error never
    #endif
    """
    assert [text_of(n) for n in walk(unit(text, WIDE="1").root, "identifier")] == ["a"]
    assert [text_of(n) for n in walk(unit(text, LEVEL="3").root, "identifier")] == ["b", "d"]


def test_lines_keep_their_numbers() -> None:
    text = (
        "/* two\nlines */\n#define F(a, \\\n          b) int a ## b;\n\n#if 0\nF(x, y)\n#endif\nF(p,\n  q)\nint last;\n"
    )
    found = {text_of(n): n.start_point.row + 1 for n in walk(unit(text).root, "identifier")}
    assert found == {"pq": 9, "last": 11}


def test_macros_paste_stringify_and_nest() -> None:
    text = """
    #define NAME(n) glue(glue(type_, n), _info)
    #define DEFINE(n, m) static const Info NAME(n) = { .name = stringify(n) "-x", .mask = glue(MASK_, m) };
    #define MASK_y 5
    DEFINE(970, y)
    """
    parsed = unit(text)
    node = next(parsed.declarations())
    parts = designated(next(walk(node, "initializer_list")))
    values = Evaluator(parsed.macros, parsed.enumerators)
    assert text_of(node).startswith("type_970_info")
    assert values.text(parts["name"], "") == "970-x"
    assert values.node(parts["mask"], "") == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("#if 1\n", "#if without #endif"),
        ("\n#endif\n", "file.c:2: #endif without #if"),
        ("#if (\n#endif\n", "file.c:1: #if"),
        ("#define F(a, b) a b\nF(1)\n", "F takes 2 arguments, 1 given"),
    ],
)
def test_broken_source(text: str, says: str) -> None:
    with pytest.raises(CatalogError, match=says.replace("(", r"\(")):
        unit(text)


@given(st.text(alphabet='#define ifx()/*"\\\n1&|,', max_size=80))
def test_any_text_gives_a_unit_or_a_catalog_error(text: str) -> None:
    try:
        parsed = unit(text)
    except CatalogError:
        return
    assert parsed.root.type == "translation_unit"
