"""In which shapes do people have Audible books on their disks? The files of each program, under the names it gives them.

Every maker takes a plain book (`audible_files.plain_book`) or more, locks it, and writes what the program puts beside it.
``without`` leaves files out, by their endings (".voucher", ".pdf" …).
"""

from __future__ import annotations

import json
import string
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import audible_documents as documents
from audible_answers import PDF
from audible_documents import Title
from audible_files import ACTIVATION_BYTES, lock_aax, lock_aaxc, plain_book
from household import clip, picture

NAME_MODES = ("ascii", "asin_ascii", "unicode", "asin_unicode", "asin_only")
_NOW = datetime(2024, 6, 1, tzinfo=UTC)
_CUSTOMER = "amzn1.account.OWNTESTACCOUNT1"


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """One book on a disk: its sound, what that was made from, all that lies beside it, and what it is."""

    audio: Path
    plain: Path
    beside: tuple[Path, ...]
    title: Title


def audible_cli(
    folder: str | Path,
    plain: Path,
    title: Title | None = None,
    *,
    mode: str = "ascii",
    aax: bool = False,
    without: Collection[str] = (),
) -> Dropped:
    """Write what ``audible download --aaxc --cover --pdf --chapter --annotation`` leaves, in one of its `NAME_MODES`."""
    title = title or Title()
    base = _audible_cli_name(title, mode)
    stem = f"{base}-LC_128_44100_stereo" if aax else f"{base}-{title.quality}"
    audio = _locked(plain, _made(folder) / f"{stem}{'.aax' if aax else '.aaxc'}", title, aax=aax)
    title.aaxc = audio
    groups = {"last_position_heard", "pdf_url", "content_reference"}
    voucher = documents.licence(title, documents.voucher(title, _CUSTOMER, _NOW), _CUSTOMER, _NOW, groups)
    files = {
        f"{stem}.voucher": b"" if aax else _json(voucher),
        f"{base}-chapters.json": _json(documents.metadata(title)),
        f"{base}-annotations.json": _json(documents.notes(title)),
        f"{base}_(1215).jpg": picture("navy", side=1215),
        f"{base}.pdf": PDF,
    }
    return Dropped(audio=audio, plain=plain, beside=_write(folder, files, without), title=title)


def _audible_cli_name(title: Title, mode: str) -> str:
    assert mode in NAME_MODES
    whole = unicodedata.normalize("NFKD", f"{title.title}: {title.subtitle}" if title.subtitle else title.title)
    if "ascii" in mode:
        kept = "-_.()" + string.ascii_letters + string.digits
        whole = "".join(letter for letter in whole.replace(" ", "_") if letter in kept)
    if mode == "asin_only":
        whole = title.asin
    elif mode.startswith("asin"):
        whole = f"{title.asin}_{whole}"
    return whole.encode()[:230].decode(errors="ignore")


def shelf(folder: str | Path, aside: Path, number: int = 3, *, mode: str = "ascii") -> list[Dropped]:
    """Write several books of audible-cli into one folder, each with all that belongs to it and a key of its own."""
    made = []
    for one in range(1, number + 1):
        key, iv = bytes([one]) * 16, bytes([100 + one]) * 16
        title = Title(asin=f"B00SHELF{one:02}", title=f"Volume {one}", subtitle=None, key=key, iv=iv)
        names = {"CDEK": title.asin, "©nam": title.title, "©alb": title.title, "@sti": title.title}
        plain = plain_book(_made(aside) / f"{title.asin}.m4b", seed=one, atoms=names)
        made.append(audible_cli(folder, plain, title, mode=mode))
    return made


