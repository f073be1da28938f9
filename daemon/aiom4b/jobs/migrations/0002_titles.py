"""What does the second schema add? Titles of Audible libraries, what is held of them, and how their accounts stand.

It also tells older releases that jobs of the kind ``download``, and a step of that name, may be among the rows.
"""
# ruff: noqa: INP001 - no package: the runner loads each file by its path

from typing import Any

_SCHEMA = (
    "ALTER TABLE job ADD COLUMN asin TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX job_asin ON job (asin) WHERE asin != ''",
    """
    CREATE UNIQUE INDEX job_open_download ON job (asin)
    WHERE asin != '' AND kind = 'download' AND status IN ('queued', 'running', 'waiting')
    """,
    # The search column is what `titles.folded` makes of the words that a title is looked for by.
    """
    CREATE TABLE title (
        id INTEGER PRIMARY KEY,
        profile TEXT NOT NULL,
        asin TEXT NOT NULL,
        search TEXT NOT NULL,
        metadata TEXT NOT NULL,
        runtime_minutes INTEGER NOT NULL,
        cover TEXT NOT NULL,
        purchased INTEGER,
        released INTEGER,
        item TEXT NOT NULL,
        unavailable TEXT,
        refused TEXT,
        came_later INTEGER NOT NULL,
        first_seen INTEGER NOT NULL,
        changed INTEGER NOT NULL,
        UNIQUE (profile, asin)
    )
    """,
    "CREATE INDEX title_asin ON title (asin)",
    """
    CREATE TABLE holding (
        asin TEXT PRIMARY KEY,
        files BLOB,
        book BLOB,
        declined INTEGER NOT NULL DEFAULT 0,
        changed INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE licence (
        profile TEXT NOT NULL,
        asin TEXT NOT NULL,
        at INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        PRIMARY KEY (profile, asin, at)
    )
    """,
    "CREATE INDEX licence_at ON licence (at)",
    """
    CREATE TABLE pause (
        profile TEXT NOT NULL,
        cause TEXT NOT NULL,
        until INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        problem TEXT NOT NULL,
        PRIMARY KEY (profile, cause)
    )
    """,
    """
    CREATE TABLE sync_state (
        profile TEXT PRIMARY KEY,
        state_token TEXT NOT NULL,
        last_sync INTEGER,
        last_full_sync INTEGER
    )
    """,
)


def up(_migrator: Any, database: Any) -> None:
    """Add what the account needs; the jobs that are there have no title."""
    for statement in _SCHEMA:
        database.execute_sql(statement)
