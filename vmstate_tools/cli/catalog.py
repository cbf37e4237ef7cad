"""`vmstate catalog`: the facts about QEMU, read from its source."""

from __future__ import annotations

from pathlib import Path

import click

from vmstate_tools.cli.common import example


@click.group(epilog=example("vmstate catalog build --qemu-git ~/src/qemu -o data/catalog"))
def catalog() -> None:
    """Make tables of what each release of QEMU says of its CPUs."""


@catalog.command(
    epilog=example("vmstate catalog build --qemu-git ~/src/qemu --qemu-git ~/src/qemu-old -o data/catalog")
)
@click.option(
    "--qemu-git",
    "repositories",
    metavar="DIR",
    multiple=True,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A clone of QEMU; may be given several times, the first that has a release is read for it.",
)
@click.option(
    "--qemu-source",
    "trees",
    metavar="DIR|TARBALL",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="The source of a release that no clone has; what changed in it has no commit. May be given several times.",
)
@click.option("-o", "--output", "out", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path))
def build(repositories: tuple[Path, ...], trees: tuple[Path, ...], out: Path) -> None:
    """Read clones and released source trees of QEMU, release by release, and write what they say as CSV files.

    Nothing is checked out. Files of the same names in the output directory are replaced.
    """
    from vmstate_tools.qemu_source.build import build as write

    write(repositories, out, trees)


@catalog.command("source", epilog=example("vmstate catalog source --qemu-git ~/src/qemu -o data/source"))
@click.option(
    "--qemu-git",
    "repositories",
    metavar="DIR",
    multiple=True,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A clone of QEMU; may be given several times, the first that has a release is read for it.",
)
@click.option("--workers", metavar="N", type=click.IntRange(1), default=2, show_default=True, help="Processes to use.")
@click.option("-o", "--output", "out", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path))
def source(repositories: tuple[Path, ...], workers: int, out: Path) -> None:
    """Read every device of every release x.y.0 since 1.6, and write what the source says as tables.

    Nothing is checked out. Files of the same names in the output directory are replaced.
    """
    from vmstate_tools.qemu_source.source_tables import build_source

    build_source(repositories, out, workers=workers)
