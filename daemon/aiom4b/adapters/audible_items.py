"""What does Audible's library say of a title? Its item, a stranger's document, as values of ours."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiom4b.adapters import text
from aiom4b.models import Metadata, SeriesEntry

_PODCASTS = frozenset({"PodcastParent", "Periodical"})
_BLOCKS = frozenset({"p", "br", "div", "li", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "tr"})
_TAG = re.compile(r"<(?=[a-zA-Z/!?])[/!?]?([a-zA-Z][a-zA-Z0-9]*|)[^<>]*>")
_SIZED = re.compile(r"\._[A-Z]{2}\d+_(?=\.)")  # "._SL500_" asks the picture's server to scale
_ROLE = re.compile(r"\s+[-–—]\s+[a-z][a-z /]+$")  # "Ken Liu - translator"
_CODEC = re.compile(r"LC_(\d{2,3})_(\d{4,6})_(?:mono|stereo)")
_ISBN = re.compile(r"(?:[0-9]{9}[0-9X]|[0-9]{13})")
_YEAR = re.compile(r"[12][0-9]{3}")
_MOST_MINUTES = 1_000_000
_LONGEST_SUMMARY = text.PROSE_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFacts:
    """What an item tells. ``asin`` is "" where it doesn't say; ``unavailable`` is (code, reason, remedy), None when it can be had.

    ``cover`` is the address of the largest picture. ``children``: its episodes are items of their own, to be asked for with
    it as their parent. ``codecs`` are those of the classic AAX files, best first. ``pdf``: a document belongs to it.
    """

    asin: str
    metadata: Metadata
    runtime_minutes: int
    cover: str
    purchased: datetime | None
    released: datetime | None
    unavailable: tuple[str, str, str] | None
    children: bool
    codecs: tuple[str, ...]
    pdf: bool


def metadata_of(item: Mapping[str, Any]) -> Metadata:
    """Return what an item says of the book; "" or () for what is missing or of another type than it should be."""
    asin = _line(item, "asin")
    isbn = re.sub(r"[\s-]", "", _line(item, "isbn")).upper()
    return Metadata(
        title=_line(item, "title"),
        subtitle=_line(item, "subtitle"),
        authors=_people(item, "authors"),
        narrators=_people(item, "narrators"),
        series=_series(item),
        genres=_genres(item),
        year=next(
            (
                found[0]
                for key in ("release_date", "issue_date", "publication_datetime")
                if (found := _YEAR.match(_line(item, key)))
            ),
            "",
        ),
        description=_description(item),
        publisher=_line(item, "publisher_name"),
        language=_line(item, "language").capitalize(),
        asin=asin,
        isbn=isbn if _ISBN.fullmatch(isbn) else "",
    )


def facts_of(item: Mapping[str, Any]) -> ItemFacts:
    """Return all that an item tells. One whose release lies ahead is not ``unavailable`` here: that is for a clock to say."""
    minutes = item.get("runtime_length_min")
    released = next(
        (
            moment
            for key in ("publication_datetime", "release_date", "issue_date")
            if (moment := _moment(item.get(key))) is not None
        ),
        None,
    )
    status = item.get("library_status")
    added = status.get("date_added") if isinstance(status, dict) else None
    return ItemFacts(
        asin=_line(item, "asin"),
        metadata=metadata_of(item),
        runtime_minutes=minutes if isinstance(minutes, int) and 0 < minutes < _MOST_MINUTES else 0,
        cover=_cover(item),
        purchased=_moment(added) or _moment(item.get("purchase_date")),
        released=released,
        unavailable=_unavailable(item, released),
        children=_is_podcast(item),
        codecs=_codecs(item),
        pdf=item.get("is_pdf_url_available") is True or bool(_line(item, "pdf_url")),
    )


def is_episode(item: Mapping[str, Any]) -> bool:
    """Whether an item is an episode of a podcast, of which nobody bought it alone."""
    return _line(item, "content_delivery_type") == "PodcastEpisode"


def _unavailable(item: Mapping[str, Any], released: datetime | None) -> tuple[str, str, str] | None:
    status, rights = item.get("library_status"), item.get("customer_rights")
    if _line(item, "status").lower() == "revoked":
        return (
            "title.revoked",
            "The title is no longer in the account's library: it was returned, or has left the Plus catalogue.",
            "What is already here stays. It comes back by itself when it is in the library again.",
        )
    if _is_podcast(item):
        return (
            "title.podcast",
            "This is a podcast as a whole; its episodes are titles of their own.",
            "Download the episodes that are wanted.",
        )
    if _line(item, "content_delivery_type") == "AudioPart":
        # Since March 2025 Audible answers "Audio Part asins are no longer supported"; the book comes in one file.
        return (
            "title.part",
            "This is a part of a long title, which Audible delivers only as a whole.",
            "Download the whole title, which is in the library too.",
        )
    ordered = isinstance(status, dict) and (status.get("is_preordered") is True or status.get("is_pending") is True)
    if ordered and released is None:
        return (
            "title.not_released",
            "The title is ordered; Audible doesn't say yet when it will be released.",
            "Nothing needs to be done: it can be downloaded once it is released.",
        )
    if isinstance(rights, dict) and rights.get("is_consumable_offline") is False:
        return (
            "title.streaming_only",
            "Audible lets this account stream the title, but not download it.",
            "Check the membership of the account; a title that was bought can be downloaded.",
        )
    return None


def _is_podcast(item: Mapping[str, Any]) -> bool:
    return _line(item, "content_delivery_type") in _PODCASTS and item.get("has_children") is not False


def _people(item: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = [name for person in _mappings(item, key) if (name := _line(person, "name"))]
    # Translators and writers of forewords stand among the authors; they are no authors unless there is nobody else.
    chosen = [name for name in names if not _ROLE.search(name)] or [_ROLE.sub("", name) for name in names]
    return tuple(dict.fromkeys(chosen))


def _series(item: Mapping[str, Any]) -> tuple[SeriesEntry, ...]:
    entries = {
        name: SeriesEntry(name=name, part=_line(series, "sequence"))
        for series in _mappings(item, "series")
        if (name := _line(series, "title"))
    }
    return tuple(entries.values())


def _genres(item: Mapping[str, Any]) -> tuple[str, ...]:
    ladders = [ladder for ladder in _mappings(item, "category_ladders") if ladder.get("root", "Genres") == "Genres"]
    return tuple(
        dict.fromkeys(
            name for ladder in ladders for step in _mappings(ladder, "ladder") if (name := _line(step, "name"))
        )
    )


def _description(item: Mapping[str, Any]) -> str:
    for key in ("publisher_summary", "extended_product_description", "merchandising_summary"):
        written = item.get(key)
        if isinstance(written, str) and (said := _paragraphs(written[:_LONGEST_SUMMARY])):
            return said
    return ""


def _paragraphs(written: str) -> str:
    """Return the text of HTML, a paragraph for each block; what is only half a tag stays."""
    if not _TAG.search(written):
        return text.prose(html.unescape(written))
    # No parser: Python's stops at markup that it doesn't know, and gets slow at some that never ends.
    plain = _TAG.sub(lambda tag: "\n" if tag[1].lower() in _BLOCKS else "", " ".join(written.splitlines()))
    lines = text.prose(html.unescape(plain)).split("\n")
    return "\n\n".join(line for line in lines if line)


def _cover(item: Mapping[str, Any]) -> str:
    pictures = item.get("product_images")
    sized = [
        (int(size), address)
        for size, address in (pictures.items() if isinstance(pictures, dict) else ())
        if re.fullmatch(r"[0-9]{1,5}", str(size)) and isinstance(address, str) and address.startswith("https://")
    ]
    if not sized:
        return ""
    largest = max(sized)[1]
    return _SIZED.sub("", largest)


def _codecs(item: Mapping[str, Any]) -> tuple[str, ...]:
    found = {
        codec: (int(parts[1]), int(parts[2]))
        for entry in _mappings(item, "available_codecs")
        if (parts := _CODEC.fullmatch(codec := _line(entry, "enhanced_codec")))
    }
    return tuple(sorted(found, key=lambda codec: found[codec], reverse=True))


def _moment(written: object) -> datetime | None:
    if not isinstance(written, str):
        return None
    try:
        moment = datetime.fromisoformat(written.strip())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _line(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    return text.line(value) if isinstance(value, str) else ""


def _mappings(item: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    values = item.get(key)
    return (value for value in (values if isinstance(values, list) else ()) if isinstance(value, dict))
