"""How are files read and written so that nothing is lost? The one durable write, and the one place that opens sources."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from aiom4b.errors import Aiom4bError, Exit, NeedsAttention, Transient
from aiom4b.models import FileIdentity, Sha256

HIDDEN = ".aiom4b"
"""Every name of ours that must not be taken for a book, a backup or a source begins with it."""

BLOCK = 1 << 20
"""Bytes read, hashed and written at a time."""

_TEMPORARY = re.compile(re.escape(HIDDEN) + r"-[0-9a-f]{16}\.tmp")  # what `temporary_beside` gives
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NOT_SUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
# Characters that turn or hide the text around them: marks, embeddings, isolates, line and paragraph separators.
_DECEIVING = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def displayable(name: str) -> str:
    r"""Return ``name`` fit for a terminal, a log or JSON.

    Bytes that are not UTF-8 show as ``\xff``, control and direction-changing characters as ``\n``, ``\x1b`` or ``\u202e``.
    """
    return "".join(_shown(character) for character in name)


def _shown(character: str) -> str:
    point = ord(character)
    if 0xDC80 <= point <= 0xDCFF:  # how os.fsdecode carries a byte that is not UTF-8
        return f"\\x{point - 0xDC00:02x}"
    if character in _DECEIVING or unicodedata.category(character) in {"Cc", "Cs"}:
        return character.encode("unicode_escape").decode("ascii")
    return character


@contextmanager
def translated(path: str, doing: str) -> Iterator[None]:
    """Turn an OSError of the block into one of our errors, naming ``path`` and what we were ``doing`` ("reading").

    Raises Transient ``space.full`` and ``file.io``; NeedsAttention ``file.not_permitted``, ``file.missing``,
    ``file.name_too_long``, ``file.exists``, ``file.other_volume`` and, for whatever else the system says, ``file.error``.
    """
    try:
        yield
    except OSError as error:
        raise _verdict(error, path, doing) from error


def _verdict(error: OSError, path: str, doing: str) -> Aiom4bError:
    reason = f"Failed while {doing} {displayable(path)}: {error.strerror or error}."
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            remedy = "Free some space (or inodes, or quota) on that file system. The service then goes on by itself; a command has to be given again."
            return Transient("space.full", reason, remedy=remedy, path=path)
        case errno.EIO | errno.ESTALE | errno.ETIMEDOUT:
            remedy = (
                "Check the disk and the network mount. The service tries again later; a command has to be given again."
            )
            return Transient("file.io", reason, remedy=remedy, path=path)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            remedy = "Give the user that aiom4b runs as the right to do so, and check that the volume is not read-only."
            return NeedsAttention("file.not_permitted", reason, remedy=remedy, path=path, exit=Exit.NOT_PERMITTED)
        case errno.ENOENT | errno.ENOTDIR:
            remedy = "Check the path, and that its volume is mounted."
            return NeedsAttention("file.missing", reason, remedy=remedy, path=path, exit=Exit.NOT_FOUND)
        case errno.EXDEV:
            remedy = "Nothing can move between file systems in one step: put no mount, subvolume or share of its own below the directories that aiom4b writes to, or name that place itself in the settings."
            return NeedsAttention("file.other_volume", reason, remedy=remedy, path=path)
        case errno.ENAMETOOLONG:
            remedy = "Shorten the name: most file systems take 255 bytes a name and 4096 a path."
            return NeedsAttention("file.name_too_long", reason, remedy=remedy, path=path)
        case errno.EEXIST:
            remedy = "Move the file that is already there out of the way; it is never overwritten."
            return NeedsAttention("file.exists", reason, remedy=remedy, path=path)
        case _:
            remedy = "Read what the system says about it above, mend that, and try again."
            return NeedsAttention("file.error", reason, remedy=remedy, path=path)


def lies_in(path: str, directory: str) -> bool:
    """Whether a path is in a directory, or is it, once links are followed as far as there is something to follow."""
    root = os.path.realpath(directory)
    return os.path.commonpath([root, os.path.realpath(path)]) == root


def identity(status: os.stat_result) -> FileIdentity:
    """Return which bytes a file stood for when ``status`` was taken. ctime is part of it, because mtime can be set."""
    return FileIdentity(
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )


def open_regular(path: str) -> int:
    """Return a descriptor for reading a regular file; the caller closes it. Nothing else in the house opens sources.

    Raises NeedsAttention ``file.not_regular`` for links, FIFOs, sockets, devices and folders, and what `translated` raises.
    """
    with translated(path, "reading"):
        # Looking first, since merely opening a FIFO wakes its writer and a tape rewinds; the flags close the race after it.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise _not_regular(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO}:
                raise _not_regular(path) from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _not_regular(path)
    return descriptor


def _not_regular(path: str) -> NeedsAttention:
    return NeedsAttention(
        "file.not_regular",
        f"{displayable(path)} is not a regular file.",
        remedy="Put the file itself there instead of a link, a pipe or a device.",
        path=path,
    )


def unheard(size: int) -> None:
    """Take the news of ``size`` bytes done, for callers that don't want it."""


