"""MkDocs hooks that make pages of files outside docs/: notebooks, data, changelog.

Links are written as they hold in the checkout; the hooks turn them into links between pages.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent

OTHERS = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "data/DATA.md",
    "data/catalog/README.md",
    "data/compat/README.md",
    "data/fingerprint/README.md",
]
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")


def places() -> dict[str, str]:
    """Returns path in the checkout → page of the site, for all files outside docs/."""
    found = {path: path for path in OTHERS}
    for path in (ROOT / "notebooks").rglob("*.*"):
        if path.suffix in (".ipynb", ".py", ".md") and not {".ipynb_checkpoints", "course"} & set(path.parts):
            name = path.relative_to(ROOT)
            found[str(name)] = str(name.with_suffix(".md"))
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the notebooks to the navigation, in their order."""
    (course,) = (entry["Course"] for entry in config.nav or () if "Course" in entry)
    course += sorted(page for path, page in places().items() if path.endswith(".ipynb"))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, page in places().items():
        files.append(File.generated(config, page, content=_text(path, page, files, config)))
    return files


def _text(path: str, page: str, files: Files, config: MkDocsConfig) -> str:
    source = ROOT / path
    if path.endswith(".py"):
        return f"# Solutions: {source.stem}\n\n```python\n{source.read_text(encoding='utf-8')}```\n"
    if not path.endswith(".ipynb"):
        return source.read_text(encoding="utf-8")
    pictures = page.removesuffix(".md") + "_files"
    exporter = MarkdownExporter(exclude_output_prompt=True)
    resources = {"output_files_dir": posixpath.basename(pictures), "unique_key": "picture"}
    text, resources = exporter.from_notebook_node(nbformat.read(source, as_version=4), resources)
    for name, content in resources["outputs"].items():
        uri = posixpath.join(posixpath.dirname(page), name)
        files.append(File.generated(config, uri, content=content))
    return text.replace("![png](", "![Chart](")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    there = places()
    pages = {uri: path for path, uri in there.items()}
    here = page.file.src_uri
    folder = posixpath.dirname(pages.get(here, f"docs/{here}"))

    def turned(match: Any) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        target = there.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if target is None:
            return match[1]
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    return _LINK.sub(turned, markdown)
