"""What commands print: tables that fit, JSON and CSV that others read."""

from __future__ import annotations

import csv
import io
import json

import pytest

from vmstate_tools.errors import plain_text
from vmstate_tools.show.text import complain, csv_text, json_text, print_columns, say, wrapped


def test_columns_of_text_are_cut_and_numbers_are_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    print_columns(["name", ">size", "=word"], [["a" * 30, "b"], ["1234567", "8"], ["0xabcdef", "0x0"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name      size  word", "aaaa…  1234567  0xabcdef", "b            8  0x0"]


def test_wide_characters_take_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns(["a", "=b"], [["日本", "e\u0301", "x"], ["1", "2", "3"]])
    assert capsys.readouterr().out.splitlines() == ["a     b", "日本  1", "e\u0301     2", "x     3"]


def test_text_that_controls_a_terminal_is_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31m", "b\u202e")
    complain("c\nd")
    out, errors = capsys.readouterr()
    assert (out, errors) == ("a\\x1b[31m\nb\\u202e\n", "vmstate: c\\nd\n")


def test_json_is_what_any_reader_takes() -> None:
    value = {"bytes": b"\1\xff", "name": "g\udcff", "word": 1 << 63, "list": ("\\udcff", None)}
    text = json_text(value)
    assert text.isascii()
    assert json.loads(text) == {"bytes": "01ff", "name": "g\\udcff", "word": 1 << 63, "list": ["\\udcff", None]}
    json.dumps(json.loads(text), ensure_ascii=False).encode()
    with pytest.raises(TypeError, match="object"):
        json_text(object())


def test_csv_is_read_back() -> None:
    text = csv_text([("one", "two", "three", "four"), ("a,b", 'c"d', -1, None), ("e\nf", "=g", 1 << 63, True)])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["one", "two", "three", "four"],
        ["a,b", 'c"d', "-1", ""],
        ["e\nf", "=g", str(1 << 63), "True"],
    ]
    assert text.startswith("one,two,three,four\n")


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1"])
def test_what_a_spreadsheet_would_run_is_text(text: str) -> None:
    made = csv_text([(text, -1), ("plain", 2)], for_spreadsheet=True)
    assert list(csv.reader(io.StringIO(made))) == [[f"'{text}", "-1"], ["plain", "2"]]


@pytest.mark.parametrize("name", ["a\rb", "g\udcff", "a\nb", "ü", "a,b"])
def test_a_files_name_fits_into_any_format(name: str) -> None:
    text = csv_text([(plain_text(name), 1)])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [[plain_text(name), "1"]]
    text.encode()


def test_wrapped_text_fits_and_loses_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    words = "one two three four five sixsixsixsixsixsixsixsix seven"
    lines = wrapped(words)
    assert " ".join(line.strip() for line in lines) == words
    assert [len(line) <= 20 for line in lines] == [True, True, False, True]
