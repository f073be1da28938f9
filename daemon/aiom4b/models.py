"""Which values flow through the house? Frozen values, their units, and the few Protocols that join rooms."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, NewType, Protocol, TypeVar

from pydantic import BeforeValidator, PlainSerializer, PlainValidator

Samples = NewType("Samples", int)
"""A number of samples per channel, or a position on a timeline of samples; the rate is always named beside it."""
Fingerprint = NewType("Fingerprint", str)
"""SHA-256 (hex) over the sorted (size, sha256) of a source's audio files: names don't matter."""
Sha256 = NewType("Sha256", str)
"""64 lower-case hex digits."""
BookId = NewType("BookId", str)
"""16 hex digits, derived from fingerprint and plan, so that the same book made again has the same id."""

FRAME_SAMPLES = 1024
"""Samples per channel in one AAC frame: the grid of every book that is encoded."""
SAMPLE_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
"""The sample rates of AAC; the place of each is its index in AAC's headers (ISO/IEC 14496-3, samplingFrequencyIndex)."""


def _is_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _unpack(value: object) -> object:
    return base64.b64decode(value) if isinstance(value, str) else value


Name = Annotated[str, PlainValidator(_is_text)]
"""A file name or path as ``os.fsdecode`` gives it: bytes that are not UTF-8 live in it as surrogates.

Pydantic refuses surrogates in a plain ``str``; ``json.dumps(ensure_ascii=True)`` and the file system take them.
"""
Packed = Annotated[
    bytes,
    BeforeValidator(_unpack),
    PlainSerializer(lambda data: base64.b64encode(data).decode("ascii"), return_type=str),
]
"""Bytes that travel through JSON as base64."""


# --- what a source is -------------------------------------------------------------------------------------------------


class Codec(StrEnum):
    """How the audio of a source file is coded."""

    MP3 = "mp3"
    AAC = "aac"


class Lock(StrEnum):
    """How Audible locked a file: AAX for the account, by activation bytes; AAXC for itself, by a key and an iv."""

    AAX = "aax"
    AAXC = "aaxc"


@dataclass(frozen=True, slots=True, kw_only=True)
class AudibleKey:
    """What opens a locked file: ``activation_bytes`` (8 hex digits) an AAX, ``key`` and ``iv`` (32 each) an AAXC; "" else.

    All lower case. A repr shows none of them.
    """

    activation_bytes: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    iv: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIdentity:
    """Which bytes a name stood for when we looked: any difference means that we must look again."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One flaw of a file that doesn't stop the conversion, told to the owner. ``second`` counts from the file's start."""

    code: str
    second: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFacts:
    """What one pass over a file's bytes told of its audio, without decoding any of it.

    ``samples = frames * samples_per_frame - start_skip - end_discard`` at ``sample_rate``, exact.
    ``anchors`` is the packed index of an MP3: byte offsets (little-endian u64) of every ``ANCHOR_FRAMES``-th audio frame;
    empty for AAC, whose container carries its own index. ``declared_frames`` is what a Xing/Info/VBRI header promises.
    ``gapless`` says that encoder delay and padding were declared (LAME tag, edit list). ``decoder_config`` is the
    AudioSpecificConfig of AAC, empty for MP3. ``mpeg_version`` is 1, 2 or 25 for MP3 and 0 for AAC.
    ``bit_rate`` is the average of the audio frames in bit/s. ``lock`` is set where it takes a key to hear any of it.
    """

    codec: Codec
    sample_rate: int
    channels: int
    frames: int
    samples_per_frame: int
    start_skip: Samples
    end_discard: Samples
    samples: Samples
    bit_rate: int
    declared_frames: int | None
    gapless: bool
    mpeg_version: int
    decoder_config: Packed
    anchors: Packed
    damage: tuple[Damage, ...] = ()
    lock: Lock | None = None

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The start of a chapter as some source tells it: microseconds from the start of what that source describes."""

    start_us: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTags:
    """What a file says of itself, cleaned: no control characters or surrogates, no NULs, stripped; "" when absent.

    Only ``description`` and ``comment`` keep their line feeds.
    Several values of one tag are joined by ``"; "``. ``chapters`` come from ID3 CHAP frames or MP4 chapter lists,
    ``markers`` from OverDrive MediaMarkers. ``cover`` is the SHA-256 of the embedded front cover, "" when there is none.
    """

    title: str = ""
    album: str = ""
    artist: str = ""
    album_artist: str = ""
    composer: str = ""
    narrator: str = ""
    subtitle: str = ""
    series: str = ""
    series_part: str = ""
    genre: str = ""
    date: str = ""
    description: str = ""
    comment: str = ""
    publisher: str = ""
    language: str = ""
    isbn: str = ""
    asin: str = ""
    copyright: str = ""
    track: int | None = None
    track_total: int | None = None
    disc: int | None = None
    disc_total: int | None = None
    chapters: tuple[Mark, ...] = ()
    markers: tuple[Mark, ...] = ()
    cover: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One audio file of a source. ``path`` is relative to the source's root, with ``/``."""

    path: Name
    identity: FileIdentity
    sha256: Sha256
    audio: AudioFacts
    tags: FileTags