def libation(
    folder: str | Path, plain: Path, title: Title | None = None, *, aax: bool = False, without: Collection[str] = ()
) -> Dropped:
    """Write what Libation keeps when it is told to retain the original: a folder of the title, with the keys as text."""
    title = title or Title()
    inside = _made(Path(folder, f"{title.title} [{title.asin}]"))
    stem = f"{title.title}: {title.subtitle} [{title.asin}]" if title.subtitle else f"{title.title} [{title.asin}]"
    audio = _locked(plain, inside / f"{stem}{'.Aax' if aax else '.Aaxc'}", title, aax=aax)
    title.aaxc = audio
    product = documents.item(title) | {
        "ChapterInfo": documents.chapter_info(title),
        "ContentReference": documents.content_reference(title),
    }
    keys = f"ActivationBytes={ACTIVATION_BYTES.hex().upper()}\n"
    if not aax:
        keys = f"Key={title.key.hex().upper()}\nIV={title.iv.hex().upper()}\n"
    files = {
        f"{stem}.key": keys.encode(),
        f"{stem}.cue": _cue(title, f"{stem}.m4b"),
        f"{stem}.jpg": picture("navy", side=500),
        f"{stem}.pdf": PDF,
        f"{stem}.metadata.json": _json(product),
    }
    return Dropped(audio=audio, plain=plain, beside=_write(inside, files, without), title=title)


def _cue(title: Title, name: str) -> bytes:
    lines = [f'FILE "{name}" MP4']
    for number, one in enumerate(documents.flat(title.chapters), 1):
        minutes, rest = divmod(one["start_offset_ms"], 60_000)
        seconds, milliseconds = divmod(rest, 1000)
        at = f"{minutes:02}:{seconds:02}:{milliseconds * 75 // 1000:02}"
        lines += [f"  TRACK {number:02} AUDIO", f'    TITLE "{one["title"]}"', f"    INDEX 01 {at}"]
    return "\r\n".join(lines).encode()


def old_app(folder: str | Path, plain: Path, name: str = "TheLighthouseUnabridged_ep6.aax") -> Dropped:
    """Write an AAX with nothing beside it, as old programs did; the name may say ``.AAX``, or ``.mp4``, which it isn't."""
    title = Title()
    audio = lock_aax(plain, _made(folder) / name)
    return Dropped(audio=audio, plain=plain, beside=(), title=title)


def misnamed_aaxc(folder: str | Path, plain: Path, name: str = "The Lighthouse.AAX") -> Dropped:
    """Write an AAXC under the name of an AAX, as OpenAudible did, with its voucher."""
    title = Title()
    audio = _locked(plain, _made(folder) / name, title, aax=False)
    title.aaxc = audio
    voucher = documents.licence(title, documents.voucher(title, _CUSTOMER, _NOW), _CUSTOMER, _NOW)
    files = {f"{Path(name).stem}.voucher": _json(voucher)}
    return Dropped(audio=audio, plain=plain, beside=_write(folder, files, ()), title=title)


def podcast(folder: str | Path, title: Title | None = None) -> Dropped:
    """Write an episode of a podcast: a plain MP3, and its licence, in which there is no key."""
    title = title or Title(title="Sea Talk", subtitle=None, delivery="PodcastEpisode", parent="B00PODCAST", chapters=())
    base = _audible_cli_name(title, "ascii")
    audio = _made(folder) / f"{base}-MPEG.mp3"
    audio.write_bytes(clip(seconds=3.0))
    title.aaxc = audio
    files = {f"{audio.stem}.voucher": _json(documents.licence(title, "", _CUSTOMER, _NOW))}
    return Dropped(audio=audio, plain=audio, beside=_write(folder, files, ()), title=title)


def _locked(plain: Path, out: Path, title: Title, *, aax: bool) -> Path:
    return lock_aax(plain, out) if aax else lock_aaxc(plain, out, title.key, title.iv)


def _made(folder: str | Path) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def _json(document: documents.Document) -> bytes:
    return json.dumps(document, indent=4).encode()


def _write(folder: str | Path, files: dict[str, bytes], without: Collection[str]) -> tuple[Path, ...]:
    written = []
    for name, content in files.items():
        if content and not name.endswith(tuple(without)):
            path = Path(folder, name)
            path.write_bytes(content)
            written.append(path)
    return tuple(written)