def hash_file(path: str, *, from_disk: bool = False, on_bytes: Callable[[int], None] = unheard) -> Sha256:
    """Return the SHA-256 of a regular file; ``from_disk`` asks the system to forget what it holds in memory first.

    ``on_bytes`` hears of every block; what it raises ends the work. Raises what `open_regular` and `translated` raise.
    """
    descriptor = open_regular(path)
    try:
        with translated(path, "reading"):
            return hash_open(descriptor, bytearray(BLOCK), from_disk=from_disk, on_bytes=on_bytes)
    finally:
        os.close(descriptor)


def hash_open(descriptor: int, buffer: bytearray, *, from_disk: bool, on_bytes: Callable[[int], None]) -> Sha256:
    """Do what `hash_file` does for a descriptor, from its file's beginning, through ``buffer``. Raises OSError."""
    if from_disk:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # drops only what has been synced: do that before
    digest, offset = hashlib.sha256(), 0
    while count := os.preadv(descriptor, [buffer], offset):
        digest.update(memoryview(buffer)[:count])
        offset += count
        on_bytes(count)
    return Sha256(digest.hexdigest())


def temporary_beside(path: str) -> str:
    """Return a fresh hidden name in the folder of ``path``. It is short however long the name of ``path`` is."""
    return os.path.join(os.path.dirname(path), f"{HIDDEN}-{secrets.token_hex(8)}.tmp")


def write_durably(path: str, data: bytes, *, replace: bool = False, mode: int = 0o666) -> None:
    """Write ``data`` so that ``path`` holds all of it, or what it held before, whatever happens and whenever.

    On return it survives a power cut. ``mode`` is lessened by the umask. Safe to repeat. Without ``replace`` an existing
    file raises NeedsAttention ``file.exists`` and stays; otherwise raises what `translated` raises.
    """
    temporary = temporary_beside(path)
    with translated(path, "writing"):
        descriptor = create(temporary, mode)
        try:
            write_all(descriptor, data)
            # A failed fsync is final: the kernel may have dropped the pages, so a second one would lie.
            os.fsync(descriptor)
            if replace:
                os.replace(temporary, path)
                fsync_directory(os.path.dirname(path))
            else:
                publish(temporary, path)
        except BaseException:
            discard(temporary)
            raise
        finally:
            os.close(descriptor)  # not before the temporary name is gone: until then it keeps `sweep` away


def create(path: str, mode: int = 0o666) -> int:
    """Return a descriptor, for reading and writing, of a new file; raises FileExistsError rather than open an old one.

    As long as it is open the file is locked: that tells `sweep` that somebody is at work.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with suppress(OSError):  # a file system without locks gives `sweep` none either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.exists(path):
            return descriptor
        os.close(descriptor)  # swept away between the two calls


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte of ``data``; the system may take fewer than it is given. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def discard(temporary: str) -> None:
    """Remove a temporary file of ours while an error is on its way."""
    with suppress(OSError):  # the error on its way tells more, and a hidden name left behind is taken for nothing
        os.unlink(temporary)


def sweep(folder: str, *, below: bool = False) -> None:
    """Remove the temporary files that killed processes left in a folder, and with ``below`` in the folders under it.

    Only regular files of our own user under names that `temporary_beside` gives, and none that a living process of this
    machine holds open since it made it (`create`). What can't be removed stays: it is hidden, and taken for nothing.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            if _TEMPORARY.fullmatch(name):
                with suppress(OSError):
                    _remove_abandoned(os.path.join(place, name))
        if not below:
            return


def _remove_abandoned(temporary: str) -> None:
    status = os.lstat(temporary)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return
    # For writing, since NFS grants an exclusive lock to nobody else.
    descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(temporary)  # its writer may have given the file its final name meanwhile: that name is not touched
    finally:
        os.close(descriptor)


def publish(temporary: str, final: str) -> None:
    """Give a finished file or folder its name, durably and without ever replacing anything.

    Both names must be on one file system. Safe to repeat after a crash in the middle. Raises FileExistsError when the
    name is taken, and what `translated` raises.
    """
    with translated(final, "putting in place"):
        moved = _moved(temporary, final)
        if moved:
            for folder in {os.path.dirname(final), os.path.dirname(temporary)}:
                fsync_directory(folder)
    if not moved:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final)


