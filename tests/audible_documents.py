"""What does Audible say of a title? The JSON documents of its interface, of titles that tests invent."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from audible_files import ASIN, IV, KEY

Document = dict[str, Any]
PAST = datetime(2024, 5, 1, 8, tzinfo=UTC)


def chapter(title: str, start_ms: int, length_ms: int, *children: Document) -> Document:
    """Return a chapter of Audible's kind; the length of one with children is that of its heading."""
    made: Document = {
        "title": title,
        "start_offset_ms": start_ms,
        "start_offset_sec": start_ms // 1000,
        "length_ms": length_ms,
    }
    return made | ({"chapters": list(children)} if children else {})


SIX_SECONDS = (
    chapter("Opening Credits", 0, 1000),
    chapter("Part One", 1000, 500, chapter("Chapter 1", 1500, 1500), chapter("Kapitel 2 – Äöü = ; # \\", 3000, 2000)),
    chapter("End Credits", 5000, 1000),
)
"""Nested chapters for six seconds of sound."""


@dataclass(kw_only=True)
class Title:
    """A title of the fake's library. `FakeAudible.change` changes it so that a sync
    notices; ``changed`` is the state token since which it is so.

    ``aaxc`` is what the licence gives (an ``.mp3`` for plain podcasts), ``aax`` what the older route gives; without one, that
    way is closed. ``delivery`` as Audible names it: MultiPartBook has AudioPart children, PodcastParent has PodcastEpisode.
    The rest of the second half is how things go wrong: ``denied`` are the reasons of refused licences; ``told_size`` differs
    from the real one; ``address`` and ``drm`` replace what a licence offers; ``lifetime`` of its address may be negative;
    ``edition`` is part of the entity tag.
    """

    asin: str = ASIN
    title: str = "The Lighthouse"
    subtitle: str | None = "A Novel of the Sea"
    authors: Sequence[str] = ("Ada Keeper", "Bo Writer")
    narrators: Sequence[str] = ("Noa Reader", "Cy Voice")
    series: Sequence[tuple[str, str]] = (("The Coast", "1"),)
    publisher: str = "Own Press"
    language: str = "english"
    isbn: str | None = None
    market: str = "us"
    owners: Sequence[str] = ()
    delivery: str = "SinglePartBook"
    parent: str | None = None
    released: datetime = PAST
    purchased: datetime = PAST
    plus: bool = False
    consumable: bool = True
    minutes: int | None = None
    pdf: bool = False
    annotations: bool = False
    cover: bool = True
    chapters: Sequence[Document] = SIX_SECONDS
    accurate: bool = True
    aaxc: Path | None = None
    aax: Path | None = None
    key: bytes = KEY
    iv: bytes = IV
    quality: str = "AAX_44_128"
    codec: str = "mp4a.40.2"

    status: str = "Active"
    denied: Sequence[str] | None = None
    drm: str | None = None
    address: str | None = None
    told_size: int | None = None
    lifetime: timedelta = timedelta(hours=1)
    edition: int = 1
    changed: int = 0

    @property
    def podcast(self) -> bool:
        return self.aaxc is not None and self.aaxc.suffix == ".mp3"

    def owned_by(self, customer: str) -> bool:
        """Whether it stands in the library of a customer: of all, unless it names its owners."""
        return not self.owners or customer in self.owners

    @property
    def has_children(self) -> bool:
        return self.delivery in {"MultiPartBook", "PodcastParent", "Periodical"}


# Which response group a field of an item comes with; all others always come.
_GROUP_OF = {
    "authors": "contributors",
    "narrators": "contributors",
    "product_images": "media",
    "series": "series",
    "relationships": "relationships",
    "customer_rights": "customer_rights",
    "pdf_url": "pdf_url",
    "category_ladders": "category_ladders",
}


