"""JupyterLab in a real browser: notebooks with a widget run in it, and the widgets answer to mouse and keyboard.

`pytest tests/notebooks/test_browser.py --screenshots docs/images` writes the pictures of the documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from lab import ROOT, Lab, browser, run_all, why_not
from nbconvert import HTMLExporter

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

# The others have nothing that needs a browser: test_notebooks.py runs them all.
WITH_WIDGETS = [
    path
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    if "application/vnd.jupyter.widget-view+json" in path.read_text(encoding="utf-8")
]
OLD, NEW = (f"../data/streams/qemu-{release}/pseries-2.6/POWER8_v2.0.mig.zst" for release in ("2.6.0", "2.7.0"))
HOSTILE = """
import sys
sys.path.insert(0, {tests!r})
from handmade import hostile
vt.explore(hostile())
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    running = Lab(tmp_path_factory.mktemp("lab"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture
def screenshots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.config.getoption("--screenshots") or tmp_path


def row(page: Page, label: str, explorer: int = 0):
    """A row of an explorer's tree."""
    tree = page.get_by_role("tree").nth(explorer)
    return tree.locator(".vx-row").filter(has=page.get_by_text(label, exact=True)).first


@pytest.mark.parametrize("path", WITH_WIDGETS, ids=lambda path: path.stem)
def test_notebook_runs(lab: Lab, chromium: Browser, path: Path) -> None:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    pictures = sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    with lab.open(chromium, lab.copy(path)) as page:
        assert run_all(page) == []
        assert page.locator(".jp-RenderedImage img").count() == pictures
        if page.get_by_role("tree").count():  # an explorer
            title = page.locator(".vx-name").first
            row(page, "globalstate/0").click()
            row(page, "globalstate/0").locator(".vx-twisty").click()
            row(page, "runstate").click()
            page.wait_for_function("document.querySelector('.vx-name').textContent == 'runstate'")
            assert title.inner_text() == "runstate"
        policy = page.locator(".widget-dropdown").filter(has=page.get_by_text("Policy", exact=True)).locator("select")
        if policy.count():  # the policy lab
            matrix = page.locator("img.widget-image")
            before = matrix.get_attribute("src")
            policy.select_option("equal")
            page.wait_for_function("src => document.querySelector('img.widget-image').src !== src", arg=before)
            page.get_by_text("Predicted: POWER7_v2.3 on pseries-2.6, TCG, equal").wait_for()


@pytest.fixture(scope="module")
def page(lab: Lab, chromium: Browser) -> Iterator[Page]:
    """A notebook with two explorers: of one stream, and of two side by side."""
    cells = ["import vmstate_tools as vt", f'vt.explore("{OLD}")', f'vt.explore("{OLD}", "{NEW}")']
    with lab.open(
        chromium, lab.add("explore.ipynb", [*cells, HOSTILE.format(tests=str(ROOT / "tests"))]), height=1700
    ) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a script of the stream ran: {dialog.message}"))
        assert run_all(page) == []
        yield page


def bytes_marked(page: Page, explorer: int = 0, side: int = 0) -> str:
    digits = page.locator(".vx").nth(explorer).locator(".vx-hex").nth(side).locator(".vx-digits")
    return "".join(digits.locator(".vx-chosen").all_inner_texts())


def test_mouse(page: Page, screenshots: Path) -> None:
    explorer = page.locator(".vx").first
    row(page, "cpu/0").locator(".vx-twisty").click()
    row(page, "env.insns_flags2").click()
    explorer.get_by_text("PPC2_ISA207S").wait_for()
    assert bytes_marked(page) == "000000000003fff6"
    assert "must equal the destination's" in explorer.inner_text()
    explorer.screenshot(path=screenshots / "explore.png")
    # The subsection's header is 13 bytes behind its start: a click on its name's bytes goes there.
    explorer.locator('.vx-digits [data-at="627431"]').click()
    page.wait_for_function("document.querySelector('.vx-name').textContent == 'header'")
    assert bytes_marked(page) == b"\x05\x07cpu/fpu\x00\x00\x00\x01".hex()
    explorer.get_by_label("Bytes behind").click()
    page.wait_for_function("!document.querySelector('.vx-hex .vx-chosen')")


def test_keyboard(page: Page) -> None:
    active = page.locator(".jp-Notebook .jp-Cell.jp-mod-active").get_attribute("data-windowed-list-index")
    explorer = page.locator(".vx").first
    explorer.get_by_role("searchbox").focus()
    explorer.get_by_role("searchbox").fill("0x8000600fe1ff3a61")
    page.keyboard.press("Enter")
    found = explorer.locator(".vx-list button")
    found.first.wait_for()
    assert [text.split() for text in found.all_inner_texts()] == [["cpu/0", "env.insns_flags", "0x8000600fe1ff3a61"]]
    page.keyboard.press("Tab")  # the button
    page.keyboard.press("Tab")  # what was found
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.vx-name').textContent == 'env.insns_flags'")
    assert bytes_marked(page) == "8000600fe1ff3a61"
    page.keyboard.press("Tab")  # the tree
    for key, title in {
        "ArrowDown": "env.insns_flags2",
        "End": "vmdesc",
        "Home": "file header",
        "t": "timer/0",
    }.items():
        page.keyboard.press(key)
        page.wait_for_function(f"document.querySelector('.vx-name').textContent == '{title}'")
    page.keyboard.press("ArrowRight")
    row(page, "cpu_clock_offset").wait_for()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelector('.vx-name').textContent == 'header'")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    row(page, "cpu_clock_offset").wait_for(state="hidden")
    # JupyterLab took none of these keys for itself.
    assert page.locator(".jp-Notebook .jp-Cell.jp-mod-active").get_attribute("data-windowed-list-index") == active
    assert page.locator(".jp-Notebook .jp-Cell").count() == 4


def test_side_by_side(page: Page, screenshots: Path) -> None:
    explorer = page.locator(".vx").nth(1)
    explorer.locator(".vx-list button").filter(has_text="PPC2_PM_ISA206").click()
    explorer.get_by_text("only b", exact=True).first.wait_for()
    assert (bytes_marked(page, 1, 0), bytes_marked(page, 1, 1)) == ("000000000003fff6", "000000000007fff6")
    assert explorer.locator(".vx-hex").nth(1).locator(".vx-digits .vx-unlike.vx-chosen").all_inner_texts() == ["07"]
    explorer.screenshot(path=screenshots / "explore-two.png")
    explorer.get_by_role("checkbox").check()
    assert not row(page, "timer/0", 1).is_visible() and row(page, "cpu/0", 1).is_visible()


def test_hostile_text_runs_nothing(page: Page) -> None:
    explorer = page.locator(".vx").nth(2)
    row(page, "dev<img src=x onerror=alert(1)>\\x1b[31m/0", 2).click()
    explorer.locator(".vx-head dd").first.wait_for()
    assert explorer.locator("img").count() == 0


def test_the_static_page(lab: Lab, page: Page) -> None:
    """Last of those on this page: the kernel ends. What was saved shows the sections, here and exported."""
    path = lab.root / "notebooks/explore.ipynb"
    assert page.locator(".jp-OutputArea summary").filter(has_text="globalstate/0").first.is_hidden()
    page.locator(".jp-InputPrompt").first.click()
    page.keyboard.press("Control+s")
    for _ in range(100):
        if "</details>" in path.read_text():
            break
        page.wait_for_timeout(100)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Shut Down Kernel", exact=True).click()
    page.reload()
    page.locator(".jp-OutputArea details").first.wait_for()
    assert page.locator(".jp-OutputArea summary").filter(has_text="globalstate/0").first.is_visible()
    assert page.get_by_role("tree").count() == 0
    saved = nbformat.read(path, as_version=4)
    html, _ = HTMLExporter().from_notebook_node(saved)
    assert "<summary>globalstate/0" in html and "runstate" in html
    assert "<img src=x" not in html
