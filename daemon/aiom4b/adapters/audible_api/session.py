"""What can be asked of Audible? The library, a title's chapters, licence and companions, and its audio."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import structlog
from audible.activation_bytes import extract_activation_bytes

from aiom4b import models, redaction
from aiom4b.adapters.audible_api import licences
from aiom4b.adapters.audible_api.connection import MIB, Answer, Connection
from aiom4b.adapters.audible_api.identity import Identity, marketplace
from aiom4b.adapters.audible_api.licences import Licence, Quality
from aiom4b.adapters.audible_api.transfer import Transferred, transfer
from aiom4b.adapters.audible_api.translation import document, refusal, unreadable
from aiom4b.errors import NeedsAttention
from aiom4b.models import Clock

log = structlog.get_logger()

_ASIN = re.compile(r"[A-Z0-9]{10}")
_GROUPS = (
    "category_ladders,contributors,customer_rights,media,pdf_url,product_attrs,product_desc,product_details,"
    "product_extended_attrs,relationships,series"
)
_ITEM = {"response_groups": _GROUPS, "image_sizes": "500,1215"}
_KINDLE = "https://cde-ta-g7g.amazon.com/FionaCDEServiceEngine"
_AS_IPHONE = {"player_manuf": "Audible,iPhone", "player_model": "iPhone", "action": "register"}
_BLOB_TAIL = 0x238  # eight lines of 70 bytes, the first of which hold the activation bytes
_LARGEST_PICTURE = 32 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryPage:
    """Some items of a library, as Audible tells them, but ``left_out`` ones that have no proper ASIN.

    ``total`` counts all pages, and what is left out too; ``state_token`` asks for changes since.
    """

    items: tuple[dict[str, Any], ...] = field(repr=False)
    left_out: int
    total: int
    state_token: str


class Session:
    """A conversation with Audible for one registered device, in the marketplace ``country`` or else its own.

    To be entered with ``async with``. Everything it asks may raise Transient ``audible.network``, ``audible.unreachable``, ``audible.server``,
    ``audible.rate``, ``audible.unreadable``; NeedsAttention ``audible.unauthorized``, ``audible.clock``,
    ``audible.not_found``, ``audible.refused``; where more can happen its docstring says so.
    """

    def __init__(self, identity: Identity, *, country: str | None = None, clock: Clock = models.now) -> None:
        self._domain = marketplace(country or identity.country).domain
        self._authenticator = identity.authenticator()
        self._connection = Connection(self._authenticator, self._domain)
        self._clock = clock

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    async def library(
        self, *, page: int, page_size: int = 500, state_token: str | None = None, parent: str | None = None
    ) -> LibraryPage:
        """Return a page (from 1) of the library, oldest purchase first, so that what is bought meanwhile comes last.

        With ``state_token`` only what changed since, what was taken away among it; with ``parent`` the parts or episodes of
        that title. Items without a proper ASIN are left out.
        """
        params: dict[str, str | int] = {**_ITEM, "num_results": page_size, "page": page, "sort_by": "PurchaseDate"}
        if state_token is not None:
            params["state_token"] = state_token
        if parent is not None:
            params["parent_asin"] = _checked(parent)
        doing = "listing the library"
        answer = await self._connection.ask("GET", self._api("library"), params=params)
        items = document(answer, doing=doing, now=self._clock()).get("items")
        if not isinstance(items, list):
            raise unreadable(answer, doing)
        good = tuple(item for item in items if isinstance(item, dict) and _is_asin(item.get("asin")))
        if len(good) < len(items):
            log.warning("audible.items_left_out", items=len(items) - len(good))
        told = answer.headers.get("total-count", "")
        # Without the header a full page promises at least one more item, so that the next page is asked for.
        total = (
            int(told)
            if re.fullmatch(r"[0-9]{1,9}", told)
            else (page - 1) * page_size + len(items) + (len(items) == page_size)
        )
        token = answer.headers.get("state-token", "")
        return LibraryPage(
            items=good,
            left_out=len(items) - len(good),
            total=total,
            state_token=token if re.fullmatch(r"[0-9A-Za-z]{1,64}", token) else "",
        )

    async def chapters(self, asin: str, quality: Quality = "high") -> dict[str, Any] | None:
        """Return ``{"content_metadata": {"chapter_info": …, "content_reference": …}}``, None where there are none."""
        params = {
            "response_groups": "chapter_info,content_reference",
            "chapter_titles_type": "Tree",
            "drm_type": "Adrm",
            "quality": "High" if quality == "high" else "Normal",
        }
        answer = await self._connection.ask("GET", self._api(f"content/{_checked(asin)}/metadata"), params=params)
        if answer.status == 404:
            return None
        found = document(answer, doing=f"asking for the chapters of {asin}", now=self._clock()).get("content_metadata")
        if not isinstance(found, dict) or not isinstance(found.get("chapter_info"), dict):
            return None
        return {"content_metadata": {key: found[key] for key in ("chapter_info", "content_reference") if key in found}}

    async def licence(self, asin: str, quality: Quality) -> Licence:
        """Ask for the licence to download a title. Audible meters this: never ask for what is here.

        Also raises what `licences.granted` raises.
        """
        answer = await self._connection.ask(
            "POST", self._api(f"content/{_checked(asin)}/licenserequest"), document=licences.request(quality)
        )
        reply = document(answer, doing=f"asking for the licence of {asin}", now=self._clock())
        return licences.granted(reply, asin, self._authenticator)

    async def aax_address(self, asin: str, codec: str) -> str:
        """Return the address of a title's classic AAX file in one of its ``codecs`` (``LC_128_44100_stereo``).

        The way for titles that the licence offers no AAXC of. Also raises NeedsAttention ``audible.no_asset``.
        """
        doing = f"asking for the AAX of {asin}"
        params = {"type": "AUDI", "currentTransportMethod": "WIFI", "key": _checked(asin), "codec": codec}
        answer = await self._connection.ask("HEAD", f"{_KINDLE}/FSDownloadContent", params=params)
        if answer.status >= 400:
            raise refusal(answer, doing=doing, now=self._clock())
        parts = urlsplit(answer.headers.get("location", ""))
        if parts.scheme != "https" or not (parts.hostname or "").startswith("cds.audible."):
            raise _no_aax(asin)
        return parts._replace(netloc=f"cds.audible.{self._domain}").geturl()

    async def activation_bytes(self) -> str:
        """Return the 8 hex digits that open the account's AAX files."""
        doing = "asking for the activation bytes"
        answer = await self._connection.ask("GET", "https://www.audible.com/license/token", params=_AS_IPHONE)
        if answer.status != 200:
            raise refusal(answer, doing=doing, now=self._clock())
        blob = answer.body
        # audible prints the whole of what it can't read.
        if b"BAD_LOGIN" in blob or b"Whoops" in blob or b"group_id" not in blob or len(blob) < _BLOB_TAIL:
            raise unreadable(answer, doing)
        try:
            value = extract_activation_bytes(blob)
        except (ValueError, struct.error) as error:
            raise unreadable(answer, doing) from error
        redaction.keep_secret(value)
        return value

    async def annotations(self, asin: str) -> bytes | None:
        """Return the owner's bookmarks and notes of a title as JSON, None where there are none."""
        doing = f"asking for the annotations of {asin}"
        answer = await self._connection.ask("GET", f"{_KINDLE}/sidecar", params={"type": "AUDI", "key": _checked(asin)})
        if answer.status == 404:
            return None
        return json.dumps(document(answer, doing=doing, now=self._clock()), ensure_ascii=False, indent=2).encode()

    async def document(self, asin: str, address: str = "") -> bytes | None:
        """Return the PDF that belongs to a title, from ``address`` or where Audible keeps it; None where there is none."""
        where = address or f"https://www.audible.{self._domain}/companion-file/{_checked(asin)}"
        answer = await self._connection.ask("GET", where, follow=True)
        if self._is_there(answer, f"downloading the PDF of {asin}") and b"%PDF-" in answer.body[:1024]:
            return answer.body
        log.warning("audible.no_document", asin=asin, status=answer.status)
        return None

    async def picture(self, address: str) -> bytes | None:
        """Return a cover; None where there is none at the address, or something else."""
        answer = await self._connection.ask("GET", address, follow=True, largest=_LARGEST_PICTURE)
        if self._is_there(answer, "downloading a cover") and answer.type.startswith("image/"):
            return answer.body
        log.warning("audible.no_picture", status=answer.status)
        return None

    async def transfer(
        self, address: str, path: str, *, expected: int | None, on_bytes: Callable[[int, int], None]
    ) -> Transferred:
        """Bring audio here, as `transfer.transfer` promises."""
        return await transfer(self._connection, address, path, expected=expected, on_bytes=on_bytes, now=self._clock)

    def _is_there(self, answer: Answer, doing: str) -> bool:
        """Whether an answer holds what was asked for; raises what goes away by itself, since the next try may bring it."""
        if answer.status == 429 or answer.status >= 500:
            raise refusal(answer, doing=doing, now=self._clock())
        return answer.status == 200

    def _api(self, path: str) -> str:
        return f"https://api.audible.{self._domain}/1.0/{path}"


def _is_asin(value: object) -> bool:
    return isinstance(value, str) and _ASIN.fullmatch(value) is not None


def _checked(asin: str) -> str:
    """Return an ASIN that is one: it becomes a part of addresses and names."""
    if not _is_asin(asin):
        raise NeedsAttention(
            "audible.not_found",
            "That is no ASIN: ten capital letters and digits.",
            remedy="Take it from `aiom4b audible list`.",
        )
    return asin


def _no_aax(asin: str) -> NeedsAttention:
    return NeedsAttention(
        "audible.no_asset",
        f"Audible offers no AAX file of {asin}.",
        remedy="Titles of the Plus catalogue and newer ones have none; there may be an AAXC.",
    )