def item(title: Title, groups: Collection[str] | None = None, sizes: Collection[str] = ("500", "1215")) -> Document:
    """Return an item of the library: with the fields of these response groups, or all."""
    added = timestamp(title.purchased)
    sku = f"BK_OWNP_{title.asin[-6:]}"
    codecs = [
        {"enhanced_codec": "LC_64_22050_stereo", "format": "Enhanced", "is_kindle_enhanced": True, "name": "aax_22_64"},
        {"enhanced_codec": "LC_128_44100_stereo", "format": "Enhanced", "is_kindle_enhanced": True, "name": "aax_44_128"},
        {"enhanced_codec": "format4", "format": "Format4", "is_kindle_enhanced": False, "name": "format4"},
    ]  # fmt: skip
    found: Document = {
        "asin": title.asin,
        "title": title.title,
        "subtitle": title.subtitle,
        "authors": [{"asin": f"B00AUTHOR{n}", "name": name} for n, name in enumerate(title.authors)],
        "narrators": [{"name": name} for name in title.narrators],
        "series": [{"asin": "B00SERIES1", "title": name, "sequence": part, "url": None} for name, part in title.series],
        "publisher_name": title.publisher,
        "publisher_summary": "<p>A keeper counts ships, and one night there is <b>one too many</b>.</p>",
        "merchandising_summary": "<p>A keeper counts ships.</p>",
        "language": title.language,
        "isbn": title.isbn,
        "format_type": "unabridged",
        "content_delivery_type": title.delivery,
        "content_type": "Podcast" if title.delivery.startswith("Podcast") else "Product",
        "has_children": title.has_children,
        "is_ayce": title.plus,
        "benefit_id": "AYCL" if title.plus else None,
        "customer_rights": {"is_consumable": title.consumable, "is_consumable_offline": title.consumable},
        "issue_date": title.released.date().isoformat(),
        "release_date": title.released.date().isoformat(),
        "publication_datetime": timestamp(title.released, fraction=False),
        "purchase_date": added,
        "library_status": {"date_added": added, "is_pending": False, "is_preordered": False, "is_visible": True},
        "runtime_length_min": round(running_ms(title) / 60_000) if title.minutes is None else title.minutes,
        "sku": sku,
        "sku_lite": sku,
        "status": title.status,
        "available_codecs": codecs if title.aax else None,
        "product_images": {size: f"https://m.media-amazon.com/images/I/{title.asin}._SL{size}_.jpg" for size in sizes}
        if title.cover
        else {},
        "relationships": _relationships(title),
        "pdf_url": f"https://www.audible.com/companion-file/{title.asin}" if title.pdf else None,
        "is_pdf_url_available": title.pdf,
        "category_ladders": [
            {"root": "Genres", "ladder": [{"id": "1", "name": "Literature & Fiction"}, {"id": "2", "name": "Sea"}]}
        ],
    }
    if groups is None:
        return found
    return {name: value for name, value in found.items() if _GROUP_OF.get(name, "") in {*groups, ""}}


def _relationships(title: Title) -> list[Document]:
    if title.parent is None:
        return []
    kind = "episode" if title.delivery == "PodcastEpisode" else "component"
    return [
        {"asin": title.parent, "relationship_to_product": "parent", "relationship_type": kind, "sort": "1", "sku": None}
    ]


def running_ms(title: Title) -> int:
    """Return how long the chapters of a title are together."""
    return sum(one["length_ms"] for one in flat(title.chapters))


def flat(chapters: Sequence[Document]) -> list[Document]:
    """Return the chapters without their tree, headings included."""
    found = []
    for one in chapters:
        found += [{name: value for name, value in one.items() if name != "chapters"}, *flat(one.get("chapters", ()))]
    return found


def chapter_info(title: Title, *, tree: bool = True) -> Document:
    return {
        "brandIntroDurationMs": 2043,
        "brandOutroDurationMs": 1061,
        "chapters": copy.deepcopy(list(title.chapters)) if tree else flat(title.chapters),
        "is_accurate": title.accurate,
        "runtime_length_ms": running_ms(title),
        "runtime_length_sec": running_ms(title) // 1000,
    }


def content_reference(title: Title) -> Document:
    size = title.told_size
    if size is None:
        size = title.aaxc.stat().st_size if title.aaxc else 0
    return {
        "acr": f"CR!OWN{title.asin}",
        "asin": title.asin,
        "codec": "mp3" if title.podcast else title.codec,
        "content_format": "MPEG" if title.podcast else title.quality,
        "content_size_in_bytes": size,
        "file_version": "1",
        "marketplace": "AF2M0KC94RCEA",
        "sku": f"BK_OWNP_{title.asin[-6:]}",
        "tempo": "1.0",
        "version": "9000001",
    }


def metadata(title: Title, groups: Collection[str] | None = None, *, tree: bool = True) -> Document:
    """Return what ``content/{asin}/metadata`` answers, which is also audible-cli's chapters file."""
    whole = {
        "chapter_info": chapter_info(title, tree=tree),
        "content_reference": content_reference(title),
        "last_position_heard": {"status": "DoesNotExist"},
    }
    kept = {name: value for name, value in whole.items() if groups is None or name in groups}
    return {"content_metadata": kept, "response_groups": ["always-returned", *kept]}


