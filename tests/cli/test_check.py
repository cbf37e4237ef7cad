from __future__ import annotations

import pytest
from shell import P26, run


@pytest.mark.parametrize("wrong", [["--to", "2.99"], ["--to", "banana"], ["--to", "2.7.0", "--policy", "nope"]])
@pytest.mark.parametrize("command", ["check", "matrix"])
def test_no_such_destination(command: str, wrong: list[str]) -> None:
    result = run(command, P26, *wrong, code=2)
    assert result.stdout == "" and wrong[-1] in result.stderr and result.stderr.count("\n") == 1