class SidecarKind(StrEnum):
    """What a file beside the audio is for."""

    COVER = "cover"
    CUE = "cue"
    CHAPTERS = "chapters"
    PLAYLIST = "playlist"
    METADATA = "metadata"
    KEY = "key"
    DOCUMENT = "document"
    ANNOTATIONS = "annotations"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """A file beside the audio: kept in the backup, and evidence where its kind says so. ``sha256`` is that of a cover."""

    path: Name
    identity: FileIdentity
    kind: SidecarKind
    sha256: Sha256 = Sha256("")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterList:
    """A list of chapters found outside the tags, in the order it was written.

    ``origin`` names it for people ("chapters.txt"). ``file`` is the audio file (as ``SourceFile.path``) that the marks
    count from, or None when they count from the start of the whole book. A cue over several files is one list per file.
    ``length_us`` is how long the list takes that audio to be, in microseconds, None where it doesn't tell.
    """

    origin: str
    file: Name | None
    marks: tuple[Mark, ...]
    length_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesEntry:
    """A series, and the book's place in it ("" when unknown; "1.5" is legal)."""

    name: str
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What is known of a book; "" or () where nothing is."""

    title: str = ""
    subtitle: str = ""
    authors: tuple[str, ...] = ()
    narrators: tuple[str, ...] = ()
    series: tuple[SeriesEntry, ...] = ()
    genres: tuple[str, ...] = ()
    year: str = ""
    description: str = ""
    publisher: str = ""
    language: str = ""
    asin: str = ""
    isbn: str = ""
    copyright: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the sidecars of a source say, parsed: metadata (strongest first), chapter lists, and play orders."""

    metadata: tuple[tuple[str, Metadata], ...] = ()
    chapters: tuple[ChapterList, ...] = ()
    playlists: tuple[tuple[str, tuple[Name, ...]], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One book as it was dropped: its audio files in natural order of their paths, and what lies beside them.

    ``root`` is absolute: the folder, or for a single file the folder that holds it. ``name`` is the folder's name, or the
    single file's name without its suffix: the weakest hint to a title.
    """

    root: Name
    name: Name
    files: tuple[SourceFile, ...]
    sidecars: tuple[Sidecar, ...]
    evidence: Evidence
    fingerprint: Fingerprint
    warnings: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of the audio in seconds."""
        return sum(file.audio.seconds for file in self.files)

    @property
    def size(self) -> int:
        """Size of the audio files in bytes."""
        return sum(file.identity.size for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An entry, or a part of one, that is no book for us; ``code``, ``reason`` and ``remedy`` as in an error."""

    path: Name
    code: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Incomplete:
    """An entry that looks like a book with something missing or still arriving."""

    path: Name
    code: str
    reason: str
    remedy: str


# --- what shall become of it ------------------------------------------------------------------------------------------


class OrderChoice(StrEnum):
    """Whose order counts: AUTO asks all the evidence and refuses to guess between two usable witnesses."""

    AUTO = "auto"
    NAMES = "names"
    TAGS = "tags"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The files of a book in playing order (indexes into ``Source.files``), and what said so."""

    files: tuple[int, ...]
    evidence: str


class Method(StrEnum):
    """How the audio gets into the book."""

    ENCODE = "encode"
    COPY = "copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Settings of the AAC encoder. ``bit_rate`` is the target in bit/s, ``asked`` what the encoder is told."""

    bit_rate: int
    asked: int
    sample_rate: int
    channels: int
    aac_coder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One source file on the timeline of its run: ``start`` and ``samples`` at the run's rate.

    ``joined``: the previous file flows into this one without declared gaps, so one decoder runs across the boundary.
    """

    file: int
    start: Samples
    samples: Samples
    joined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Consecutive files of one sample rate: resampled as one stream. ``start`` and ``samples`` at the book's rate."""

    sample_rate: int
    parts: tuple[Part, ...]
    source_samples: Samples
    start: Samples
    samples: Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The whole book as one stream of PCM."""

    sample_rate: int
    channels: int
    samples: Samples
    runs: tuple[Run, ...]

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A chapter of the finished book; it ends where the next begins. ``start`` at the book's rate."""

    title: str
    start: Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverChoice:
    """Where the cover comes from: a picture beside the audio, or the tags of an audio file; and which picture it is."""

    path: Name
    embedded: bool
    sha256: Sha256 = Sha256("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file of the source that goes beside the book: its ``path`` there, and its ``name`` in the book's folder."""

    path: Name
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BookPlan:
    """Everything that decides the bytes of the book. ``target`` is the book's path relative to the library.

    ``segment_frames`` is the length of a segment in AAC packets: a function of the book, never of the machine. ``packets`` is the number of AAC packets the finished track holds, priming included.
    """

    id: BookId
    fingerprint: Fingerprint
    method: Method
    order: Order
    timeline: Timeline
    encoder: Encoder
    segment_frames: int
    packets: int
    chapters: tuple[Chapter, ...]
    chapters_from: str
    metadata: Metadata
    cover: CoverChoice | None
    target: Name
    write_metadata_json: bool
    documents: tuple[Document, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def segments(self) -> tuple[range, ...]:
        """The packets of each segment. A short remainder belongs to the last one: alone it would be hard to judge."""
        starts = [*range(0, self.packets, self.segment_frames)]
        if len(starts) > 1 and self.packets - starts[-1] < self.segment_frames // 4:
            starts.pop()
        return tuple(range(first, last) for first, last in pairwise([*starts, self.packets]))


# --- what became of it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedFile:
    """A file of a backup: path relative to the set, and what was verified."""

    path: Name
    size: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReceipt:
    """Where the conversion reads from: a verified copy, or with ``copied=False`` the source itself (``--no-backup``)."""

    root: Name
    copied: bool
    files: tuple[CopiedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundCheck:
    """How close decoded audio came to what it was made from, second by second.

    Signal-to-noise ratios of the lowest band in dB over ``seconds`` compared seconds that held sound; ``quiet`` seconds
    were silent on both sides, ``beyond`` ones held nothing but higher tones. ``worst`` is the position (seconds into the
    book) of ``snr_min``.
    """

    seconds: int
    quiet: int
    beyond: int
    snr_min: float
    snr_median: float
    worst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """A frame that could not be decoded: of the file with this content, at this second of it."""

    sha256: Sha256
    second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """An encoded and proved stretch of the book: AAC packets ``first`` up to ``first + packets``.

    ``file`` is its name in the work directory, ``sha256`` of its raw packets laid end to end, without ADTS headers.
    ``ratios`` are the signal-to-noise ratios of its seconds (packed little-endian float32, see ``engine/prove``).
    ``flaws`` are frames of the source that could not be decoded, ``bad_samples`` counts samples that were no numbers: both
    became silence.
    """

    first: int
    packets: int
    file: str
    sha256: Sha256
    payload_bytes: int
    ratios: Packed
    flaws: tuple[Flaw, ...]
    bad_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A finished book that nobody sees yet. ``folder`` holds the ``.m4b``, ``cover.jpg`` and whatever goes with it."""

    id: BookId
    folder: Name
    book: Name
    segments: tuple[Segment, ...]
    reused: int
    bit_rate: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was compared with what. A Proof exists only when every comparison agreed.

    ``sound`` sums up the whole audio against its sources, ``joins`` the seconds that hold a segment or file join.
    """

    against: str
    packets: int
    samples: Samples
    chapters: int
    tags: int
    sha256: Sha256
    sound: SoundCheck
    joins: SoundCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A book in the library. ``already``: it was there before, from the same source, and nothing was written."""

    id: BookId
    book: Name
    sha256: Sha256
    already: bool


# --- what joins the rooms ---------------------------------------------------------------------------------------------


class Step(StrEnum):
    """The stages of a book, in their order; DOWNLOAD is a job of its own, before the others."""

    DOWNLOAD = "download"
    EXAMINE = "examine"
    BACKUP = "backup"
    PLAN = "plan"
    CONVERT = "convert"
    VERIFY = "verify"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a step has come; in CONVERT counted in samples, in DOWNLOAD and BACKUP in bytes."""

    step: Step
    done: int
    total: int


T = TypeVar("T")


class Journal(Protocol):
    """Remembers each step's value, so that a stopped book goes on where it was."""

    def get(self, step: Step, kind: type[T]) -> T | None:
        """Return the value that ``step`` recorded, or None if it must run (again)."""
        ...

    def put(self, step: Step, value: object) -> None:
        """Record durably what ``step`` returned."""
        ...


class KeyRing(Protocol):
    """Knows keys that don't lie beside the locked file."""

    async def keys(self, lock: Lock, asin: str) -> tuple[tuple[str, AudibleKey], ...]:
        """Return the keys that may open a file of this lock and ASIN ("" if unknown), each with its origin in words."""
        ...


Clock = Callable[[], datetime]
"""Returns the present as an aware UTC time."""


def now() -> datetime:
    """Return the present: the clock of everything but tests."""
    return datetime.now(UTC)
