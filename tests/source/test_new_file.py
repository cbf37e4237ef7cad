from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import vmstate_tools
from vmstate_tools.source.new_file import new_file, new_folder, new_text_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_it_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_file(out) as file:
        file.write(b"half")
        assert not out.exists()
        (under_way,) = names(tmp_path)
        assert under_way.startswith(".vmstate-")
    assert out.read_bytes() == b"half" and names(tmp_path) == ["out"]
    with new_text_file(tmp_path / "text") as text:
        text.write("ä\r\n")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa4\r\n"


def test_nothing_is_left_after_an_exception(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    for overwrite, name in ((True, "out"), (False, "new")):
        with pytest.raises(KeyError), new_file(tmp_path / name, overwrite=overwrite) as file:
            file.write(b"x" * 100_000)
            raise KeyError
        with pytest.raises(KeyboardInterrupt), new_text_file(tmp_path / name, overwrite=overwrite) as text:
            text.write("x")
            raise KeyboardInterrupt
    assert names(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "mine"


def test_what_is_there_stays_unless_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match=r"exists already.*out"), new_file(out):
        pytest.fail("not refused")
    assert out.read_text() == "mine"
    with new_file(out, overwrite=True) as file:
        file.write(b"new")
    assert out.read_text() == "new" and names(tmp_path) == ["out"]


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileExistsError), new_file(out) as file:
        file.write(b"new")
        out.write_text("mine")
    # ... even in the last moment, after the last look.
    out.unlink()
    link = os.link

    def late(*args, **kwargs) -> None:
        out.write_text("mine")
        link(*args, **kwargs)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(FileExistsError, match="out"), new_file(out) as file:
        file.write(b"new")
    assert out.read_text() == "mine" and names(tmp_path) == ["out"]


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args, **kwargs) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with new_file(tmp_path / "out") as file:
        file.write(b"new")
    assert (tmp_path / "out").read_bytes() == b"new" and names(tmp_path) == ["out"]


def test_the_users_files_of_other_names(tmp_path: Path) -> None:
    for name in ("out.part", "out.tmp", ".out.part"):
        (tmp_path / name).write_text("mine")
    with new_file(tmp_path / "out") as file:
        file.write(b"new")
    assert all((tmp_path / name).read_text() == "mine" for name in names(tmp_path) if name != "out")


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with contextlib.chdir(tmp_path), contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind("socket")
    expected = {
        "link": "symbolic link",
        "dangling": "symbolic link",
        "folder": "directory",
        "fifo": "FIFO",
        "socket": "socket",
    }
    before = names(tmp_path)
    places = {tmp_path / name: kind for name, kind in expected.items()} | {Path("/dev/null"): "device"}
    for path, kind in places.items():
        with pytest.raises(FileExistsError, match=kind), new_file(path, overwrite=overwrite):
            pytest.fail("not refused")
    for name in ("", ".", "folder/", "folder/.."):
        with pytest.raises(IsADirectoryError), new_file(f"{tmp_path}/{name}", overwrite=overwrite):
            pytest.fail("not refused")
    with pytest.raises(OSError, match="no file can have this name"), new_file("a\0b", overwrite=overwrite):
        pytest.fail("not refused")
    assert names(tmp_path) == before and victim.read_text() == "mine"
    assert Path("/dev/null").is_char_device()


def test_the_input_itself(tmp_path: Path) -> None:
    stream = tmp_path / "stream"
    stream.write_text("mine")
    os.link(stream, tmp_path / "hard")
    (tmp_path / "soft").symlink_to("stream")
    (tmp_path / "folder").symlink_to(".")
    before = names(tmp_path)
    for name in ("stream", "hard", "soft", "folder/stream", f"../{tmp_path.name}/stream", "folder/hard"):
        for source in (stream, str(tmp_path / "soft"), os.fsencode(stream)):
            with (
                pytest.raises(FileExistsError, match="is the input itself"),
                new_file(f"{tmp_path}/{name}", overwrite=True, inputs=[source]),
            ):
                pytest.fail("not refused")
    with (
        stream.open("rb") as opened,
        pytest.raises(FileExistsError, match="is the input itself"),
        new_file(stream, overwrite=True, inputs=["https://example.org/x", b"bytes", None, opened]),
    ):
        pytest.fail("not refused")
    assert names(tmp_path) == before and stream.read_text() == "mine"


