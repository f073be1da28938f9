"""How do jobs, entries and titles lie in the database? A model for each table, with fields that turn columns into values.

The models are bound to no database: each query is told where it runs. The schema itself is made by ``migrations/``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import peewee
from pydantic import TypeAdapter

from aiom4b.jobs.job import EntryState, Job, JobEvent, JobOptions, Kind, Metrics, Problem, Status
from aiom4b.jobs.title import Asin, Cause, Pause, SyncState, TitleFacts
from aiom4b.models import Fingerprint, Metadata, Step

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _NameField(peewee.Field):
    """A name or path as its bytes: text with surrogates can't be stored, and text would not give the same bytes back."""

    field_type = "BLOB"

    def db_value(self, value: str | None) -> bytes | None:
        return None if value is None else os.fsencode(value)

    def python_value(self, value: bytes | None) -> str | None:
        return None if value is None else os.fsdecode(value)


class _NamesField(peewee.Field):
    """Several paths, with NULs between them: the one byte that no path can hold."""

    field_type = "BLOB"

    def db_value(self, value: tuple[str, ...]) -> bytes:
        return b"\0".join(map(os.fsencode, value))

    def python_value(self, value: bytes) -> tuple[str, ...]:
        return tuple(map(os.fsdecode, value.split(b"\0"))) if value else ()


class _TimeField(peewee.Field):
    """An aware time in whole microseconds, so that it comes back equal and sorts as a number."""

    field_type = "INTEGER"

    def db_value(self, value: datetime | None) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def python_value(self, value: int | None) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


class _WordField(peewee.Field):
    """A word of an enumeration."""

    field_type = "TEXT"

    def __init__(self, words: type[StrEnum], **facts: Any) -> None:
        super().__init__(**facts)
        self._words = words

    def db_value(self, value: StrEnum | None) -> str | None:
        return None if value is None else str(value)

    def python_value(self, value: str | None) -> StrEnum | None:
        return None if value is None else self._words(value)


class _ValueField(peewee.Field):
    """A value of several parts as JSON, in ASCII: names inside it may hold surrogates."""

    field_type = "TEXT"

    def __init__(self, kind: Any, **facts: Any) -> None:
        super().__init__(**facts)
        self._adapter = TypeAdapter[Any](kind)

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(self._adapter.dump_python(value), ensure_ascii=True)

    def python_value(self, value: str | None) -> Any:
        return None if value is None else self._adapter.validate_python(json.loads(value))


def _table(model: type[peewee.Model]) -> str:
    """Return ``entry_job`` for ``EntryJobRow``."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", model.__name__.removesuffix("Row")).lower()


class _Row(peewee.Model):
    class Meta:
        """What all tables share."""

        table_function = _table


class JobRow(_Row):
    """A job; the columns have the names of `Job`'s fields."""

    sequence = peewee.AutoField()
    id = peewee.TextField()
    kind = _WordField(Kind)
    status = _WordField(Status)
    name = _NameField()
    folders = _NamesField()
    entry = _NameField(null=True)
    fingerprint = peewee.TextField(null=True)
    options = _ValueField(JobOptions)
    priority = peewee.IntegerField()
    attempts = peewee.IntegerField()
    not_before = _TimeField(null=True)
    step = _WordField(Step, null=True)
    progress = peewee.FloatField()
    eta_seconds = peewee.FloatField(null=True)
    output = _NameField(null=True)
    book = peewee.TextField(null=True)
    backup = _NameField(null=True)
    error = _ValueField(Problem, null=True)
    created = _TimeField()
    started = _TimeField(null=True)
    ended = _TimeField(null=True)
    updated = _TimeField()
    metrics = _ValueField(Metrics)
    asin = peewee.TextField(default="")

    def value(self) -> Job:
        """Return the job."""
        return Job(**self.__data__)


class NoteRow(_Row):
    """A line of a job's log; ``job`` is the job's sequence."""

    id = peewee.AutoField()
    job = peewee.IntegerField()
    at = _TimeField()
    event = peewee.TextField()
    data = _ValueField(Mapping[str, object])

    def value(self) -> JobEvent:
        """Return the line."""
        return JobEvent(at=self.at, event=self.event, data=self.data)