def _moved(temporary: str, final: str) -> bool:
    status = os.lstat(temporary)
    try:
        _rename_to_free_name(temporary, final, folder=stat.S_ISDIR(status.st_mode))
    except OSError as error:
        # Over NFS a lost reply makes a move that has happened look failed, and a crash between link and unlink leaves both
        # names on one file: what stands under the final name decides.
        try:
            there = os.lstat(final)
        except FileNotFoundError:
            raise error from None
        if (there.st_dev, there.st_ino) != (status.st_dev, status.st_ino):
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
                return False
            raise
        with suppress(FileNotFoundError):  # gone already when it was the whole move that happened
            os.unlink(temporary)
    return True


def _rename_to_free_name(temporary: str, final: str, *, folder: bool) -> None:
    try:
        _renameat2(temporary, final)
        return
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    if not folder:
        try:
            os.link(temporary, final, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
        else:
            os.unlink(temporary)
            return
    # Neither call exists here (some FUSE file systems; NFS for folders). Looking first leaves a gap of microseconds in which
    # another program could take a file's name; a folder that somebody has filled is refused by rename itself.
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final)
    os.rename(temporary, final)


def _renameat2(old: str, new: str) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:  # a C library older than 2018
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), old)
    if function(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), ctypes.c_uint(_RENAME_NOREPLACE)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old, None, new)


def make_directories(path: str) -> None:
    """Make a folder and its missing parents, durably: modes 0777 less the umask, group and default ACL inherited.

    Safe to repeat. Raises what `translated` raises; ``file.exists`` when something else has the name.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path.rstrip("/"))
    if parent not in {"", path}:
        make_directories(parent)
    with translated(path, "making the folder"):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        fsync_directory(parent)


def make_heir(path: str, home: str) -> None:
    """Make a folder with the group and the default ACL of what is made in ``home``, on the same file system; else as above.

    A book and a backup are made in a hidden folder that may be older than what their owner has since set on the directory
    where they appear, and moving changes neither. Only the system can give both to a folder, when it makes one.
    """
    born = os.path.join(home, f"{HIDDEN}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}")
    with translated(path, "making the folder"):
        with suppress(FileExistsError):  # left by a process that was killed here
            os.mkdir(born)
        try:
            os.rename(born, path)
        except OSError:
            if not os.path.isdir(path):  # another process was quicker
                raise
            with suppress(OSError):
                os.rmdir(born)
        fsync_directory(os.path.dirname(path))


def fsync_directory(path: str) -> None:
    """Make the names in a folder survive a power cut ("" is the current folder). Raises OSError."""
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:  # some network and FUSE file systems know no such thing for folders
            raise
    finally:
        os.close(descriptor)


def fsync_tree(folder: str) -> None:
    """Make a folder with every file and folder below it survive a power cut. Raises what `translated` raises."""
    with translated(folder, "writing"):
        with os.scandir(folder) as entries:
            below = sorted(entries, key=lambda entry: entry.name)
        for entry in below:
            if entry.is_dir(follow_symlinks=False):
                fsync_tree(entry.path)
            elif entry.is_file(follow_symlinks=False):
                descriptor = open_regular(entry.path)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        fsync_directory(folder)


@contextmanager
def locked(path: str, busy: Aiom4bError) -> Iterator[None]:
    """Hold the lock file at ``path``, which is gone afterwards; raises ``busy`` at once when somebody else holds it.

    The lock goes with the process, however that ends; the file of a process that was killed serves the next one.
    Otherwise raises what `translated` raises.
    """
    descriptor = _lock(path, busy)
    try:
        yield
    finally:
        # Removed while it is held: whoever opened it before that finds, once it is his, that the name is gone. One that
        # can't be removed does no harm.
        try:
            with suppress(OSError):
                os.unlink(path)
        finally:
            os.close(descriptor)


def _lock(path: str, busy: Aiom4bError) -> int:
    with translated(path, "locking"):
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise busy from None
            except FileNotFoundError:
                pass  # its last holder has just removed it
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)


def check_writable(directory: str) -> None:
    """Make sure that we can make and remove files in a folder, by doing so.

    Raises NeedsAttention ``directory.missing`` or ``directory.not_writable``, and else what `translated` raises.
    """
    if not os.path.isdir(directory):
        raise NeedsAttention(
            "directory.missing",
            f"{displayable(directory)} is not a folder."
            if os.path.lexists(directory)
            else f"The folder {displayable(directory)} is not there.",
            remedy="Make it, or mount the volume that holds it, or correct the path in the settings.",
            path=directory,
            exit=Exit.NOT_FOUND,
        )
    probe = temporary_beside(os.path.join(directory, "probe"))
    try:
        with translated(probe, "writing"):
            os.close(create(probe))
            with suppress(FileNotFoundError):  # another process swept it away
                os.unlink(probe)
    except NeedsAttention as error:
        raise NeedsAttention(
            "directory.not_writable",
            f"The folder {displayable(directory)} can't be written to: {error.reason}",
            remedy=error.remedy,
            path=directory,
            exit=Exit.NOT_PERMITTED,
        ) from error
