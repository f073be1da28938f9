"""Which settings are there, and which values may they have? Frozen tables with their defaults and descriptions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from aiom4b.models import SAMPLE_RATES


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number, not a switch")  # noqa: TRY004 - pydantic collects ValueErrors only
    return value


def _sync_hours(value: float) -> float:
    if 0 < value < 0.25:
        raise ValueError("should be 0, or a quarter of an hour at least: Audible blocks those who ask all the time")
    return value


def _auto_or_number(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    raise ValueError('should be "auto" or a whole number')


def _bit_rate(value: object) -> int | Literal["auto"]:
    kilo = re.fullmatch(r"([0-9]{1,6})[kK]", value) if isinstance(value, str) else None
    rate = int(kilo[1]) * 1000 if kilo else _auto_or_number(value)
    if rate != "auto" and not 8_000 <= rate <= 512_000:
        raise ValueError(f'should be "auto" or 8k to 512k, in bit/s (a bare {rate} means {rate} bit/s)')
    return rate


def _sample_rate(value: object) -> int | Literal["auto"]:
    rate = _auto_or_number(value)
    if rate != "auto" and rate not in SAMPLE_RATES:
        raise ValueError(f'should be "auto" or a rate that AAC knows: {", ".join(map(str, sorted(SAMPLE_RATES)))}')
    return rate


def _channels(value: object) -> int | Literal["auto"]:
    channels = _auto_or_number(value)
    if channels not in ("auto", 1, 2):
        raise ValueError('should be "auto", 1 or 2')
    return channels


def _listed(value: object) -> object:
    # An environment variable has no lists.
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _password(value: object) -> object:
    if isinstance(value, str):
        if len(value) < 8:
            raise ValueError("should have at least 8 characters")
        if any("\ud800" <= character <= "\udfff" for character in value):  # what bytes that are no text become
            raise ValueError("should be UTF-8")
    return value


def _activation_bytes(value: object) -> object:
    if isinstance(value, str):
        # Without the quotes TOML takes digits for a number, and refuses the rest.
        if not re.fullmatch(r"[0-9a-fA-F]{8}", value):
            raise ValueError("should be 8 hex digits")
        return value.lower()
    if isinstance(value, int):
        raise ValueError("should be 8 hex digits in quotes")  # noqa: TRY004 - pydantic collects ValueErrors only
    return value


def _directory(value: object) -> str:
    # A plain str of pydantic refuses the surrogates of a name that is not UTF-8.
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("should be the path of a directory")
    if not os.path.isabs(value):
        raise ValueError("begins with a home directory that is not known")  # all others are absolute by now
    return value


Directory = Annotated[str, PlainValidator(_directory)]
"""An absolute path as ``os.fsdecode`` gives it; the directory need not exist yet."""
Number = Annotated[int, BeforeValidator(_number)]


def _system_directory(variable: str, xdg: str, home: str) -> str:
    """Return what systemd gave us (it separates several by ``:``), else the XDG directory of this user."""
    given = os.environ.get(variable, "").split(":")[0]
    base = os.environ.get(xdg, "")
    # The XDG specification tells to ignore relative paths.
    return given or os.path.join(base if os.path.isabs(base) else os.path.expanduser(home), "aiom4b")


class Table(BaseModel):
    """One table of the settings: frozen, without unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PathSettings(Table):
    """Directories. ~ is your home; a relative path counts from the file it stands in; "" means the default."""

    source: Directory | None = Field(
        default=None,
        description="What the service watches: each folder or file dropped there becomes a book. Only ever read, unless "
        "watch.after_success says otherwise. Without a default.",
    )
    library: Directory | None = Field(
        default=None,
        description='Where finished books appear, for example "/srv/audiobooks". Without a default.',
    )
    state: Directory = Field(
        default_factory=lambda: _system_directory("STATE_DIRECTORY", "XDG_STATE_HOME", "~/.local/state"),
        description="What has to survive a restart. Default: $STATE_DIRECTORY (systemd), else $XDG_STATE_HOME/aiom4b, "
        "else ~/.local/state/aiom4b.",
    )
    backup: Directory = Field(
        default_factory=lambda earlier: os.path.join(earlier["state"], "backup"),
        description='Where verified copies of the sources are kept. Default: "backup" in the state directory.',
    )
    archive: Directory | None = Field(
        default=None,
        description='Where finished sources are moved with watch.after_success = "archive"; on the file system of the source.',
    )
    socket: Directory = Field(
        default_factory=lambda: os.path.join(
            _system_directory("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "/run"), "aiom4b.sock"
        ),
        description="Where the service answers the command line. Default: aiom4b.sock in $RUNTIME_DIRECTORY (systemd), "
        "else in $XDG_RUNTIME_DIR/aiom4b, else in /run/aiom4b.",
    )


class WatchSettings(Table):
    """When a folder in the source is taken to be complete."""

    settle_seconds: Annotated[float, BeforeValidator(_number)] = Field(
        default=30,
        gt=0,
        le=86_400,
        description="How long nothing in a folder may have changed before it is looked at; longer where the copy itself pauses longer.",
    )
    rescan_seconds: Annotated[float, BeforeValidator(_number)] = Field(
        default=300,
        gt=0,
        le=86_400,
        description="How often the whole source is looked through; file events only make it quicker. At most 60 where the "
        "file system sends no events.",
    )
    mode: Literal["auto", "events", "poll"] = Field(
        default="auto",
        description='"events", "poll", or "auto": poll on network file systems, listen for events elsewhere.',
    )
    incomplete_hours: Annotated[float, BeforeValidator(_number)] = Field(
        default=6,
        ge=0,
        le=8760,
        description="How long a book with something missing is waited for before it is shown as needing attention. "
        "It is never converted by itself, and goes on whenever the rest arrives.",
    )
    after_success: Literal["keep", "archive", "remove"] = Field(
        default="keep",
        description='What happens to a source once its book is in the library: "keep", "archive" (moved to paths.archive), or '
        '"remove" (only with a verified backup).',
    )


class BackupSettings(Table):
    """Copies of the sources, made and read back before anything is converted."""

    enabled: bool = Field(
        default=True,
        description="Whether a source is copied first. Without it the conversion reads the source itself.",
    )
    retention_days: Number = Field(
        default=30,
        ge=0,
        le=36_500,
        description="Backups that are older may be removed; 0 keeps them for ever. The last good copy of a source that is gone is "
        "never removed.",
    )


class EncodeSettings(Table):
    """How the audio is encoded. "auto" follows the source, book by book."""

    bitrate: Annotated[int | Literal["auto"], PlainValidator(_bit_rate)] = Field(
        default="auto",
        description='Bits per second, as 64000 or "64k". "auto": never above the source, at most 64k for mono and 128k '
        "for stereo.",
    )
    channels: Annotated[int | Literal["auto"], PlainValidator(_channels)] = Field(
        default="auto", description='1, 2, or "auto": mono stays mono.'
    )
    sample_rate: Annotated[int | Literal["auto"], PlainValidator(_sample_rate)] = Field(
        default="auto", description='Samples per second, a rate that AAC knows such as 44100, or "auto".'
    )
    aac_coder: Literal["fast", "twoloop"] = Field(
        default="fast",
        description='Search of the AAC encoder: "fast", or "twoloop", which takes three times as long and measured no '
        "better on speech.",
    )
    workers: Number = Field(
        default=0, ge=0, le=1024, description="Processes that encode at once; 0 takes every core we may use."
    )
    aac_join: Literal["copy", "encode"] = Field(
        default="copy",
        description='Several AAC files of one kind: "copy" keeps their audio untouched, with 25 to 70 ms of silence at '
        'each join; "encode" joins them without a gap.',
    )
    on_damage: Literal["report", "refuse"] = Field(
        default="report",
        description='A damaged stretch in a source: "report" converts the rest and says so, "refuse" leaves the book to '
        "you.",
    )


class LibrarySettings(Table):
    """What a finished book looks like in the library."""

    template: str = Field(
        default="{author}/{series}/{title}/{title}.m4b",
        min_length=1,
        description="Path of a book inside the library; parts that nothing is known for are left out.",
    )
    metadata_json: Literal["auto", "always", "never"] = Field(
        default="auto",
        description='A metadata.json beside the book, for Audiobookshelf. "auto": only where the tags alone would be '
        "misread. One that somebody has changed is never overwritten.",
    )


class LimitSettings(Table):
    """What is refused, so that a stray drop can't occupy the machine for days."""

    max_file_size_mb: Number = Field(
        default=4096, ge=1, description="Largest source file, in megabytes of 1,000,000 bytes."
    )
    max_files: Number = Field(default=10_000, ge=1, description="Most files in one source, whatever their kind.")


class JobSettings(Table):
    """Work on several books."""

    max_concurrent: Number = Field(default=4, ge=1, le=64, description="Books in progress at once.")
    max_attempts: Number = Field(
        default=5,
        ge=1,
        le=100,
        description="How often a book is tried that fails for a passing reason, before it counts as failed.",
    )
    history_days: Number = Field(
        default=90,
        ge=0,
        le=36_500,
        description="How long ended jobs are remembered; 0 means for ever. Books and backups don't depend on it.",
    )


class ApiSettings(Table):
    """The HTTP interface on TCP; the Unix socket needs none of this."""

    host: str = Field(
        default="", description='Address to listen on, for example "127.0.0.1". Empty: the Unix socket only.'
    )
    port: Number = Field(default=0, ge=0, le=65_535, description="Port to listen on, with host.")
    key: SecretStr | None = Field(
        default=None,
        description="What a client on TCP must present (in X-API-Key, or as a bearer token); at least 16 characters. Better "
        "given as a systemd credential named api.key than written here.",
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        default=(), description='Origins of web pages that may ask, for example ["https://books.example"].'
    )

    @model_validator(mode="after")
    def _whole(self) -> ApiSettings:
        if bool(self.host) != bool(self.port):
            raise ValueError("needs both host and port, or neither")
        if self.host and self.key is None:
            raise ValueError("needs a key once it listens on TCP")
        if self.key is not None and len(self.key.get_secret_value()) < 16:
            raise ValueError("needs a key of at least 16 characters")
        return self


class AudibleSettings(Table):
    """The owner's Audible accounts, once somebody has signed in with `aiom4b audible login`."""

    auto_download: Literal["off", "new", "all"] = Field(
        default="off",
        description='What is fetched by itself: "off", "new" (what is bought from the first sync on), or "all". Episodes of '
        "podcasts come only when they are asked for.",
    )
    sync_hours: Annotated[float, BeforeValidator(_number), AfterValidator(_sync_hours)] = Field(
        default=6,
        ge=0,
        le=8760,
        description="How often the library is asked for changes, 0.25 at least; 0: only with `aiom4b audible sync`.",
    )
    full_sync_days: Annotated[float, BeforeValidator(_number)] = Field(
        default=7,
        gt=0,
        le=365,
        description="How often all of the library is listed anew, which also finds what was returned or taken away.",
    )
    daily_licences: Number = Field(
        default=50,
        ge=1,
        le=1000,
        description="Most licences that an account asks for in 24 hours, one for each title; Audible blocks accounts that ask for "
        "too many.",
    )
    transfers: Number = Field(default=5, ge=1, le=5, description="Downloads at once.")
    quality: Literal["high", "normal"] = Field(
        default="high", description='Sound of downloads, where Audible has both: "high" or "normal".'
    )
    password: Annotated[SecretStr, BeforeValidator(_password)] | None = Field(
        default=None,
        description="Encrypts the sign-in where it is stored; at least 8 characters. Better given as a systemd credential named "
        "audible.password than written here.",
    )
    activation_bytes: Annotated[SecretStr, BeforeValidator(_activation_bytes)] | None = Field(
        default=None,
        description="Opens dropped .aax files without signing in: your account's 8 hex digits, in quotes. Better given as a systemd "
        "credential named audible.activation_bytes.",
    )


class LogSettings(Table):
    """What is told on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description='"debug", "info", "warning" or "error": this, and what is worse.'
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description='"json", "console", or "auto": console on a terminal, JSON lines elsewhere.'
    )
    file: Directory | None = Field(
        default=None, description="A file that gets the same lines as JSON, rotated at 10 MB, five old ones kept."
    )


class Settings(BaseSettings):
    """Everything the owner can decide. Made by ``load``; hand down the smallest piece that is useful."""

    # enable_decoding: a table given as JSON in one variable would stop at its first error, before the other problems.
    # hide_input_in_errors: the library's own message, which a traceback shows, would hold secrets.
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="AIOM4B_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        enable_decoding=False,
        hide_input_in_errors=True,
    )

    paths: PathSettings = Field(default_factory=PathSettings)
    watch: WatchSettings = WatchSettings()
    backup: BackupSettings = BackupSettings()
    encode: EncodeSettings = EncodeSettings()
    library: LibrarySettings = LibrarySettings()
    limits: LimitSettings = LimitSettings()
    jobs: JobSettings = JobSettings()
    api: ApiSettings = ApiSettings()
    audible: AudibleSettings = AudibleSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what ``load`` has merged and nothing else: it reads the sources one by one, to know whose value won."""
        return (init_settings,)


def tables() -> Iterator[tuple[str, type[Table]]]:
    """Yield the tables of the settings, by name, in the order of the example file."""
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        assert isinstance(kind, type)
        assert issubclass(kind, Table)
        yield name, kind


def secrets() -> frozenset[tuple[str, str]]:
    """Return table and name of each setting that is never shown."""
    return frozenset(
        (table, name)
        for table, kind in tables()
        for name, field in kind.model_fields.items()
        if SecretStr.__name__ in str(field.annotation)
    )


def flattened(settings: Settings) -> dict[str, object]:
    """Return every value by its dotted key, in the order of the example file; a secret as stars."""
    return {
        f"{table}.{name}": str(value) if isinstance(value, SecretStr) else value
        for table, row in settings
        for name, value in row
    }
