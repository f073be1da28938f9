"""What does the first schema hold? Jobs and their logs, the source's entries, and what outlives both.

Names and paths are BLOBs of their bytes, times are microseconds since 1970 in UTC, values of several parts are JSON.
A release that adds a word to an enumeration kept here (status, kind, step, state) adds a migration too, though it may change
nothing: that is how an older release knows that it would not understand the rows.
"""
# ruff: noqa: INP001 - no package: the runner loads each file by its path

from typing import Any

_SCHEMA = (
    # AUTOINCREMENT: the number of a deleted job is never given to another one.
    """
    CREATE TABLE job (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        status TEXT NOT NULL,
        name BLOB NOT NULL,
        folders BLOB NOT NULL,
        entry BLOB,
        fingerprint TEXT,
        options TEXT NOT NULL,
        priority INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        not_before INTEGER,
        step TEXT,
        progress REAL NOT NULL,
        eta_seconds REAL,
        output BLOB,
        book TEXT,
        backup BLOB,
        error TEXT,
        created INTEGER NOT NULL,
        started INTEGER,
        ended INTEGER,
        updated INTEGER NOT NULL,
        metrics TEXT NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX job_open ON job (fingerprint) WHERE status IN ('queued', 'running', 'waiting')",
    "CREATE INDEX job_status ON job (status)",
    """
    CREATE TABLE note (
        id INTEGER PRIMARY KEY,
        job INTEGER NOT NULL REFERENCES job (sequence) ON DELETE CASCADE,
        at INTEGER NOT NULL,
        event TEXT NOT NULL,
        data TEXT NOT NULL
    )
    """,
    "CREATE INDEX note_job ON note (job)",
    """
    CREATE TABLE entry (
        name BLOB PRIMARY KEY,
        digest TEXT NOT NULL,
        state TEXT NOT NULL,
        problem TEXT,
        fingerprints TEXT NOT NULL,
        files INTEGER NOT NULL,
        size INTEGER NOT NULL,
        changed INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE entry_job (
        entry BLOB NOT NULL REFERENCES entry (name) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        job INTEGER NOT NULL REFERENCES job (sequence) ON DELETE CASCADE,
        PRIMARY KEY (entry, place)
    )
    """,
    "CREATE INDEX entry_job_job ON entry_job (job)",
    "CREATE TABLE published (fingerprint TEXT PRIMARY KEY, book TEXT NOT NULL, path BLOB NOT NULL, at INTEGER NOT NULL)",
    "CREATE TABLE forgotten (fingerprint TEXT PRIMARY KEY)",
    "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "CREATE TABLE flag (name TEXT PRIMARY KEY)",
)


def up(_migrator: Any, database: Any) -> None:
    """Make every table of the first schema."""
    for statement in _SCHEMA:
        database.execute_sql(statement)
