"""Facts about the words for times, sizes and tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from aiom4b.cli.wording import ago, ahead, columns, counted, explained, length, size, span

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "just now"),  # clocks differ
        (4, "just now"),
        (42, "42 s ago"),
        (59.7, "59 s ago"),
        (185, "3 min ago"),
        (3599, "59 min ago"),
        (7 * 3600, "7 h ago"),
        (86_399, "23 h ago"),
        (13 * 86_400, "13 d ago"),
        (20 * 86_400, "2026-02-09"),
    ],
)
def test_what_happened_is_said_in_its_largest_unit(seconds, said):
    assert ago(NOW - timedelta(seconds=seconds), NOW) == said


def test_what_is_due_is_said_likewise():
    assert ahead(NOW + timedelta(minutes=5), NOW) == "in 5 min"
    assert ahead(NOW - timedelta(minutes=5), NOW) == "now"
    assert span(0.2) == "0 s"


def test_sizes_are_decimal():
    assert [size(count) for count in (0, 999, 1000, 3_400_000, 999_960, 2_500_000_000, 7 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "3.4 MB",
        "1.0 MB",
        "2.5 GB",
        "7.0 TB",
    ]


def test_lengths_are_written_as_players_do():
    assert [length(seconds) for seconds in (0, 59.6, 32_832)] == ["0:00:00", "0:01:00", "9:07:12"]


def test_one_thing_is_not_many():
    assert [counted(1, "job"), counted(2, "job"), counted(0, "entry", "entries")] == ["1 job", "2 jobs", "0 entries"]


def test_columns_are_aligned_also_beside_wide_characters():
    rows = [("日本", "1", "x"), ("Emma", "12", ""), ("E", "3", "a long one")]
    assert columns(rows, right=frozenset({1})) == ["日本   1  x", "Emma  12", "E      3  a long one"]


def test_several_lines_stay_in_their_column():
    assert columns([("a", "1\n2"), ("bcd", "3")]) == ["a    1\n     2", "bcd  3"]


def test_a_problem_is_explained_below_what_it_is_about():
    problem = {"message": "One.\nTwo.", "remedy": "Do\nthat."}
    assert explained(problem, 2) == ["  One.", "  Two.", "  remedy: Do", "  that."]
