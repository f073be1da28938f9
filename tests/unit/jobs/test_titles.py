"""Where do its jobs, its files and its library put a title, and how is it looked for?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.jobs.job import JobId, Kind, Problem, Status
from aiom4b.jobs.title import TitleStatus
from aiom4b.jobs.titles import Standing, folded, status_of

TORN = Problem(code="source.damaged", message="A file is torn.", remedy="Copy it again.")
GONE = Problem(code="title.revoked", message="It was returned.", remedy="Nothing.")


def job(kind, status, error=None):
    return Standing(id=JobId(f"{kind} {status}"), kind=kind, status=status, error=error)


def download(status, error=None):
    return job(Kind.DOWNLOAD, status, error)


def convert(status, error=None):
    return job(Kind.CONVERT, status, error)


WAITING = download(Status.WAITING, TORN)
FETCHED = download(Status.COMPLETED)
QUEUED = convert(Status.QUEUED)
FAILED = convert(Status.FAILED, TORN)
DONE = convert(Status.COMPLETED)


@pytest.mark.parametrize(
    ("jobs", "held", "expected"),
    [
        ([], {}, (TitleStatus.NEW, None, None)),
        ([], {"unavailable": GONE}, (TitleStatus.UNAVAILABLE, GONE, None)),
        ([], {"files": "/f"}, (TitleStatus.DOWNLOADED, None, None)),
        ([], {"files": "/f", "unavailable": GONE}, (TitleStatus.DOWNLOADED, None, None)),
        ([], {"files": "/f", "book": "/b", "unavailable": GONE}, (TitleStatus.COMPLETED, None, None)),
        ([WAITING], {"unavailable": GONE}, (TitleStatus.DOWNLOADING, TORN, WAITING.id)),
        ([download(Status.RUNNING)], {}, (TitleStatus.DOWNLOADING, None, "download running")),
        ([download(Status.FAILED, TORN)], {}, (TitleStatus.NEW, TORN, "download failed")),
        ([download(Status.FAILED, TORN)], {"unavailable": GONE}, (TitleStatus.UNAVAILABLE, GONE, "download failed")),
        ([download(Status.CANCELLED)], {}, (TitleStatus.NEW, None, "download cancelled")),
        # Both are open between the taking of the book and the end of the download: a kill there begins the latter anew.
        ([download(Status.RUNNING), QUEUED], {}, (TitleStatus.DOWNLOADING, None, "download running")),
        ([FETCHED, QUEUED], {"files": "/f"}, (TitleStatus.CONVERTING, None, QUEUED.id)),
        ([FETCHED, FAILED], {"files": "/f"}, (TitleStatus.DOWNLOADED, TORN, FAILED.id)),
        ([FETCHED, FAILED], {}, (TitleStatus.NEW, TORN, FAILED.id)),
        ([FETCHED, DONE], {"files": "/f", "book": "/b"}, (TitleStatus.COMPLETED, None, DONE.id)),
        ([DONE, QUEUED], {"book": "/b"}, (TitleStatus.CONVERTING, None, QUEUED.id)),
        ([DONE, FAILED], {"book": "/b"}, (TitleStatus.COMPLETED, TORN, FAILED.id)),
        ([DONE, WAITING], {"book": "/b"}, (TitleStatus.DOWNLOADING, TORN, WAITING.id)),
    ],
)
def test_work_counts_first_then_what_is_here_then_what_can_be_had(jobs, held, expected):
    assert status_of(jobs, **({"files": None, "book": None, "unavailable": None} | held)) == expected


@given(st.text(), st.text())
def test_what_is_looked_for_is_found_in_what_it_was_taken_from(text, before):
    assert folded(folded(text)) == folded(text)
    for word in folded(text).split():
        assert word in folded(before + "\n" + text)


@pytest.mark.parametrize("other", ["STRASSE", "straße", "Strässe", "ＳＴＲＡＳＳＥ"])
def test_case_accents_and_width_make_no_difference(other):
    assert folded(other) == "strasse"
