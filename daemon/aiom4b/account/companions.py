"""What belongs beside a title's audio? Its document, chapters, cover, PDF and notes, each as far as Audible has it."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.to_thread

from aiom4b.account.vouchers import Voucher
from aiom4b.adapters import files
from aiom4b.adapters.audible_api.session import Session
from aiom4b.adapters.audible_items import ItemFacts
from aiom4b.errors import Aiom4bError, Transient
from aiom4b.jobs.title import TitleFacts

_CONCERNS_ALL = ("audible.unauthorized", "audible.clock")


async def bring(
    folder: str, title: TitleFacts, told: ItemFacts, voucher: Voucher | None, session: Session, *, insist: bool
) -> tuple[Aiom4bError, ...]:
    """Bring into ``folder`` what isn't there yet, named as audible-cli does; return why one or the other can't be had.

    ``told`` is what the title's own document tells; ``voucher`` is None where the audio was there without one. With
    ``insist`` what may work later is raised: Transient ``audible.*``. So is, in any case, what the disk says, and
    NeedsAttention ``audible.unauthorized`` and ``audible.clock``: once that is mended, all can be had.
    """
    asin = title.asin

    async def document() -> bytes:
        return _json(dict(title.item))

    async def chapters() -> bytes | None:
        found = await session.chapters(asin)
        if found is None and voucher is not None and voucher.chapters is not None:
            found = {"content_metadata": {"chapter_info": voucher.chapters, "content_reference": {"asin": asin}}}
        return None if found is None else _json(found)

    async def cover() -> bytes | None:
        return await session.picture(title.cover) if title.cover else None

    async def companion() -> bytes | None:
        address = "" if voucher is None else voucher.pdf
        return await session.document(asin, address) if address or told.pdf else None

    async def annotations() -> bytes | None:
        return await session.annotations(asin)

    wanted: dict[str, Callable[[], Awaitable[bytes | None]]] = {
        f"{asin}-item.json": document,
        f"{asin}-chapters.json": chapters,
        f"{asin}_(1215).jpg": cover,
        f"{asin}.pdf": companion,
        f"{asin}-annotations.json": annotations,
    }
    missed = []
    for name, ask in wanted.items():
        path = os.path.join(folder, name)
        if await anyio.to_thread.run_sync(os.path.lexists, path):
            continue
        try:
            data = await ask()
        except Aiom4bError as error:
            if error.code in _CONCERNS_ALL or (isinstance(error, Transient) and insist):
                raise
            missed.append(error)
            continue
        if data is not None:
            await anyio.to_thread.run_sync(files.write_durably, path, data)
    return tuple(missed)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode("ascii")
