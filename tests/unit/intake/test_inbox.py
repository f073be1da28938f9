"""Is every entry taken when it is complete, only then, and told of until then?"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import anyio
import pytest

import intakes
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.jobs.job import EntryState, Status
from aiom4b.models import Rejected
from intakes import Door, FakeJobs, book, examined, played, put, track


@pytest.fixture
def source(tmp_path):
    place = tmp_path / "source"
    place.mkdir()
    return place


@pytest.fixture
def door(source):
    return Door(source)


def test_a_folder_is_taken_once_nothing_changed_for_the_settle_time(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(29)
        assert (door.state("Emma"), door.looked) == (EntryState.SETTLING, [])
        await door.wait(1)
        assert (door.state("Emma"), door.jobs.open) == (EntryState.QUEUED, ["Emma"])
        assert (door.record("Emma").files, door.record("Emma").size) == (2, 400)

    played(scene, door)


def test_a_folder_still_being_copied_is_not_taken(source, door):
    async def scene():
        for number in range(20):
            put(source / "Emma", {f"{number}.mp3": track(300)})
            await door.wait(29)
        assert door.looked == []
        await door.wait(60)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_a_copy_that_pauses_is_given_twice_its_pauses(source, door):
    async def scene():
        put(source / "Emma", {"1 of 3.mp3": track(200, 1)})
        await door.wait(100)  # looked at, and found incomplete
        assert door.state("Emma") is EntryState.INCOMPLETE
        put(source / "Emma", {"2.mp3": track(200, 2)})
        await door.wait(300)
        assert len(door.looked) == 2
        looked_before = len(door.looked)
        put(source / "Emma", {"3.mp3": track(200, 3)})
        await door.wait(120)
        assert len(door.looked) == looked_before

    played(scene, door)


def test_what_was_there_before_the_start_must_settle_too(source):
    put(source / "Emma", book())
    door = Door(source)

    async def scene():
        await door.wait(20)
        put(source / "Emma", {"3.mp3": track(200)})
        await door.wait(29)
        assert door.looked == []

    played(scene, door)


def test_one_slow_copy_does_not_delay_another(source, door):
    async def scene():
        put(source / "Quick", book())
        for number in range(4):
            put(source / "Slow", {f"{number}.mp3": track(300)})
            await door.wait(10)
        assert (door.looked, door.state("Slow")) == (["Quick"], EntryState.SETTLING)

    played(scene, door)


def test_a_slow_examination_does_not_delay_another_entry(source):
    release = anyio.Event()

    async def slow(path):
        if path.endswith("A slow one"):
            await release.wait()
        return await examined(path)

    door = Door(source, examine=slow)
    put(source / "Quick", book(seed=1))
    put(source / "A slow one", book(seed=2))

    async def scene():
        await door.wait(31, drain=False)
        with anyio.fail_after(10):
            while door.state("Quick") is not EntryState.QUEUED:
                await anyio.lowlevel.checkpoint()
        assert door.state("A slow one") is EntryState.READY
        release.set()
        await door.wait(0)
        assert sorted(door.jobs.open) == ["A slow one", "Quick"]

    played(scene, door)


def test_an_unchanged_entry_is_not_examined_again_after_a_restart(source):
    put(source / "Emma", book())
    first = Door(source)
    played(lambda: first.wait(60), first)
    second = Door(source, first.jobs)
    played(lambda: second.wait(1000), second)
    assert (first.looked, second.looked) == (["Emma"], [])


def test_an_entry_that_changed_while_we_were_away_settles_and_its_job_ends(source):
    put(source / "Emma", book())
    first = Door(source)
    played(lambda: first.wait(60), first)
    put(source / "Emma", {"3.mp3": track(200)})
    second = Door(source, first.jobs)

    async def scene():
        assert second.jobs.withdrawn == [("job-1", "source.changed", False)]
        assert second.state("Emma") is EntryState.SETTLING

    played(scene, second)


def test_an_examination_that_was_cut_off_by_a_stop_is_made_again(source):
    put(source / "Emma", book())
    first = Door(source, examine=lambda _: anyio.sleep_forever())
    played(lambda: first.wait(60, drain=False), first)
    assert first.state("Emma") is EntryState.READY
    second = Door(source, first.jobs)
    played(lambda: second.wait(60), second)
    assert second.jobs.open == ["Emma"]


def test_a_folder_that_changes_while_its_job_is_open_goes_back_to_settling(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        put(source / "Emma", {"3.mp3": track(200)})
        await door.wait(60)
        assert door.jobs.withdrawn == [("job-1", "source.changed", False)]
        assert door.state("Emma") is EntryState.SETTLING
        os.remove(source / "Emma" / "3.mp3")
        await door.wait(200)
        assert (door.state("Emma"), door.record("Emma").jobs) == (EntryState.QUEUED, ("job-2",))

    played(scene, door)


def test_new_owners_or_modes_of_the_files_end_no_job(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        before = door.record("Emma").digest
        os.chmod(source / "Emma" / "1 of 2.mp3", 0o600)
        await door.wait(200)
        assert door.looked == ["Emma", "Emma"]
        assert (door.jobs.withdrawn, door.record("Emma").jobs) == ([], ("job-1",))
        assert door.record("Emma").digest != before
        await door.wait(1000)
        assert len(door.looked) == 2

    played(scene, door)


def test_a_job_whose_content_was_exchanged_under_the_same_sizes_and_times_ends(source, door):
    put(source / "Emma", {"a.mp3": track(200, 1)})

    async def scene():
        await door.wait(60)
        status = os.stat(source / "Emma" / "a.mp3")
        put(source / "Emma", {"a.mp3": track(200, 2)})
        os.utime(source / "Emma" / "a.mp3", ns=(status.st_atime_ns, status.st_mtime_ns))
        await door.wait(200)
        assert door.jobs.withdrawn == [("job-1", "source.changed", False)]
        assert door.record("Emma").jobs == ("job-2",)

    played(scene, door)


def test_a_folder_that_vanishes_ends_its_job_and_is_forgotten(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        os.rename(source / "Emma", source.parent / "Emma")
        await door.wait(61)
        assert door.jobs.withdrawn == [("job-1", "source.vanished", True)]
        assert door.state("Emma") is None
        assert door.told("entry.changed")[-1] == {"name": "Emma", "state": None, "problem": None}

    played(scene, door)


def test_a_book_that_is_in_the_library_already_is_done(source, door):
    put(source / "Emma", book())

    async def scene():
        (found,) = await examined(str(source / "Emma"))
        door.jobs.published[found.fingerprint] = "/library/Emma.m4b"
        await door.wait(60)
        assert (door.state("Emma"), door.jobs.jobs) == (EntryState.DONE, {})

    played(scene, door)


def test_what_is_no_book_is_rejected_with_the_reason_and_left_alone(source, door):
    put(source / "Photos", {"a.jpg": b"x"})

    async def scene():
        await door.wait(2000)
        assert (door.state("Photos"), door.code("Photos"), door.looked) == (
            EntryState.REJECTED,
            "source.no_audio",
            ["Photos"],
        )

    played(scene, door)


def test_a_name_of_an_unfinished_copy_holds_the_whole_folder(source, door):
    put(source / "Emma", book() | {"cd2/.3.mp3.a8Xk2Z": b"half"})

    async def scene():
        await door.wait(100)
        assert (door.state("Emma"), door.code("Emma"), door.looked) == (EntryState.INCOMPLETE, "source.arriving", [])
        os.remove(source / "Emma" / "cd2" / ".3.mp3.a8Xk2Z")
        await door.wait(300)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_a_file_that_is_open_for_writing_holds_the_folder_until_it_is_closed(source, door):
    put(source / "Emma", book())

    async def scene():
        with (source / "Emma" / "1 of 2.mp3").open("rb+"):
            await door.wait(100)
            assert (door.state("Emma"), door.code("Emma")) == (EntryState.INCOMPLETE, "source.held")
            assert "1 of 2.mp3" in door.record("Emma").problem.message
            writes = door.jobs.writes
            await door.wait(1000)  # asked for again and again, and written down once
            assert door.jobs.writes == writes
        await door.wait(31)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_a_file_that_stays_open_for_hours_is_still_taken_once_it_is_closed(source):
    door = Door(source, incomplete_hours=1)
    put(source / "Emma", book())

    async def scene():
        with (source / "Emma" / "1 of 2.mp3").open("rb+"):
            await door.wait(3700)
            assert (door.state("Emma"), door.code("Emma")) == (EntryState.NEEDS_ATTENTION, "source.held")
        await door.wait(31)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_an_incomplete_book_is_waited_for_and_then_parked(source):
    door = Door(source, incomplete_hours=6)
    put(source / "Emma", {"1 of 2.mp3": track(200)})

    async def scene():
        await door.wait(5.9 * 3600)
        assert (door.state("Emma"), door.looked) == (EntryState.INCOMPLETE, ["Emma"])
        await door.wait(0.2 * 3600)
        assert (door.state("Emma"), door.code("Emma")) == (EntryState.NEEDS_ATTENTION, "source.incomplete")
        put(source / "Emma", {"2 of 2.mp3": track(200, 1)})
        await door.wait(300)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_the_wait_for_what_is_missing_goes_on_over_a_restart(source):
    put(source / "Emma", {"1 of 2.mp3": track(200)})
    first = Door(source)
    played(lambda: first.wait(60), first)
    second = Door(source, first.jobs)
    second.seconds += 7 * 3600
    played(lambda: second.wait(60), second)
    assert second.state("Emma") is EntryState.NEEDS_ATTENTION


def test_the_other_books_of_a_folder_wait_for_the_incomplete_one_but_not_for_ever(source):
    door = Door(source)
    put(source / "Two" / "Emma", book(seed=1))
    put(source / "Two" / "Persuasion", {"1 of 2.mp3": track(200)})

    async def scene():
        await door.wait(3600)
        assert (door.state("Two"), door.jobs.open) == (EntryState.INCOMPLETE, [])
        await door.wait(6 * 3600)
        assert door.jobs.open == ["Emma"]
        assert door.jobs.records["Two"].problem.code == "source.incomplete"

    played(scene, door)


def test_several_books_of_a_folder_are_a_job_each(source, door):
    put(source / "Two" / "Emma", book(seed=1))
    put(source / "Two" / "Persuasion", book(seed=2))

    async def scene():
        await door.wait(60)
        assert door.jobs.open == ["Emma", "Persuasion"]
        assert door.record("Two").jobs == ("job-1", "job-2")
        assert len(door.record("Two").fingerprints) == 2

    played(scene, door)


def test_a_folder_that_changes_while_it_is_examined_is_not_taken(source):
    async def while_copied(path):
        found = await examined(path)
        if len(door.looked) == 1:
            put(path, {"3.mp3": track(200)})
        return found

    door = Door(source, examine=while_copied)
    put(source / "Emma", {"1.mp3": track(200, 1)})

    async def scene():
        await door.wait(31)
        assert (door.looked, door.jobs.accepted, door.state("Emma")) == (["Emma"], [], EntryState.SETTLING)
        await door.wait(120)
        assert len(door.jobs.accepted) == 1

    played(scene, door)


def test_an_examination_of_what_has_changed_is_given_up(source):
    looking = anyio.Event()

    async def for_ever(path):
        if len(door.looked) == 1:
            looking.set()
            await anyio.sleep_forever()
        return await examined(path)

    door = Door(source, examine=for_ever)
    put(source / "Emma", book())

    async def scene():
        await door.wait(31, drain=False)
        await looking.wait()
        put(source / "Emma", {"1 of 2.mp3": track(300)})
        await door.wait(61, drain=False)
        await door.wait(120)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


@pytest.mark.parametrize("verdict", [Transient, NeedsAttention])
def test_what_could_not_be_looked_at_is_tried_again_with_growing_pauses(source, verdict):
    times = []

    async def failing(path):
        times.append(door.seconds)
        raise verdict("file.io", "The disk failed.", remedy="Check it.")

    door = Door(source, examine=failing)
    put(source / "Emma", book())

    async def scene():
        await door.wait(40)
        assert (door.state("Emma"), door.code("Emma")) == (
            EntryState.READY if verdict is Transient else EntryState.NEEDS_ATTENTION,
            "file.io",
        )
        await door.wait(3600)
        assert door.state("Emma") is EntryState.NEEDS_ATTENTION
        pauses = [after - before for before, after in pairwise(times)]
        assert len(pauses) > 5
        assert pauses == sorted(pauses)
        assert pauses[-1] > 10 * pauses[0]
        door.examine = examined
        await door.wait(3600)
        assert (door.state("Emma"), door.code("Emma")) == (EntryState.QUEUED, None)

    played(scene, door)


def test_a_fault_of_the_program_with_one_entry_does_not_stop_the_others(source):
    async def faulty(path):
        if path.endswith("Emma"):
            raise ZeroDivisionError
        return await examined(path)

    door = Door(source, examine=faulty)
    put(source / "Emma", book(seed=1))
    put(source / "Persuasion", book(seed=2))

    async def scene():
        await door.wait(60)
        assert (door.code("Emma"), door.jobs.open) == ("program.error", ["Persuasion"])

    played(scene, door)


def test_a_queue_that_refuses_leaves_the_entry_ready(source, door):
    put(source / "Emma", book())
    door.jobs.refuse = Transient("file.io", "The library is away.", remedy="Mount it.")

    async def scene():
        await door.wait(31)
        assert (door.state("Emma"), door.code("Emma")) == (EntryState.READY, "file.io")
        door.jobs.refuse = None
        await door.wait(60)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_a_folder_that_can_not_be_read_needs_attention_until_it_can(source, door):
    deep = source / "Emma" / "/".join("d" * 40)
    put(source / "Emma", book())
    deep.mkdir(parents=True)

    async def scene():
        await door.wait(60)
        assert (door.state("Emma"), door.code("Emma")) == (EntryState.NEEDS_ATTENTION, "source.too_large")
        os.removedirs(deep)
        await door.wait(600)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_scan_tries_again_what_waits_for_somebodys_hand(source):
    async def refused(path):
        raise NeedsAttention("file.not_permitted", "It may not be read.", remedy="Permit it.")

    door = Door(source, examine=refused)
    put(source / "Emma", book())

    async def scene():
        await door.wait(1000)
        door.examine = examined
        door.inbox.scan()
        await door.wait(0)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_what_waited_for_somebodys_hand_is_tried_again_after_a_restart(source):
    async def refused(path):
        raise NeedsAttention("file.not_permitted", "It may not be read.", remedy="Permit it.")

    put(source / "Emma", book())
    first = Door(source, examine=refused)
    played(lambda: first.wait(60), first)
    second = Door(source, first.jobs)
    played(lambda: second.wait(60), second)
    assert second.jobs.open == ["Emma"]


def test_scan_tries_again_what_was_refused_under_other_settings(source):
    async def rejected(path):
        return (Rejected(path=path, code="file.too_large", reason="It is too large.", remedy="Raise the limit."),)

    door = Door(source, examine=rejected)
    put(source / "Emma", book())

    async def scene():
        await door.wait(1000)
        assert (door.state("Emma"), door.looked) == (EntryState.REJECTED, ["Emma"])
        door.examine = examined
        door.inbox.scan()
        await door.wait(0)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_scan_does_not_wait_for_the_next_attempt(source):
    async def failing(path):
        raise Transient("file.io", "The disk failed.", remedy="Check it.")

    door = Door(source, examine=failing)
    put(source / "Emma", book())

    async def scene():
        await door.wait(50)
        assert door.state("Emma") is EntryState.READY
        door.examine = examined
        door.inbox.scan()
        await door.wait(0)
        assert door.jobs.open == ["Emma"]

    played(scene, door)


def test_a_job_that_is_accepted_while_its_source_changes_ends(source):
    class Slow(FakeJobs):
        async def accept(self, source, entry):
            accepted = await super().accept(source, entry)
            put(source.root, {"3.mp3": track(200, len(self.jobs))})
            await pause.wait()
            return accepted

    pause = anyio.Event()
    door = Door(source, Slow())
    put(source / "Emma", {"1.mp3": track(200), "2.mp3": track(200, 1)})

    async def scene():
        await door.wait(31, drain=False)
        with anyio.fail_after(10):
            while not door.jobs.accepted:
                await anyio.lowlevel.checkpoint()
        await door.wait(5, drain=False)  # the change is noticed
        assert (door.state("Emma"), door.jobs.open) == (EntryState.SETTLING, ["Emma"])
        pause.set()
        await door.wait(5)
        assert door.jobs.withdrawn == [("job-1", "source.changed", False)]

    played(scene, door)


def test_what_was_accepted_before_a_failure_still_ends_when_the_folder_changes(source):
    class Half(FakeJobs):
        async def accept(self, source, entry):
            if source.name == "Persuasion":
                raise Transient("file.io", "The library is away.", remedy="Mount it.")
            return await super().accept(source, entry)

    door = Door(source, Half())
    put(source / "Two" / "Emma", book(seed=1))
    put(source / "Two" / "Persuasion", book(seed=2))

    async def scene():
        await door.wait(31)
        assert door.jobs.open == ["Emma"]
        put(source / "Two" / "Emma", {"3.mp3": track(200)})
        await door.wait(5)
        assert door.jobs.withdrawn == [("job-1", "source.changed", False)]

    played(scene, door)


def test_books_that_could_not_be_handed_over_with_the_others_are_handed_over_hours_later(source):
    class Half(FakeJobs):
        away = True

        async def accept(self, source, entry):
            if source.name == "Persuasion" and self.away:
                raise Transient("file.io", "The library is away.", remedy="Mount it.")
            return await super().accept(source, entry)

    door = Door(source, Half())
    put(source / "Two" / "Emma", book(seed=1))
    put(source / "Two" / "Persuasion", book(seed=2))

    async def scene():
        await door.wait(1200)
        assert (door.jobs.open, door.code("Two")) == (["Emma"], "file.io")
        door.jobs.away = False
        await door.wait(3600)
        assert door.jobs.open == ["Emma", "Persuasion"]
        assert door.state("Two") is EntryState.QUEUED

    played(scene, door)


def test_a_folder_that_can_not_be_read_for_a_while_keeps_its_job(source, door):
    put(source / "Emma", book())
    deep = source / "Emma" / "/".join("d" * 40)

    async def scene():
        await door.wait(60)
        deep.mkdir(parents=True)
        await door.wait(60)
        assert (door.state("Emma"), door.code("Emma"), door.jobs.records["Emma"].problem) == (
            EntryState.QUEUED,
            None,
            None,
        )
        os.removedirs(deep)
        await door.wait(1000)
        assert (door.looked, door.jobs.withdrawn) == (["Emma"], [])

    played(scene, door)


def test_a_sidecar_that_comes_later_goes_to_the_book_that_it_describes(source, door):
    put(source, {"Emma.mp3": track(200)})

    async def scene():
        await door.wait(60)
        put(source, {"Emma.cue": b"x"})
        door.inbox._touched(frozenset({"Emma.cue"}))
        await door.wait(5, heard=False)
        assert door.jobs.withdrawn == [("job-1", "source.changed", False)]
        assert list(door.jobs.records) == ["Emma.mp3"]

    played(scene, door)


def test_a_scan_that_is_asked_for_during_a_scan_is_made(source, door):
    async def scene():
        entries = door.jobs.entries

        async def meanwhile():
            door.jobs.entries = entries
            put(source / "Emma", book())  # too late for the listing that was just made
            door.inbox.scan()
            return await entries()

        door.jobs.entries = meanwhile
        await door.wait(60 + 35, heard=False)  # the next one by itself would come at 120
        assert door.state("Emma") is EntryState.QUEUED

    played(scene, door)


def test_without_a_table_of_mounts_the_source_is_polled(source, monkeypatch):
    def unreadable(path):
        raise NeedsAttention("file.missing", "There is no /proc.", remedy="Mount it.")

    monkeypatch.setattr("aiom4b.adapters.mounts.kind_of", unreadable)
    door = Door(source, mode="auto")
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        assert (door.inbox.health().mode, door.jobs.open) == ("poll", ["Emma"])

    played(scene, door)


@pytest.mark.parametrize(("kind", "mode"), [("nfs4", "poll"), ("ext4", "events")])
def test_the_file_system_decides_how_it_is_watched(source, monkeypatch, kind, mode):
    monkeypatch.setattr("aiom4b.adapters.mounts.kind_of", lambda path: kind)
    door = Door(source, mode="auto")

    async def scene():
        assert door.inbox.health().mode == mode

    played(scene, door)


def test_what_a_person_cancelled_is_not_taken_again(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        door.jobs.end("job-1", Status.CANCELLED)
        await door.wait(1000)
        door.inbox.scan()
        await door.wait(1000)
        assert (door.looked, door.jobs.open) == (["Emma"], [])

    played(scene, door)


def test_a_job_that_found_another_source_than_was_accepted_is_followed_by_a_new_look(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        door.jobs.end("job-1", Status.CANCELLED, replace(intakes.PROBLEM, code="source.changed"))
        await door.wait(120)
        assert (door.looked, door.record("Emma").jobs) == (["Emma", "Emma"], ("job-2",))

    played(scene, door)


def test_an_entry_whose_record_was_removed_is_looked_at_again(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        door.jobs.end("job-1", Status.COMPLETED)
        del door.jobs.records["Emma"]
        await door.wait(120)
        assert door.looked == ["Emma", "Emma"]

    played(scene, door)


def test_a_thousand_unchanged_rescans_write_nothing(source, door):
    put(source / "Emma", book())
    put(source / "Photos", {"a.jpg": b"x"})

    async def scene():
        await door.wait(100)
        writes, events = door.jobs.writes, len(door.events)
        await door.wait(100_000)
        assert (door.jobs.writes, len(door.events)) == (writes, events)

    played(scene, door)


def test_a_copy_in_progress_is_not_written_to_the_database_each_second(source):
    door = Door(source, settle_seconds=4)

    async def scene():
        for number in range(60):
            put(source / "Emma", {f"{number}.mp3": track(300)})
            await door.wait(1)
        assert door.jobs.writes <= 14

    played(scene, door)


def test_a_single_file_and_what_lies_beside_it_are_one_entry(source, door):
    put(source, {"Emma.mp3": track(200), "Emma.cue": b"x", "Emma.jpg": b"x"})

    async def scene():
        await door.wait(31)
        assert (list(door.jobs.records), door.jobs.open) == (["Emma.mp3"], ["Emma"])
        put(source, {"Emma.cue": b"another"})
        await door.wait(60)
        assert door.jobs.withdrawn == [("job-1", "source.changed", False)]

    played(scene, door)


def test_a_name_that_is_not_utf8_is_an_entry_like_any_other(source, door):
    name = os.fsdecode(b"Caf\xe9")
    put(source / name, book())

    async def scene():
        await door.wait(60)
        assert (door.state(name), door.jobs.open) == (EntryState.QUEUED, [name])
        assert door.told("entry.changed")[-1]["name"] == "Caf\\xe9"

    played(scene, door)


# --- the source itself -------------------------------------------------------------------------------------------------


def test_a_source_that_is_missing_is_waited_for(source):
    source.rmdir()
    door = Door(source)

    async def scene():
        assert (door.inbox.health().state, door.inbox.health().last_scan) == ("degraded", None)
        assert "source" in door.inbox.health().reason
        source.mkdir()
        put(source / "Emma", book())
        await door.wait(60)
        assert (door.inbox.health().state, door.jobs.open) == ("up", ["Emma"])
        assert [event for event, _ in door.events if event.startswith("watcher")] == [
            "watcher.degraded",
            "watcher.recovered",
        ]

    played(scene, door)


def test_a_source_that_goes_away_loses_no_entry(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        os.rename(source, source.parent / "away")
        door.inbox.scan()
        await door.wait(1000)
        assert (door.state("Emma"), door.jobs.withdrawn) == (EntryState.QUEUED, [])
        assert door.inbox.health().state == "degraded"
        os.rename(source.parent / "away", source)
        await door.wait(60)
        assert (door.inbox.health().state, door.looked) == ("up", ["Emma"])

    played(scene, door)


def test_an_entry_seen_missing_because_the_source_just_went_away_is_not_given_up(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        os.rename(source, source.parent / "away")
        door.inbox._touched(frozenset({"Emma"}))  # the entry is looked at before the source is
        await door.wait(5)
        assert (door.state("Emma"), door.jobs.withdrawn) == (EntryState.QUEUED, [])

    played(scene, door)


def test_an_empty_directory_in_place_of_the_source_loses_no_entry(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        os.rename(source, source.parent / "away")
        source.mkdir()  # what an unmounted volume leaves
        await door.wait(1000)
        assert (door.state("Emma"), door.jobs.withdrawn) == (EntryState.QUEUED, [])
        assert "not to be mounted" in door.inbox.health().reason
        put(source / "Persuasion", book(seed=2))
        await door.wait(120)
        assert (door.state("Emma"), door.jobs.open, door.inbox.health().state) == (None, ["Persuasion"], "up")

    played(scene, door)


def test_a_source_that_is_empty_at_the_start_loses_no_entry(source):
    put(source / "Emma", book())
    first = Door(source)
    played(lambda: first.wait(60), first)
    os.rename(source / "Emma", source.parent / "Emma")
    second = Door(source, first.jobs)

    async def scene():
        await second.wait(1000)
        assert (second.state("Emma"), second.inbox.health().state) == (EntryState.QUEUED, "degraded")

    played(scene, second)


def test_a_source_emptied_under_our_eyes_is_empty(source, door):
    put(source / "Emma", book())

    async def scene():
        await door.wait(60)
        os.rename(source / "Emma", source.parent / "Emma")
        await door.wait(61)
        assert (door.state("Emma"), door.inbox.health().state, door.inbox.health().entries) == (None, "up", 0)

    played(scene, door)


def test_polling_looks_at_least_once_a_minute(source):
    door = Door(source, rescan_seconds=3600)

    async def scene():
        await door.wait(300)
        put(source / "Emma", book())
        await door.wait(61, heard=False)
        assert door.state("Emma") is EntryState.SETTLING

    played(scene, door)


# --- quiet -------------------------------------------------------------------------------------------------------------


def test_quiet_comes_once_everything_present_is_settled_or_parked(source, door):
    put(source / "Emma", book(seed=1))
    put(source / "Half", {"1 of 2.mp3": track(200)})
    put(source / "Photos", {"a.jpg": b"x"})
    put(source / "Arriving", {"a.part": b"x"})
    done = []

    async def scene():
        async def wait():
            await door.inbox.quiet()
            done.append(door.seconds)

        door.group.start_soon(wait)
        await door.wait(29)
        assert done == []
        put(source / "Later", {"a.part": b"x"})
        await door.wait(2)
        await anyio.wait_all_tasks_blocked()
        assert done
        assert {door.state(name) for name in ("Emma", "Half", "Photos", "Arriving")} == {
            EntryState.QUEUED,
            EntryState.INCOMPLETE,
            EntryState.REJECTED,
        }

    played(scene, door)


def test_quiet_does_not_wait_for_what_was_known_before_nor_for_what_vanishes(source):
    put(source / "Emma", book(seed=1))
    first = Door(source)
    played(lambda: first.wait(60), first)
    put(source / "Fleeting", book(seed=2))
    second = Door(source, first.jobs)

    async def scene():
        os.rename(source / "Fleeting", source.parent / "Fleeting")
        second.inbox.scan()
        await second.wait(0)
        with anyio.fail_after(5):
            await second.inbox.quiet()

    played(scene, second)
