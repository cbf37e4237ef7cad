"""The command `vmstate` for tests: run in this process, or as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from vmstate_tools.cli.main import main
from vmstate_tools.data import data_path
from vmstate_tools.source import zstd

STREAMS = data_path("streams")
P26 = str(STREAMS / "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
P27 = str(STREAMS / "qemu-2.7.0/pseries-2.6/POWER8_v2.0.mig.zst")
NO_VMDESC = str(STREAMS / "qemu-7.2/q35/qemu64+no-vmdesc.mig.zst")
Q35 = str(STREAMS / "qemu-7.2/q35/qemu64+cap-xbzrle.mig.zst")


def run(*args: str, code: int = 0, columns: int = 80) -> Result:
    """Runs a command here, which must end with this exit code and raise nothing."""
    result = CliRunner().invoke(main, list(args), env={"COLUMNS": str(columns)})
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def process(*args: str, **more: Any) -> subprocess.Popen[bytes]:
    """Starts Python with these arguments; both outputs are pipes unless `more` says otherwise."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    return subprocess.Popen([sys.executable, *args], **(options | more))


def vmstate(*args: str | bytes, **more: Any) -> subprocess.Popen[bytes]:
    """Starts `vmstate` with these arguments as a process."""
    return process("-m", "vmstate_tools.cli", *args, **more)  # type: ignore[arg-type]


def raw(path: str) -> bytes:
    """Returns the bytes of a stream compressed with zstd."""
    with Path(path).open("rb") as file:
        return zstd.reader(file).read()
