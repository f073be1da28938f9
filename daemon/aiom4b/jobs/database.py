"""How is the database opened, and what do its failures mean? SQLite in WAL mode, migrations, and damaged files put aside."""

from __future__ import annotations

import errno
import glob
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import peewee
import structlog
from playhouse.migrations import Runner

from aiom4b.adapters import files
from aiom4b.errors import Aiom4bError, Exit, Fatal, NeedsAttention, Transient
from aiom4b.models import Clock

log = structlog.get_logger()

BUSY_SECONDS = 5.0
"""How long a call waits for another process that holds the database."""
MIGRATIONS = os.path.join(os.path.dirname(__file__), "migrations")

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_PASSING = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM})


class _Database(peewee.SqliteDatabase):
    """A SQLite database whose failures stay what they are."""

    def rollback(self) -> None:
        """Roll back unless SQLite has done so by itself, as it does when the disk is full: trying again would hide why."""
        if peewee.SqliteDatabase.connection(self).in_transaction:
            super().rollback()


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn what SQLite and the system say inside the block into our errors.

    Raises Transient ``space.full``, ``database.busy`` and ``database.io``; Fatal ``database.damaged`` (a start makes a new
    one) and ``database.unusable``. Errors that are mistakes of ours pass unchanged.
    """
    try:
        yield
    except (peewee.PeeweeException, sqlite3.Error) as error:
        cause = _original(error)
        if cause is None or isinstance(cause, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        raise _verdict(cause, path) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _full(path) from error
        raise _unusable(path, error.strerror or str(error)) from error


def _original(error: Exception) -> sqlite3.Error | None:
    # peewee wraps what it executes, but not what is read afterwards.
    original = getattr(error, "orig", error)
    return original if isinstance(original, sqlite3.Error) else None


def _code(error: sqlite3.Error) -> int:
    # The low byte is the kind of failure, the rest its details. Python's own errors carry none.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _verdict(error: sqlite3.Error, path: str) -> Aiom4bError:
    code, shown = _code(error), files.displayable(path)
    if code == sqlite3.SQLITE_FULL:
        return _full(path)
    if code in _BUSY:
        remedy = "Close the other program that has it open, and leave the database to the service while it runs."
        reason = f"Another process has held the database {shown} for more than {BUSY_SECONDS:.0f} seconds."
        return Transient("database.busy", reason, remedy=remedy, path=path)
    if code in _PASSING:
        remedy = "Check the disk that holds it; it is tried again later."
        return Transient(
            "database.io", f"The database {shown} can't be read or written: {error}.", remedy=remedy, path=path
        )
    if code in _DAMAGE:
        remedy = (
            "Start the service again: it puts the damaged file aside and takes up the jobs from what lies on the disk."
        )
        reason = f"The database {shown} is damaged: {error}."
        return Fatal("database.damaged", reason, remedy=remedy, path=path, exit=Exit.FAILED)
    return _unusable(path, str(error))


def _full(path: str) -> Transient:
    return Transient(
        "space.full",
        f"The disk that holds the database {files.displayable(path)} is full.",
        remedy="Free some space (or inodes, or quota) on that file system; the work then goes on by itself.",
        path=path,
    )


def _unusable(path: str, why: str) -> Fatal:
    return Fatal(
        "database.unusable",
        f"The database {files.displayable(path)} can't be used: {why}.",
        remedy="Give the service a state folder on a local disk that it may read and write.",
        path=path,
    )


def open_database(path: str, clock: Clock) -> tuple[peewee.SqliteDatabase, str | None]:
    """Return the database at ``path``, made and brought up to date if need be, and where a damaged one was put.

    Belongs to the thread that calls. The file is readable by its owner only. Its folder must exist. A damaged file, with
    what SQLite keeps beside it, gets the name ``<path>-damaged-<UTC time>`` and an empty database takes its place.
    Raises Fatal ``database.newer`` (nothing is changed) and what `translated` raises.
    """
    with translated(path):
        database, damage = _connected(path)
        aside = None
        if damage:
            # Before it is closed, which would work the log into the damaged file and then remove it.
            try:
                aside = _put_aside(path, f"{clock():%Y%m%dT%H%M%SZ}")
            except NeedsAttention as error:
                raise _unusable(path, f"it is damaged, and can't be put aside. {error.reason}") from error
            finally:
                database.close()
            log.error("database.damaged", path=path, aside=aside, reason=damage)
            database, _ = _connected(path)
        try:
            _prepare(database, path)
        except BaseException:
            database.close()
            raise
    return database, aside


def _connected(path: str) -> tuple[peewee.SqliteDatabase, str]:
    """Return a connection, and what is wrong with the file, "" if it is whole."""
    _make_private(path)
    database: peewee.SqliteDatabase = _Database(path, timeout=BUSY_SECONDS)
    database.connect()
    try:
        found = [text for (text,) in database.execute_sql("PRAGMA quick_check(3)").fetchall()]
        return database, "" if found == ["ok"] else "; ".join(found)
    except (peewee.DatabaseError, sqlite3.DatabaseError) as error:
        cause = _original(error)
        if cause is not None and _code(cause) in _DAMAGE:
            return database, str(cause)
        database.close()
        raise


def _prepare(database: peewee.SqliteDatabase, path: str) -> None:
    ((mode,),) = database.execute_sql("PRAGMA journal_mode = wal").fetchall()
    if mode != "wal":
        raise _unusable(path, "its file system doesn't give the shared memory that SQLite's write-ahead log needs")
    database.execute_sql("PRAGMA synchronous = full")  # with "normal" a power cut takes back what we have told of
    _migrate(database, path)
    database.execute_sql("PRAGMA foreign_keys = on")  # not before: a migration may rebuild a table that others refer to


def _make_private(path: str) -> None:
    # Before SQLite makes it, which would go by the umask; its companions get the mode of the database itself.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    files.fsync_directory(os.path.dirname(path))


def _migrate(database: peewee.SqliteDatabase, path: str) -> None:
    # The runner looks for its files by a pattern. One transaction over all, so that a second process finds all or nothing.
    runner = Runner(database, glob.escape(MIGRATIONS))
    with database.atomic("IMMEDIATE"):
        unknown = [migration.name for migration in runner.status() if migration.path is None]
        if unknown:
            raise Fatal(
                "database.newer",
                f"The database {files.displayable(path)} was written by a newer release of aiom4b ({', '.join(unknown)}).",
                remedy="Install that release again, or move the database away: the library's own records are kept.",
                path=path,
            )
        applied = runner.up()
    if applied:
        log.info("database.migrated", path=path, migrations=applied)


def _put_aside(path: str, time: str) -> str:
    endings = ("-wal", "-shm", "")  # the database last: a log that is left beside a new one would be played into it
    aside, number = f"{path}-damaged-{time}", 1
    while any(os.path.lexists(aside + ending) for ending in endings):
        number += 1
        aside = f"{path}-damaged-{time}-{number}"
    for ending in endings:
        if os.path.lexists(path + ending):
            files.publish(path + ending, aside + ending)
    return aside
