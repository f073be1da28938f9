"""What do requests and answers about Audible look like? No answer has a place for a secret."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    SecretBytes,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

from aiom4b.adapters.files import displayable
from aiom4b.control.schemas.names import Exact, all_readable, exactly, readable, shown
from aiom4b.control.schemas.requests import Request
from aiom4b.control.schemas.work import Document, ErrorDocument
from aiom4b.jobs.job import JobOptions
from aiom4b.jobs.title import AccountStatus, Asin, Cause, Pause, Profile, Title, TitleStatus
from aiom4b.redaction import hidden

PROFILE = "^[A-Za-z0-9_-]{1,64}$"
_COUNTRY = "^[a-z]{2}$"


def _utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is too far away") from error


def _text(given: SecretStr) -> SecretStr:
    if any("\ud800" <= character <= "\udfff" for character in given.get_secret_value()):
        raise ValueError("holds half a character")
    return given


def _unpacked(value: object) -> object:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("should be base64") from None  # the cause holds what was sent


# Titles change at times in UTC, and SQLite compares texts.
Since = Annotated[AwareDatetime, AfterValidator(_utc)]
GivenSecret = Annotated[SecretStr, AfterValidator(_text)]
GivenAsin = Annotated[Asin, Field(pattern="^[A-Z0-9]{10}$", description="Ten characters that name a title at Audible.")]
GivenProfile = Annotated[
    Profile, Field(pattern=PROFILE, description="The owner's name for one account in one marketplace.")
]
Country = Annotated[str, Field(pattern=_COUNTRY, description='The market, such as "de", "uk" or "us".')]


# --- what may be asked --------------------------------------------------------------------------------------------------


class SyncRequest(Request):
    """Which accounts shall be synced, and how."""

    profile: GivenProfile | None = Field(default=None, description="All accounts unless given.")
    full: bool = Field(default=False, description="List the whole library, not only what has changed.")


class DownloadRequest(Request):
    """Which titles shall be fetched: one, several, or all that are new."""

    asin: GivenAsin | None = None
    asins: Annotated[list[GivenAsin], Field(min_length=1, max_length=1000)] | None = None
    new: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(given is not None for given in (self.asin, self.asins, self.new)) != 1:
            raise ValueError("should have one of asin, asins and new")
        return self

    def wanted(self) -> list[Asin] | None:
        """Return the titles, each once; None for all that are new."""
        if self.new:
            return None
        return list(dict.fromkeys(self.asins or [asin for asin in [self.asin] if asin is not None]))


class TitleRequest(Request):
    """A title whose book shall be made."""

    asin: GivenAsin
    format: Literal["m4b"] = Field(default="m4b", description="What is made. There is one format.")
    naming_scheme: str | None = Field(
        default=None, max_length=1000, description="A template for the book's path, in place of library.template."
    )
    priority: int = Field(default=0, ge=-1000, le=1000, description="The larger, the sooner.")

    def options(self) -> JobOptions:
        """Return what was asked for as the options of a job."""
        return JobOptions(naming_scheme=self.naming_scheme)


class SignInRequest(Request):
    """Where a sign-in begins."""

    country: Country
    with_username: bool = Field(default=False, description="With the name of an old Audible account, not Amazon's.")


class FinishRequest(Request):
    """Where the browser ended after a sign-in."""

    address: GivenSecret = Field(
        min_length=1, max_length=16_384, description="The whole address of the page that could not be found."
    )


class ImportRequest(Request):
    """The sign-in of another program: audible-cli's file, or Libation's AccountsSettings.json."""

    document: GivenSecret | None = Field(default=None, description="The content of the file, as text.")
    document_b64: (
        Annotated[SecretBytes, BeforeValidator(_unpacked), WithJsonSchema({"type": "string", "format": "byte"})] | None
    ) = Field(default=None, description="The same in base64, where it is no text.")
    password: GivenSecret | None = Field(default=None, description="What the file is encrypted with.")
    country: Country | None = Field(default=None, description="The market, where the file has several or none.")

    @model_validator(mode="after")
    def _one_document(self) -> Self:
        if (self.document is None) == (self.document_b64 is None):
            raise ValueError("should have either document or document_b64")
        return self

    def content(self) -> bytes:
        """Return the bytes of the file."""
        if self.document_b64 is not None:
            return self.document_b64.get_secret_value()
        assert self.document is not None
        return self.document.get_secret_value().encode()


# --- what is answered ---------------------------------------------------------------------------------------------------


class SeriesDocument(Document):
    """A series, and the title's place in it."""

    name: str
    part: str


