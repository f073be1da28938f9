"""Does every error get a status that says what to do: ask otherwise, or ask again later?"""

from __future__ import annotations

import json

import pytest

from aiom4b import redaction
from aiom4b.control import problems
from aiom4b.errors import Exit, Fatal, NeedsAttention, Transient


def error(kind=NeedsAttention, code="x.y", reason="It is so.", **facts):
    return kind(code, reason, remedy="Do this.", **facts)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (error(), 422),
        (error(code="job.missing", exit=Exit.NOT_FOUND), 404),
        (error(code="file.not_permitted", exit=Exit.NOT_PERMITTED), 403),
        (error(code="job.conflict"), 409),
        (error(code="restore.exists"), 409),
        (error(Transient, code="space.full"), 503),
        (error(Transient, code="backup.busy"), 503),
        (error(Fatal, code="config.invalid"), 422),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_the_status_follows_from_the_verdict(given, status):
    assert problems.status_of(given) == status


def test_a_problem_says_what_the_error_says():
    answer = problems.response(error(code="job.missing", exit=Exit.NOT_FOUND), {"X-Of": "ours"})
    assert answer.media_type == "application/problem+json"
    assert answer.headers["x-of"] == "ours"
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "It is so.",
        "code": "job.missing",
        "remedy": "Do this.",
    }


def test_a_problem_carries_no_secret_and_no_half_characters(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", [])
    redaction.keep_secret("hunter2hunter2")
    body = json.loads(problems.response(error(reason="Of \udcff it is hunter2hunter2.")).body)
    assert body["detail"] == "Of \\xff it is [redacted]."
