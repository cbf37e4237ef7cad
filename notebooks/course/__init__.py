"""The questions of the notebooks: which answers are right, and the hints for those that are not.

    answer = ...
    check("01-machine", answer)

The questions of notebook NN are in `notebooks/course/notebook_NN.py`. A right answer is worked out there from the
bundled data, in another way than the notebook asks for where there is one.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Judge = Callable[[Any], bool | str]
_judges: dict[str, Judge] = {}


@dataclass(frozen=True)
class Reply:
    """The answer of a check. `right` is None for a question that is not answered yet; `hint` is for a wrong answer."""

    question: str
    right: bool | None
    hint: str = ""

    def __str__(self) -> str:
        said = {None: "not answered yet", True: "right", False: "not yet"}[self.right]
        return f"{self.question}: {said}" + (f". {self.hint}" if self.hint else "")

    __repr__ = __str__


def question(name: str) -> Callable[[Judge], Judge]:
    """Registers the decorated function as the judge of the question `NN-words`.

    A judge gets the answer and returns True if it is right, False if it is wrong (then the docstring of the judge is
    the hint), or the text of a better hint. It may raise on an answer of the wrong shape. No hint names the answer.
    """

    def register(judge: Judge) -> Judge:
        if name in _judges:
            raise ValueError(f"two questions {name}")
        _judges[name] = judge
        return judge

    return register


def questions(notebook: str) -> list[str]:
    """Returns the names of a notebook's questions in their order; `notebook` is its number, "01"."""
    module = f"{__name__}.notebook_{notebook}"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as err:
        if err.name != module:
            raise
    return [name for name in _judges if name.startswith(f"{notebook}-")]


def check(name: str, answer: Any) -> Reply:
    """Returns whether this is the answer, with a hint if not. An Ellipsis, alone or inside, is no answer yet."""
    if name not in questions(name[:2]):
        return Reply(name, None, f"There is no such question; those of the notebook: {', '.join(questions(name[:2]))}")
    if _open(answer):
        return Reply(name, None)
    judge = _judges[name]
    try:
        said = judge(answer)
    except Exception as err:  # whatever the answer is, the notebook goes on
        said = f"{_hint(judge)} (An answer of type {type(answer).__name__} fails here: {type(err).__name__}: {err})"
    return Reply(name, said is True, "" if said is True else said or _hint(judge))


def _hint(judge: Judge) -> str:
    return " ".join((judge.__doc__ or "").split())


def _open(answer: Any) -> bool:
    if isinstance(answer, Mapping):
        return any(map(_open, answer.values()))
    if isinstance(answer, list | tuple | set | frozenset):
        return any(map(_open, answer))
    return answer is ...


# -- for judges ------------------------------------------------------------------------------------------------------


def same(answer: Any, truth: Any, mistakes: Iterable[tuple[Any, str]] = ()) -> bool | str:
    """Returns True if the answer equals the truth, else False or a hint.

    There is a hint for an answer of the wrong kind, and for each of the `mistakes` (value, hint). Values of numpy and
    pandas count as Python's, and bytes as text where the truth is text. Text is compared without case, floats to one
    part in a million. Where the truth is a set, order does not matter, and a single text is a set of one.
    """
    answer = _plain(answer)
    if isinstance(truth, set) and isinstance(answer, str):
        answer = {answer}
    if _equal(answer, truth):
        return True
    for value, hint in mistakes:
        if _equal(answer, value):
            return hint
    wanted, got = _kind(truth), _kind(answer)
    if wanted != got:
        return f"The answer is {wanted}, not {got}."
    if wanted == "several values" and len(answer) != len(truth):
        return f"{len(answer)} values are too {'many' if len(answer) > len(truth) else 'few'}."
    return False


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _equal(answer: Any, truth: Any) -> bool:
    answer = _plain(answer)
    if isinstance(truth, bool) or isinstance(answer, bool):
        return answer is truth
    if isinstance(truth, str):
        text = answer.decode("latin-1") if isinstance(answer, bytes) else answer
        return isinstance(text, str) and text.strip().casefold() == truth.casefold()
    if isinstance(truth, float):
        return isinstance(answer, int | float) and math.isclose(answer, truth, rel_tol=1e-6)
    if isinstance(truth, Mapping):
        return (
            isinstance(answer, Mapping)
            and answer.keys() == truth.keys()
            and all(_equal(answer[key], truth[key]) for key in truth)
        )
    if isinstance(truth, set | frozenset):
        rest = list(answer) if isinstance(answer, Collection) and not isinstance(answer, str | bytes) else []
        return len(set(rest)) == len(truth) and all(any(_equal(a, t) for a in rest) for t in truth)
    if isinstance(truth, list | tuple):
        return (
            isinstance(answer, list | tuple)
            and len(answer) == len(truth)
            and all(_equal(a, t) for a, t in zip(answer, truth, strict=True))
        )
    return bool(answer == truth)


def _kind(value: Any) -> str:
    kinds: list[tuple[Any, str]] = [
        (bool, "True or False"),
        ((int, float), "a number"),
        ((str, bytes), "text"),
        (Mapping, "a dict"),
        ((list, tuple, set, frozenset), "several values"),
    ]
    return next((kind for types, kind in kinds if isinstance(value, types)), f"a {type(value).__name__}")