def test_guest_memory_is_shown_to_nobody_who_could_not_read_it(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    for given, umask, expected in (
        (0o600, 0o022, 0o600),
        (0o640, 0o022, 0o640),
        (0o640, 0o077, 0o600),
        (0o666, 0o022, 0o644),
        (0o777, 0o000, 0o666),
        (0o400, 0o022, 0o400),
    ):
        a.touch()
        a.chmod(given)
        os.umask(umask)
        with new_file(out, inputs=[a], guest_memory=True) as file:
            (under_way,) = (name for name in names(tmp_path) if name.startswith("."))
            assert mode(tmp_path / under_way) == expected, "also while it is written"
            file.write(b"secret")
        assert mode(out) == expected
        out.unlink()
    os.umask(0o022)
    a.chmod(0o604)
    b.touch()
    b.chmod(0o640)
    with new_file(out, inputs=[a, b, "http://example.org"], guest_memory=True):
        pass
    assert mode(out) == 0o600
    a.chmod(0o644)
    with new_file(out, inputs=[a], overwrite=True):
        pass
    assert mode(out) == 0o600, "as the file that it replaces"
    with new_file(tmp_path / "unknown", guest_memory=True):
        pass
    assert mode(tmp_path / "unknown") == 0o600
    with new_file(tmp_path / "other", inputs=[b]):
        pass
    assert mode(tmp_path / "other") == 0o644


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("ö" * 127)
    with new_file(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), new_file(tmp_path / "nowhere/out"):
        pytest.fail("not refused")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
@pytest.mark.parametrize("writer", ["new_file", "new_folder"])
def test_the_process_is_ended_in_the_midst(tmp_path: Path, number: int, code: int, writer: str) -> None:
    for name in ("out.part", "other"):
        (tmp_path / name).write_text("mine")
    program = (
        "import sys, time\nfrom vmstate_tools.source.new_file import *\n"
        f"with {writer}(sys.argv[1]) as file:\n"
        "    file.write(b'half') and file.flush() if hasattr(file, 'write') else open(file + '/x', 'w').close()\n"
        "    print('now', flush=True)\n    time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(vmstate_tools.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"now\n"
        process.send_signal(number)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    left = [name for name in names(tmp_path) if number != signal.SIGKILL or not name.startswith(".vmstate-")]
    assert left == ["other", "out.part"]
    assert {(tmp_path / name).read_text() for name in left} == {"mine"}


def test_a_folder_of_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        Path(folder, "a").write_text("1")
        assert not out.exists()
    assert names(out) == ["a"] and names(tmp_path) == ["out"]
    with pytest.raises(FileExistsError), new_folder(out):
        pytest.fail("not refused")
    with pytest.raises(KeyError), new_folder(out, overwrite=True) as folder:
        Path(folder, "b").write_text("2")
        raise KeyError
    assert names(out) == ["a"] and names(tmp_path) == ["out"]
    with new_folder(out, overwrite=True) as folder:
        Path(folder, "b").write_text("2")
    assert names(out) == ["b"] and names(tmp_path) == ["out"]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(out)
    for name in ("file", "link"):
        with pytest.raises(FileExistsError), new_folder(tmp_path / name, overwrite=True):
            pytest.fail("not refused")
    assert names(out) == ["b"]


def test_a_folder_is_replaced_where_names_cannot_change_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def renameat2(self, *_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc())
    for name in "ab":
        with new_folder(tmp_path / "out", overwrite=True) as folder:
            Path(folder, name).touch()
    assert names(tmp_path / "out") == ["b"] and names(tmp_path) == ["out"]


def test_no_other_module_writes_files() -> None:
    """Outputs go through `new_file`; these write into private temporary folders, and to pipes."""
    private = {"qemu_source/tree.py", "emulator/guest.py", "emulator/process.py", "cli/rewrite.py", "cli/main.py"}
    private |= {"source/new_file.py", "source/content.py"}
    package = Path(vmstate_tools.__file__).parent
    writes = re.compile(r"""write_text\(|write_bytes\(|\.to_csv\(["'\w]|open\([^)]*["'][wax]b?\+?["']|O_CREAT""")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(writes.search(line) for line in path.read_text().splitlines())
    }
    assert found <= private, found - private