class EntryRow(_Row):
    """An entry of the source as it was put; `SourceEntry.jobs` are `EntryJobRow`s."""

    name = _NameField(primary_key=True)
    digest = peewee.TextField()
    state = _WordField(EntryState)
    problem = _ValueField(Problem, null=True)
    fingerprints = _ValueField(tuple[Fingerprint, ...])
    files = peewee.IntegerField()
    size = peewee.IntegerField()
    changed = _TimeField()


class EntryJobRow(_Row):
    """Which jobs came of an entry's present content: ``job`` is a sequence, ``place`` its place in `SourceEntry.jobs`."""

    entry = _NameField()
    place = peewee.IntegerField()
    job = peewee.IntegerField()

    class Meta:
        """The key."""

        primary_key = peewee.CompositeKey("entry", "place")


class PublishedRow(_Row):
    """What was made of a fingerprint last: it outlives the job."""

    fingerprint = peewee.TextField(primary_key=True)
    book = peewee.TextField()
    path = _NameField()
    at = _TimeField()


class ForgottenRow(_Row):
    """A fingerprint that shall be converted again although it was published."""

    fingerprint = peewee.TextField(primary_key=True)


class CounterRow(_Row):
    """A number that only rises."""

    name = peewee.TextField(primary_key=True)
    value = peewee.IntegerField()


class FlagRow(_Row):
    """Something that is so while the row is there."""

    name = peewee.TextField(primary_key=True)


class TitleRow(_Row):
    """A title of one account as its library last told of it; where it stands follows from other rows.

    ``search`` is what `titles.folded` makes of the words that it is looked for by. ``refused`` is why it could not be had
    when it was asked for.
    """

    id = peewee.AutoField()
    profile = peewee.TextField()
    asin = peewee.TextField()
    search = peewee.TextField()
    metadata = _ValueField(Metadata)
    runtime_minutes = peewee.IntegerField()
    cover = peewee.TextField()
    purchased = _TimeField(null=True)
    released = _TimeField(null=True)
    item = _ValueField(Mapping[str, object])
    unavailable = _ValueField(Problem, null=True)
    refused = _ValueField(Problem, null=True)
    came_later = peewee.BooleanField()
    first_seen = _TimeField()
    changed = _TimeField()

    def facts(self) -> TitleFacts:
        """Return what the library told."""
        return TitleFacts(
            asin=Asin(self.asin),
            metadata=self.metadata,
            runtime_minutes=self.runtime_minutes,
            cover=self.cover,
            purchased=self.purchased,
            released=self.released,
            item=self.item,
            unavailable=self.unavailable,
        )


class HoldingRow(_Row):
    """What of a title is on our disks, whichever accounts have it, and whether its owner has ``declined`` it: cancelled a job.

    It outlives the jobs.
    """

    asin = peewee.TextField(primary_key=True)
    files = _NameField(null=True)
    book = _NameField(null=True)
    declined = peewee.BooleanField(default=False)
    changed = _TimeField()


class LicenceRow(_Row):
    """A licence that was asked for, and what came of it."""

    profile = peewee.TextField()
    asin = peewee.TextField()
    at = _TimeField()
    outcome = peewee.TextField()

    class Meta:
        """The key."""

        primary_key = peewee.CompositeKey("profile", "asin", "at")


class PauseRow(_Row):
    """Until when an account is left alone for one cause."""

    profile = peewee.TextField()
    cause = _WordField(Cause)
    until = _TimeField()
    failures = peewee.IntegerField()
    problem = _ValueField(Problem)

    class Meta:
        """The key."""

        primary_key = peewee.CompositeKey("profile", "cause")

    def value(self) -> Pause:
        """Return the pause."""
        return Pause(cause=self.cause, until=self.until, failures=self.failures, problem=self.problem)


class SyncStateRow(_Row):
    """How far an account's library is known."""

    profile = peewee.TextField(primary_key=True)
    state_token = peewee.TextField()
    last_sync = _TimeField(null=True)
    last_full_sync = _TimeField(null=True)

    def value(self) -> SyncState:
        """Return the state."""
        return SyncState(state_token=self.state_token, last_sync=self.last_sync, last_full_sync=self.last_full_sync)
