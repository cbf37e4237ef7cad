"""Files that the package writes: complete under their name or not there, and nothing of the user's replaced unasked.

Every output goes through here. The known libraries for this (atomicwrites, archived in 2022) replace links, devices and
the input itself, and leave their temporary file behind on SIGTERM.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import secrets
import shutil
import signal
import stat
import threading
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType
    from typing import Any, BinaryIO, TextIO

    Place = str | os.PathLike[str]

EXISTS = "exists already"
"""What a FileExistsError says where `overwrite` would help."""

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# What link(2) says where the file system has no hard links: FAT, and some that are mounted over a network.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextlib.contextmanager
def new_file(
    path: Place, *, overwrite: bool = False, inputs: Iterable[Any] = (), guest_memory: bool = False
) -> Iterator[BinaryIO]:
    """Opens a file to write, which has its name only when the block ends without an exception.

    Until then it stands in the same folder under a random name that begins with `.vmstate-`. It is synced to disk
    before it is renamed. It is removed on every exception, Ctrl-C, SIGTERM and SIGHUP; after SIGKILL it may stay, under
    its random name.

    Parameters
    ----------
    path : the name it gets. A link, a directory, a device, a FIFO or a socket is never replaced.
    overwrite : replace the regular file that is there. Without it a file that appears meanwhile stays as it is, too.
    inputs : what the content comes from: paths, "-" for standard input, open files; other things are passed over.
        None of them is ever replaced, under whatever name.
    guest_memory : the content is memory or device state of a guest. Whoever may not read all inputs may not read
        the file; where no input has permissions, its owner alone may (0600). Without it the umask decides.

    Raises
    ------
    FileExistsError : something is there, and not `overwrite`, or it is something that is never replaced.
    OSError : the folder is not there or cannot be written, the disk is full.
    """
    folder, name = _split(path)
    sources = [found for found in map(_stat, inputs) if found is not None]
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _signals_raise(), _described(path):
            _refuse(place, name, path, overwrite, sources)
            part = _random_name()
            # Who may read it is settled before the first byte is written.
            mode = _mode(sources, guest_memory, _lstat(name, place))
            try:
                number = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=place)
                with os.fdopen(number, "w+b") as file:
                    yield cast("BinaryIO", file)
                    file.flush()
                    os.fsync(file.fileno())
                _refuse(place, name, path, overwrite, sources)
                if overwrite:
                    os.rename(part, name, src_dir_fd=place, dst_dir_fd=place)
                else:
                    _rename_to_new(place, part, name)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=place)
            os.fsync(place)
    finally:
        os.close(place)


@contextlib.contextmanager
def new_text_file(
    path: Place, *, overwrite: bool = False, inputs: Iterable[Any] = (), guest_memory: bool = False
) -> Iterator[TextIO]:
    """Opens a text file as `new_file` does: UTF-8, line ends as they are written."""
    with new_file(path, overwrite=overwrite, inputs=inputs, guest_memory=guest_memory) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            yield text
            text.flush()
        finally:
            text.detach()


@contextlib.contextmanager
def new_folder(path: Place, *, overwrite: bool = False) -> Iterator[str]:
    """Makes a folder to fill and gives its path; it has its name only when the block ends without an exception.

    As `new_file`, for a folder of files that belong together. With `overwrite` the folder that is there changes places
    with the new one when that is complete, and is removed. Whoever writes
    its files must sync them, as `new_file` does.
    """
    parent, name = _split(path)
    with _signals_raise(), _described(path):
        there = _lstat(os.path.join(parent, name))
        if there is not None and not (overwrite and stat.S_ISDIR(there.st_mode)):
            raise FileExistsError(errno.EEXIST, EXISTS, os.fspath(path))
        part, final = os.path.join(parent, _random_name()), os.path.join(parent, name)
        try:
            os.mkdir(part)
            yield part
            if overwrite and os.path.isdir(final) and not os.path.islink(final):
                _exchange(part, final)  # what was there is removed below
            else:
                os.rename(part, final)
            _sync(parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _exchange(a: str, b: str) -> None:
    """Has two names change places, so that there is never a moment without one of them (renameat2, Linux 3.15)."""
    at_fdcwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(at_fdcwd, os.fsencode(a), at_fdcwd, os.fsencode(b), rename_exchange) != 0:
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(number, os.strerror(number), b)
        aside = os.path.join(os.path.dirname(b), _random_name())  # NFS, and others that cannot
        os.rename(b, aside)
        os.rename(a, b)
        os.rename(aside, a)


def _sync(folder: str) -> None:
    """Has the names in a folder on disk."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _split(path: Place) -> tuple[str, str]:
    """Returns the folder of a path and the name in it."""
    text = os.fsdecode(path)
    if "\0" in text:
        raise OSError(errno.EINVAL, "no file can have this name", text)
    folder, name = os.path.split(text)
    if name in ("", ".", ".."):
        raise IsADirectoryError(errno.EISDIR, "is a directory", text)
    return folder or ".", name


def _random_name() -> str:
    return f".vmstate-{secrets.token_hex(8)}"


def _stat(source: Any) -> os.stat_result | None:
    """Returns what the system says of an input; None for what is no file, or not there."""
    try:
        if hasattr(source, "fileno"):
            return os.fstat(source.fileno())
        return os.fstat(0) if source == "-" else os.stat(source)
    except (OSError, ValueError, TypeError):
        return None


def _lstat(name: str, place: int | None = None) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=place)
    except FileNotFoundError:
        return None


def _mode(sources: list[os.stat_result], guest_memory: bool, replaced: os.stat_result | None) -> int:
    """Returns the permissions of a new file, before the umask: no more than the file has that it replaces."""
    mode = 0o600 if guest_memory and not sources else 0o666
    for source in [*(sources if guest_memory else ()), *([replaced] if replaced else ())]:
        mode &= source.st_mode
    return mode


def _refuse(place: int, name: str, path: Place, overwrite: bool, sources: list[os.stat_result]) -> None:
    """Raises FileExistsError where the name is taken by what may not be replaced."""

    def refuse(what: str) -> None:
        raise FileExistsError(errno.EEXIST, what, os.fspath(path))

    there = _lstat(name, place)
    if there is None:
        return
    try:
        target = os.stat(name, dir_fd=place)
    except OSError:  # a link to nothing
        target = there
    if any(os.path.samestat(target, source) for source in sources):
        refuse("is the input itself")
    for is_kind, kind in _KINDS:
        if is_kind(there.st_mode):
            refuse(f"is {kind}, which is never replaced")
    if not overwrite:
        refuse(EXISTS)


def _rename_to_new(place: int, part: str, name: str) -> None:
    """Renames a file unless the new name is taken: FileExistsError then."""
    try:
        os.link(part, name, src_dir_fd=place, dst_dir_fd=place, follow_symlinks=False)
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=place))
        os.rename(part, name, src_dir_fd=place, dst_dir_fd=place)


@contextlib.contextmanager
def _described(path: Place) -> Iterator[None]:
    """Has errors name the file as the user did, not by its random name."""
    try:
        yield
    except OSError as err:
        if isinstance(err.filename, str) and os.path.basename(err.filename).startswith(".vmstate-"):
            err.filename = os.fspath(path)
            err.filename2 = None
        raise


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Has SIGTERM and SIGHUP raise SystemExit in the block, where they would end the process on the spot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ours = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    try:
        for number in ours:
            signal.signal(number, stop)
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
