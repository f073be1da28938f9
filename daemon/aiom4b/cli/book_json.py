"""How is a book told as JSON? The documented shape of one entry of `aiom4b convert --json`."""

from __future__ import annotations

import base64
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiom4b.app.conversion import Outcome


def name(key: str, value: str) -> dict[str, str]:
    """Return a name under ``key``, and in ``key_b64`` its exact bytes where they are not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return {key: value, f"{key}_b64": base64.b64encode(os.fsencode(value)).decode("ascii")}
    return {key: value}


def book(outcome: Outcome) -> dict[str, Any]:
    """Return what became of one source: the book, or the error."""
    if outcome.finished is None:
        assert outcome.error is not None
        error = outcome.error
        return {
            **name("source", outcome.path),
            "error": {"code": error.code, "message": error.reason, "remedy": error.remedy},
        }
    finished = outcome.finished
    plan, line = finished.plan, finished.plan.timeline
    source = outcome.source
    assert source is not None
    seconds: dict[str, float] = {str(step): value for step, value in finished.seconds.items()}
    seconds = {"examine": outcome.examine_seconds, **seconds, "total": outcome.seconds}
    document: dict[str, Any] = {**name("source", outcome.path), **name("output", finished.publication.book)}
    document |= name("backup", finished.receipt.root) if finished.receipt.copied else {"backup": None}
    return document | {
        "id": finished.publication.id,
        "already": finished.publication.already,
        "sha256": finished.publication.sha256,
        "samples": line.samples,
        "sample_rate": line.sample_rate,
        "channels": line.channels,
        "bitrate": finished.bit_rate,
        "chapters": [{"title": chapter.title, "start_samples": chapter.start} for chapter in plan.chapters],
        "chapters_from": plan.chapters_from,
        "order": {
            "files": list(finished.files),
            "evidence": plan.order.evidence,
        },
        "segments": {"made": len(finished.draft.segments) - finished.draft.reused, "reused": finished.draft.reused}
        if finished.draft is not None
        else None,
        "proof": asdict(finished.proof),
        "warnings": list(finished.warnings),
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
        "speed": round(line.samples / line.sample_rate / outcome.seconds, 1),
    }
