from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import captures as real
import pytest
from formats_table import FormatsRan
from running_vm import running_vm


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="where the browser tests write the pictures of the documentation")
    parser.addoption("--formats", action="store_true", help="fail unless every test that docs/formats.md names passed")


def pytest_configure(config: pytest.Config) -> None:
    # A job in the background of a shell has SIGINT ignored, and one under nohup SIGHUP; so would the processes that
    # tests start, and end by these signals.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.getoption("--formats") and not hasattr(config, "workerinput"):  # under xdist, once for all workers
        config.pluginmanager.register(FormatsRan())


@pytest.fixture(scope="session", params=real.SETS)
def captures(request: pytest.FixtureRequest) -> real.Captures:
    """Gives the captures in the checkout, and with the marker `collection` the larger collection too."""
    return request.param


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Path]:
    """The monitor of a VM that has run to the end of our program."""
    with running_vm(tmp_path) as monitor:
        yield monitor