def licence(
    title: Title, voucher: object, owner: str, now: datetime, groups: Collection[str] | None = None
) -> Document:
    """Return a granted licence; ``voucher`` is the encrypted text, or the decrypted document where audible-cli wrote it down."""
    expires = int((now + title.lifetime).timestamp())
    ending = "mp3" if title.podcast else "aaxc"
    address = title.address or (
        f"https://d1ownfake0000.cloudfront.net/bk/{title.asin}/own.{ending}?Expires={expires}&Signature=own-signature&Key-Pair-Id=own"
    )
    kept = metadata(title, groups)["content_metadata"] | {"content_url": {"offline_url": address}}
    made: Document = {
        "access_expiry_date": timestamp(now + timedelta(days=3650)),
        "acr": content_reference(title)["acr"],
        "allowed_users": [owner],
        "asin": title.asin,
        "content_metadata": kept,
        "drm_type": title.drm or ("Mpeg" if title.podcast else "Adrm"),
        "license_id": "00000000-0000-0000-0000-000000000001",
        "message": f"Customer [{owner}] has rights to asin [{title.asin}]",
        "refresh_date": timestamp(now + timedelta(days=60)),
        "removal_date": timestamp(now + timedelta(days=3650)),
        "request_id": "OWNREQUEST",
        "requires_ad_supported_playback": False,
        "status_code": "Granted",
        "voucher_id": "cdn:own",
    }
    if groups is None or "pdf_url" in groups:
        made["pdf_url"] = item(title)["pdf_url"]
    if made["drm_type"] == "Adrm":
        made["license_response"] = voucher
    return {"content_license": made, "response_groups": ["always-returned", *kept]}


def refusal(title: Title, owner: str, reasons: Sequence[str]) -> Document:
    """Return a licence that is denied, for reasons such as "CustomerThrottled"; no reasons: Audible gives none."""
    told = [
        {
            "message": f"Customer id [{owner}] and asin [{title.asin}]: no",
            "rejectionReason": reason,
            "validationType": "Client" if reason == "CustomerThrottled" else "Ownership",
        }
        for reason in reasons
    ]
    return {
        "content_license": {
            "asin": title.asin,
            "drm_type": "Adrm",
            "license_denial_reasons": told or None,
            "message": f"License not granted to customer [{owner}] for asin [{title.asin}]",
            "status_code": "Denied",
        },
        "response_groups": ["always-returned"],
    }


def voucher(title: Title, owner: str, now: datetime) -> Document:
    """Return the decrypted voucher: what opens the file."""
    return {
        "key": title.key.hex(),
        "iv": title.iv.hex(),
        "refreshDate": timestamp(now + timedelta(days=60)),
        "removalOnExpirationDate": timestamp(now + timedelta(days=3650)),
        "rules": [
            {
                "name": "DefaultExpiresRule",
                "parameters": [{"type": "EXPIRES", "expireDate": timestamp(now + timedelta(days=3650))}],
            },
            {"name": "AllowedUsersRule", "parameters": [{"type": "DIRECTED_IDS", "directedIds": [owner]}]},
        ],
    }


def no_asset(title: Title) -> Document:
    """Return what comes with a 404 where there is nothing to download."""
    return {
        "error_code": "000307",
        "message": f"Unable to retrieve asset details, for marketplaceId:AF2M0KC94RCEA, asin:{title.asin}, acr:null, version:LATEST",
    }


def notes(title: Title) -> Document:
    """Return the annotations of a title: where its owner is, and a bookmark."""
    return {
        "md5": "0" * 32,
        "payload": {
            "acr": f"CR!OWN{title.asin}",
            "guid": f"CR!OWN{title.asin}",
            "key": title.asin,
            "type": "AUDI",
            "records": [
                {"type": "audible.last_heard", "startPosition": "1000", "creationTime": "2024-06-01 10:00:00.0"},
                {"type": "audible.bookmark", "startPosition": "2500", "creationTime": "2024-06-01 10:05:00.0"},
            ],
        },
    }


def timestamp(time: datetime, *, fraction: bool = True) -> str:
    """Return a time as Audible writes it: some with fractions of a second, some without."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z" if fraction else "%Y-%m-%dT%H:%M:%SZ")


def groups(text: str | None) -> set[str] | None:
    """Return the response groups that were asked for."""
    return None if text is None else set(re.split(r"[,\s]+", text))


def change(title: Title, facts: Mapping[str, object]) -> None:
    """Change fields of a title, by their names, from plain values; pydantic.ValidationError for what doesn't fit."""
    kinds = get_type_hints(Title)
    for name, value in facts.items():
        setattr(title, name, TypeAdapter(kinds[name]).validate_python(value))
