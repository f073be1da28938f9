"""How does a title's audio get here whole, however often the way breaks? By pieces, resumed only where it is the same file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import anyio
import anyio.to_thread
import httpx
import structlog

from aiom4b.adapters import files
from aiom4b.adapters.audible_api.connection import MIB, Answer, Connection, media_type, verdict
from aiom4b.adapters.audible_api.parts import Part
from aiom4b.adapters.audible_api.translation import refusal
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient

log = structlog.get_logger()

AUDIO_TYPES = frozenset({
    "audio/aax", "audio/vnd.audible.aax", "audio/audible", "audio/mp4", "audio/mpeg", "audio/mp3", "audio/x-m4a",
})  # fmt: skip
"""What Audible's servers call audio; all else is refused before a byte is kept."""

_DOING = "downloading"
_PAGE_LIMIT = 64 * 1024
_PAGE_SECONDS = 20.0
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """A file that arrived whole, under its final name. ``resumed_at`` is how many of its ``size`` bytes were here before."""

    path: str
    size: int
    resumed_at: int


async def transfer(
    connection: Connection,
    address: str,
    path: str,
    *,
    expected: int | None,
    on_bytes: Callable[[int, int], None],
    now: Callable[[], datetime],
) -> Transferred:
    """Bring what lies at ``address`` to ``path``, which appears only once it is whole and durable.

    Until then ``path + ".part"`` grows, with a durable note ``path + ".resume"``; whatever ends the work, the next call goes
    on from there if the server still has the same file, and else afresh. ``expected`` is the size that the licence named.
    ``on_bytes(done, total)`` hears of every piece, from the event loop; ``total`` is 0 where nobody tells. Safe to repeat: a finished file is not asked for.

    Raises Transient ``audible.network``, ``audible.unreachable``, ``audible.cut_download``, ``audible.changed_download``,
    ``audible.address_expired``, ``audible.rate``, ``audible.server``; NeedsAttention ``audible.not_audio`` and
    ``audible.not_found``; and what `files.translated` raises, ``space.full`` among it.
    """
    if (size := await anyio.to_thread.run_sync(_finished, path)) is not None:
        if expected not in {None, size}:
            raise _changed()
        return Transferred(path=path, size=size, resumed_at=size)
    part = await anyio.to_thread.run_sync(Part.opened, path, expected)
    try:
        begun = part.size
        if not part.whole and not await _received(connection, address, part, expected, on_bytes, now):
            begun = 0
            await _received(connection, address, part, expected, on_bytes, now)
        await anyio.to_thread.run_sync(part.publish)
        return Transferred(path=path, size=part.size, resumed_at=begun)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(part.close)


async def _received(
    connection: Connection,
    address: str,
    part: Part,
    expected: int | None,
    on_bytes: Callable[[int, int], None],
    now: Callable[[], datetime],
) -> bool:
    """Receive all that is missing; False when what is here belongs to another file, and has been dropped."""
    begun = part.size
    # Bytes as they are: a compressed answer could neither be counted nor resumed.
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"} | ({"Range": f"bytes={begun}-"} if begun else {})
    async with connection.opened(address, headers) as response:
        if response.status_code == 416 and begun:
            await anyio.to_thread.run_sync(part.drop)
            return False
        await _check_answer(response, begun, now)
        total, etag = _announced(response, begun), response.headers.get("etag", "")
        if begun and response.status_code == 206 and (total is None or etag != part.etag or total != part.total):
            log.info("audible.download_changed", file=os.path.basename(part.path))
            await anyio.to_thread.run_sync(part.drop)
            return False
        if expected is not None and total not in {0, expected}:
            raise _changed()
        if response.status_code == 200:
            await anyio.to_thread.run_sync(part.begin, total or expected or 0, etag)
        await _write(response, part, on_bytes)
    if part.total and part.size != part.total:
        raise _cut(part)
    part.total = part.size  # it may not have been told
    return True


async def _write(response: httpx.Response, part: Part, on_bytes: Callable[[int, int], None]) -> None:
    on_bytes(part.size, part.total)
    try:
        async for piece in response.aiter_raw():
            part.buffer += piece
            if part.total and part.size + len(part.buffer) > part.total:
                raise _changed()
            if len(part.buffer) >= MIB:
                await anyio.to_thread.run_sync(part.flush)
                on_bytes(part.size, part.total)
    except httpx.TimeoutException as error:
        raise verdict(error) from error
    except httpx.HTTPError as error:
        raise _cut(part) from error
    await anyio.to_thread.run_sync(part.flush)
    on_bytes(part.size, part.total)


async def _check_answer(response: httpx.Response, begun: int, now: Callable[[], datetime]) -> None:
    status, type_ = response.status_code, media_type(response.headers)
    good = {200, 206} if begun else {200}  # a part that nobody asked for is none to begin with
    if status in good and type_ in AUDIO_TYPES and response.headers.get("content-encoding", "identity") == "identity":
        return
    page = bytearray()
    with suppress(httpx.HTTPError), anyio.move_on_after(_PAGE_SECONDS):  # what it says is only wanted for the reason
        async for piece in response.aiter_bytes():
            page += piece
            if len(page) >= _PAGE_LIMIT:
                break
    if status in {401, 403, 410}:
        raise Transient(
            "audible.address_expired",
            "The address of the audio has expired, and has to be asked for anew.",
            remedy="Nothing needs doing; a new one is asked for.",
        )
    if status not in good:
        raise refusal(Answer(status=status, headers=response.headers, body=bytes(page)), doing=_DOING, now=now())
    raise _not_audio(bytes(page), type_)


def _not_audio(page: bytes, type_: str) -> Aiom4bError:
    if b"File Assembly" in page or b"individual parts" in page:
        reason = "Audible has no such file of this title: it exists in parts only, or not in this format."
        remedy = "Download its parts, or the title in its newer format."
    else:
        shown = type_ if re.fullmatch(r"[a-z0-9.+/-]{1,80}", type_) else "something unknown"
        reason = f"Audible's server sent {shown} instead of audio; nothing of it was kept."
        remedy = "Try again later with `aiom4b audible download`; check any VPN or proxy if it stays so."
    return NeedsAttention("audible.not_audio", reason, remedy=remedy)


def _announced(response: httpx.Response, begun: int) -> int | None:
    """Return the whole size that an answer announces: 0 when it doesn't tell, None when it isn't the range asked for."""
    if response.status_code == 206:
        found = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != begun or found[3] == "*" or int(found[2]) + 1 != int(found[3]):
            return None
        return int(found[3])
    told: str = response.headers.get("content-length", "")
    return int(told) if re.fullmatch(r"[0-9]{1,18}", told) else 0


def _cut(part: Part) -> Transient:
    of = f" of {part.total}" if part.total else ""
    return Transient(
        "audible.cut_download",
        f"The download broke off after {part.size}{of} bytes.",
        remedy="Nothing needs doing; it goes on from there later.",
    )


def _changed() -> Transient:
    return Transient(
        "audible.changed_download",
        "The file at Audible is not the one that the licence names, or changed while it was downloaded.",
        remedy="Nothing needs doing; it is asked for anew and downloaded afresh.",
    )


def _finished(path: str) -> int | None:
    with files.translated(path, "reading"):
        try:
            return os.lstat(path).st_size
        except FileNotFoundError:
            return None
