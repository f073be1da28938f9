"""What does a backup set hold, is it still good, and how does it come back? The life of the sets on the disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from aiom4b.adapters.backup_format import (
    MANIFEST,
    SUMS,
    BackupSet,
    holds_key,
    manifest,
    parse_manifest,
    set_name,
    stored_path,
    sums,
)
from aiom4b.adapters.copies import copy_verified
from aiom4b.adapters.files import (
    HIDDEN,
    displayable,
    fsync_directory,
    hash_file,
    locked,
    make_directories,
    open_regular,
    publish,
    translated,
    unheard,
    write_durably,
)
from aiom4b.adapters.trees import EntryKind, walk
from aiom4b.errors import NeedsAttention, Transient

_READ_LIMIT = 64 << 20
"""Bytes: more than any manifest of ours has, and no more is read of somebody else's file."""

# --- making a set -----------------------------------------------------------------------------------------------------


def staging(directory: str, source: str, name: str) -> str:
    """Return the hidden folder where the set of one source is made: the same each time, so that the next run finds it."""
    key = hashlib.sha256(os.fsencode(source) + b"\0" + os.fsencode(name)).hexdigest()[:16]
    return os.path.join(directory, HIDDEN, key)


def claimed(staged: str) -> AbstractContextManager[None]:
    """Hold the right to fill a `staging` folder; raises Transient ``backup.busy`` when another process holds it."""
    make_directories(os.path.dirname(staged))
    busy = Transient(
        "backup.busy",
        "Another process is backing up the same source to the same place.",
        remedy="Wait for it to finish. The service tries again later; a command has to be given again.",
        path=staged,
    )
    return locked(f"{staged}.lock", busy)


def clear(staged: str) -> None:
    """Remove what an earlier run left in a `staging` folder, and the folder. Raises what `translated` raises."""
    with translated(staged, "removing"):
        if os.path.lexists(staged):
            shutil.rmtree(staged)


def complete(staged: str, made: BackupSet, directory: str, name: str) -> BackupSet:
    """Turn a `staging` folder that holds verified copies of ``made.files`` into a set, and return it with its ``root``.

    The manifest is the last file to be written and the folder's name the last thing to change, so that nobody ever sees
    half a set. ``name`` is the source's. Raises what `translated` raises.
    """
    for folder in sorted({os.path.dirname(stored_path(file.path)) for file in made.files} - {""}):
        path = folder
        while path:  # a folder of folders holds no file of its own, and its names must last as well
            with translated(path, "writing"):
                fsync_directory(os.path.join(staged, path))
            path = os.path.dirname(path)
    write_durably(os.path.join(staged, SUMS), sums(made.files))
    write_durably(os.path.join(staged, MANIFEST), manifest(made))
    with translated(directory, "reading the folder"):
        taken = set(os.listdir(directory))
    while True:
        root = os.path.join(directory, set_name(name, made.created, taken))
        try:
            publish(staged, root)
        except FileExistsError:
            taken.add(os.path.basename(root))  # taken since we looked, or in another case on a disk that sees none
        else:
            return replace(made, root=root)


# --- reading, verifying, restoring ------------------------------------------------------------------------------------


def list_sets(directory: str) -> tuple[BackupSet, ...]:
    """Return the complete sets of a backup directory, oldest first. What can't be read is no set: `read_set` tells why.

    Raises what `translated` raises when the directory itself can't be read.
    """
    with translated(directory, "reading the folder"), os.scandir(directory) as entries:
        paths = [one.path for one in entries if not one.name.startswith(".") and one.is_dir(follow_symlinks=False)]
    found = []
    for path in paths:
        with suppress(
            NeedsAttention, Transient
        ):  # lost+found, foreign folders, one bad block: never in the others' way
            found.append(read_set(path))
    return tuple(sorted(found, key=lambda one: (one.created, os.fsencode(one.root))))


def damaged_sets(directory: str) -> dict[str, str]:
    """Return the folders that were sets once, as their sums or manifest show, and why each can't be read any more.

    Raises what `translated` raises when the directory itself can't be read.
    """
    with translated(directory, "reading the folder"), os.scandir(directory) as entries:
        paths = [one.path for one in entries if not one.name.startswith(".") and one.is_dir(follow_symlinks=False)]
    found = {}
    for path in sorted(paths):
        if any(os.path.lexists(os.path.join(path, name)) for name in (MANIFEST, SUMS)):
            try:
                read_set(path)
            except (NeedsAttention, Transient) as error:
                found[path] = error.reason
    return found


