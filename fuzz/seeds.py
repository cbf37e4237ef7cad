"""Writes a corpus for `fuzz.guided` to begin with: `python -m fuzz.seeds walk|containers FOLDER`."""

from __future__ import annotations

from pathlib import Path

import click

from fuzz.inputs import make

KINDS = {
    "walk": ("stream", "real stream", "vmdesc", "configuration", "ram"),
    "containers": ("gzip", "zstd", "xz", "bz2", "lz4", "lzop", "repeated", "libvirt", "qcow2"),
}


@click.command()
@click.argument("target", type=click.Choice(list(KINDS)))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", default=40, show_default=True, help="How many of each kind.")
@click.option("--most", default=65536, show_default=True, help="Bytes of the largest.")
def main(target: str, folder: Path, count: int, most: int) -> None:
    """Writes inputs of the kinds that the target reads; it takes the first byte of each for itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS[target]:
        for number in range(count):
            data = make(number, kind).parts["0"]
            if len(data) < most:
                (folder / f"{kind.replace(' ', '-')}-{number:03}").write_bytes(b"\0" + data)


if __name__ == "__main__":
    main()
