"""Which files are taken for streams."""

from __future__ import annotations

from pathlib import Path

from vmstate_tools.frames.finding import SUFFIXES, find_streams


def test_files_of_a_directory_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    names = ["b/2.mig", "a.mig.zst", "b/10.mig.gz", "z.mig", "notes.txt", "a.mig.part", "manifest.csv"]
    for name in names:
        (tmp_path / name).touch()
    found = [str(Path(f).relative_to(tmp_path)) for f in find_streams(tmp_path)]
    assert found == ["a.mig.zst", "b/10.mig.gz", "b/2.mig", "z.mig"]
    assert all(name.endswith(SUFFIXES) for name in found)


def test_what_is_no_directory_stays_as_it_is(tmp_path: Path) -> None:
    given = ["guest.mig", "https://host/a.mig", "-", str(tmp_path / "missing")]
    assert find_streams(given) == given
    assert find_streams(Path("guest.mig")) == ["guest.mig"]
    assert find_streams(b"g\xff.mig") == ["g\udcff.mig"]  # type: ignore[arg-type]
    assert find_streams([]) == []