def read_set(path: str) -> BackupSet:
    """Return the set in the folder ``path``, as its manifest tells it.

    Raises NeedsAttention ``backup.none`` when there is no manifest, ``backup.damaged`` when it can't be understood, and
    what `translated` raises.
    """
    if not all(_is_regular(os.path.join(path, name)) for name in (MANIFEST, SUMS)):
        raise NeedsAttention(
            "backup.none",
            f"{displayable(path)} is no complete backup: {MANIFEST} or {SUMS} is missing.",
            remedy="Name a folder that aiom4b made; `aiom4b backups list` shows them.",
            path=path,
        )
    try:
        return parse_manifest(_read(os.path.join(path, MANIFEST)), path)
    except ValueError as error:
        raise NeedsAttention(
            "backup.damaged",
            f"{displayable(os.path.join(path, MANIFEST))} can't be understood: {error}.",
            remedy=f"Check the other files with `sha256sum -c {SUMS}` in that folder, or use another backup.",
            path=path,
        ) from error


def verify_set(path: str, *, on_bytes: Callable[[int], None] = unheard) -> tuple[str, ...]:
    """Return what is wrong with a set, one sentence each; nothing when every file is there with the right content.

    Reads every file from the disk; ``on_bytes`` as in `damage`. Raises what `read_set` raises.
    """
    made = read_set(path)
    ours = {stored_path(file.path) for file in made.files} | {SUMS, MANIFEST}
    surplus = (entry.path for entry in walk(path) if entry.kind is not EntryKind.DIRECTORY and entry.path not in ours)
    return damage(made, on_bytes=on_bytes) + tuple(
        f"Surplus: {displayable(path)} does not belong to the backup." for path in surplus
    )


def damage(made: BackupSet, *, on_bytes: Callable[[int], None] = unheard) -> tuple[str, ...]:
    """Return what is missing from a set or has changed in it, read from the disk; surplus files do it no harm.

    ``on_bytes`` hears of every block read; what it raises ends the work.
    """
    findings = []
    try:
        if _read(os.path.join(made.root, SUMS)) != sums(made.files):
            findings.append(f"Changed: {SUMS} does not agree with {MANIFEST}.")
    except (NeedsAttention, Transient) as error:
        findings.append(f"Unreadable: {error.reason}")
    for file in made.files:
        path = os.path.join(made.root, stored_path(file.path))
        shown = displayable(stored_path(file.path))
        try:
            found = hash_file(path, from_disk=True, on_bytes=on_bytes)
        except (NeedsAttention, Transient) as error:  # gone, something else now, or on a bad block of the disk
            findings.append(f"Missing: {shown}." if error.code == "file.missing" else f"Unreadable: {error.reason}")
        else:
            if found != file.sha256:
                findings.append(f"Changed: {shown} has another content than the one backed up.")
    return tuple(findings)


def restore_set(path: str, target: str, *, on_bytes: Callable[[int], None] = unheard) -> tuple[str, ...]:
    """Bring the files of a set back into the folder ``target``, and return their paths.

    Each appears whole, verified and durable, with its mtime, or not at all. A file that is already there with the right
    content counts as restored, so that an interrupted restore is simply repeated. Nothing is ever overwritten: any other
    file in the way raises NeedsAttention ``restore.exists`` before the first one is written. A set that doesn't verify
    raises NeedsAttention ``backup.damaged``. Otherwise raises what `copy_verified` and `translated` raise. ``on_bytes`` hears
    of every block read; what it raises ends the work.
    """
    made = read_set(path)
    findings = damage(made, on_bytes=on_bytes)
    if findings:
        raise NeedsAttention(
            "backup.damaged",
            f"{displayable(path)} is damaged, nothing was restored. {' '.join(findings[:3])}"
            + (f" And {len(findings) - 3} more." if len(findings) > 3 else ""),
            remedy="Use another backup, or copy by hand what is still good there.",
            path=path,
        )
    missing = []
    for file in made.files:
        destination = os.path.join(target, file.path)
        if not os.path.lexists(destination):
            missing.append((file, destination))
        elif not _is_regular(destination) or hash_file(destination, on_bytes=on_bytes) != file.sha256:
            raise _in_the_way(destination)
    for file, destination in missing:
        make_directories(os.path.dirname(destination))
        source = os.path.join(path, stored_path(file.path))
        try:
            copy_verified(
                source,
                destination,
                sha256=file.sha256,
                mtime_ns=file.mtime_ns,
                private=holds_key(file.path),
                on_bytes=on_bytes,
            )
        except FileExistsError as error:
            raise _in_the_way(destination) from error
    return tuple(os.path.join(target, file.path) for file in made.files)


def _in_the_way(path: str) -> NeedsAttention:
    return NeedsAttention(
        "restore.exists",
        f"{displayable(path)} is already there with another content.",
        remedy="Restore into another folder, or move that file away first.",
        path=path,
    )


def _is_regular(path: str) -> bool:
    with translated(path, "looking at"):
        try:
            return stat.S_ISREG(os.lstat(path).st_mode)
        except FileNotFoundError:
            return False


def _read(path: str) -> bytes:
    descriptor = open_regular(path)
    with translated(path, "reading"), open(descriptor, "rb") as file:
        return file.read(_READ_LIMIT)
