"""A JupyterLab of its own, and a headless browser in it: for the tests of notebooks and widgets."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CODE = ".jp-Notebook .jp-CodeCell"
ERROR = '[data-mime-type="application/vnd.jupyter.error"]'


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def why_not() -> str:
    """Why no browser can be driven here, '' where one can."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright for Python is not installed"
    return "" if CHROMIUM else "no Chromium is installed (Debian: apt install chromium)"


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium: the one that is installed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


class Lab:
    """A running JupyterLab over copies of the notebooks, with the data beside them; `url` includes no token."""

    def __init__(self, folder: Path, *, dark: bool = False) -> None:
        self.root = folder / "root"
        (self.root / "notebooks").mkdir(parents=True)
        (self.root / "data").symlink_to(ROOT / "data")
        (self.root / "notebooks" / "course").symlink_to(ROOT / "notebooks" / "course")
        self._folder = folder
        settings = folder / "settings/@jupyterlab"
        for name, value in {
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
            "apputils-extension/themes": {"theme": f"JupyterLab {'Dark' if dark else 'Light'}"},
            "notebook-extension/tracker": {"windowingMode": "none", "recordTiming": False},  # all cells are in the page
        }.items():
            (settings / name).parent.mkdir(parents=True, exist_ok=True)
            (settings / f"{name}.jupyterlab-settings").write_text(json.dumps(value))

    def start(self) -> None:
        import jupyterlab

        # Where JupyterLab stands may be another environment, below this one.
        share = Path(jupyterlab.__file__).parents[4] / "share/jupyter"
        places = {f"JUPYTER_{what}_DIR": str(self._folder / what.lower()) for what in ("RUNTIME", "CONFIG", "DATA")}
        lab = {"SETTINGS": "settings", "WORKSPACES": "workspaces"}
        places |= {f"JUPYTERLAB_{what}_DIR": str(self._folder / name) for what, name in lab.items()}
        environment = {
            **os.environ,
            **places,
            "JUPYTERLAB_DIR": str(share / "lab"),
            "JUPYTER_PATH": str(share),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "IPYTHONDIR": str(self._folder / "ipython"),
        }
        options = ["--no-browser", "--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={self.root}", "--allow-root"]
        self._log = self._folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 90
        while time.monotonic() < end and self._process.poll() is None:
            for file in (self._folder / "runtime").glob("jpserver-*.json"):
                with contextlib.suppress(ValueError):  # half written
                    server = json.loads(file.read_text())
                    if server["port"]:
                        self.url, self.token = server["url"], server["token"]
                        return
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"JupyterLab did not start: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """End the server and its kernels."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def add(self, name: str, cells: list[str]) -> str:
        """A notebook of these code cells; its name."""
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        code = [nbformat.v4.new_code_cell(cell) for cell in cells]
        notebook = nbformat.v4.new_notebook(cells=code, metadata=kernel)
        nbformat.write(notebook, self.root / "notebooks" / name)
        return name

    def copy(self, path: Path) -> str:
        """A copy of a notebook, without outputs; its name."""
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        notebook.metadata.pop("widgets", None)
        nbformat.write(notebook, self.root / "notebooks" / path.name)
        return path.name

    @contextlib.contextmanager
    def open(self, browser: Browser, name: str, *, width: int = 1200, height: int = 900) -> Iterator[Page]:
        """A page with that notebook, its kernel ready. No request leaves this machine."""
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(60_000)
        abroad: list[str] = []

        def allow(route: Any) -> None:
            if route.request.url.startswith((self.url, "data:", "blob:")):
                route.continue_()
            else:
                abroad.append(route.request.url)
                route.abort()

        page.route("**/*", allow)
        try:
            page.goto(f"{self.url}doc/tree/notebooks/{name}?token={self.token}")
            page.get_by_text("(ipykernel) | Idle").wait_for()  # in the status bar
            yield page
            assert not abroad
        finally:
            page.close()


def run_all(page: Page, *, timeout: float = 240) -> list[str]:
    """Run all cells by the menu; the texts of their errors."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(
        """([code, error]) => {
            const prompts = [...document.querySelectorAll(`${code} .jp-InputPrompt`)].map((p) => p.textContent);
            const ran = prompts.every((p) => /^\\[\\d+\\]:$/.test(p));
            const idle = document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status === 'idle';
            return idle && (ran || document.querySelector(error));
        }""",
        arg=[CODE, ERROR],
        timeout=timeout * 1000,
    )
    return page.locator(ERROR).all_inner_texts()