class TitleDocument(Document):
    """A title of the library. ``cover`` is an address, ``files`` the folder of its download while that is here, ``book`` the published file."""

    asin: str
    profile: str
    status: TitleStatus
    reason: ErrorDocument | None
    title: str
    subtitle: str
    authors: list[str]
    narrators: list[str]
    series: list[SeriesDocument]
    publisher: str
    language: str
    year: str
    runtime_minutes: int
    cover: str | None
    purchased: datetime | None
    released: datetime | None
    files: str | None
    files_b64: Exact
    book: str | None
    book_b64: Exact
    job: str | None
    first_seen: datetime
    changed: datetime

    @classmethod
    def of(cls, title: Title) -> Self:
        """Return a title as it is told."""
        return cls(**_facts(title))


class WholeTitleDocument(TitleDocument):
    """All that is known of a title; ``item`` is what Audible itself says of it."""

    description: str
    genres: list[str]
    isbn: str
    copyright: str
    item: dict[str, Any]

    @classmethod
    def of(cls, title: Title) -> Self:
        """Return all of a title as it is told."""
        metadata = title.facts.metadata
        return cls(
            **_facts(title),
            description=readable(metadata.description),
            genres=[readable(genre) for genre in metadata.genres],
            isbn=readable(metadata.isbn),
            copyright=readable(metadata.copyright),
            item=hidden(all_readable(title.facts.item)),  # Audible puts no secret there; if it ever does, it ends here
        )


def _facts(title: Title) -> dict[str, Any]:
    facts, metadata = title.facts, title.facts.metadata
    return {
        "asin": displayable(facts.asin),
        "profile": title.profile,
        "status": title.status,
        "reason": ErrorDocument.of(title.reason),
        "title": displayable(metadata.title),
        "subtitle": displayable(metadata.subtitle),
        "authors": [displayable(author) for author in metadata.authors],
        "narrators": [displayable(narrator) for narrator in metadata.narrators],
        "series": [SeriesDocument(name=displayable(one.name), part=displayable(one.part)) for one in metadata.series],
        "publisher": displayable(metadata.publisher),
        "language": displayable(metadata.language),
        "year": displayable(metadata.year),
        "runtime_minutes": facts.runtime_minutes,
        "cover": displayable(facts.cover) or None,
        "purchased": facts.purchased,
        "released": facts.released,
        "files": shown(title.files),
        "files_b64": exactly(title.files),
        "book": shown(title.book),
        "book_b64": exactly(title.book),
        "job": title.job,
        "first_seen": title.first_seen,
        "changed": title.changed,
    }


class TitlesDocument(Document):
    """Titles of the library."""

    items: list[TitleDocument]
    total: int
    limit: int
    offset: int


class SyncDocument(Document):
    """The accounts that are being synced; the events library.synced and library.not_synced tell how that went."""

    profiles: list[str]
    full: bool


class AddressDocument(Document):
    """The address to open in a browser."""

    address: str


class PauseDocument(Document):
    """Until when an account is left alone, and why; so many failures in a row made it so long."""

    cause: Cause
    until: datetime
    failures: int
    error: ErrorDocument | None

    @classmethod
    def of(cls, pause: Pause) -> Self:
        """Return a pause as it is told."""
        return cls(cause=pause.cause, until=pause.until, failures=pause.failures, error=ErrorDocument.of(pause.problem))


class AccountDocument(Document):
    """How an account stands. ``pending``: a sign-in waits for its second step. ``licences_today`` are those of the last 24 hours."""

    profile: str
    pending: bool
    country: str
    owner: str
    device: str
    registered: datetime | None
    token_expires: datetime | None
    encrypted: bool
    titles: int
    last_sync: datetime | None
    last_full_sync: datetime | None
    licences_today: int
    licences_allowed: int
    pauses: list[PauseDocument]
    error: ErrorDocument | None

    @classmethod
    def of(cls, account: AccountStatus) -> Self:
        """Return an account as it is told."""
        return cls(
            profile=account.profile,
            pending=account.pending,
            country=displayable(account.country),
            owner=displayable(account.owner),
            device=displayable(account.device),
            registered=account.registered,
            token_expires=account.token_expires,
            encrypted=account.encrypted,
            titles=account.titles,
            last_sync=account.last_sync,
            last_full_sync=account.last_full_sync,
            licences_today=account.licences_today,
            licences_allowed=account.licences_allowed,
            pauses=[PauseDocument.of(pause) for pause in account.pauses],
            error=ErrorDocument.of(account.problem),
        )


class AccountsDocument(Document):
    """The accounts, by the names of their profiles."""

    items: list[AccountDocument]
    total: int
