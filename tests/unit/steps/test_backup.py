"""Is there a verified copy of the source, or nothing that could be taken for one?"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from aiom4b.adapters import backups, copies
from aiom4b.adapters.files import identity
from aiom4b.adapters.space import SpaceLedger, Volume
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.models import AudioFacts, Codec, Evidence, FileTags, Sidecar, SidecarKind, Source, SourceFile
from aiom4b.steps import backup as step
from crashes import every_death

NOW = datetime(2026, 11, 21, 13, 5, 9, tzinfo=UTC)
AUDIO = AudioFacts(
    codec=Codec.MP3,
    sample_rate=44100,
    channels=1,
    frames=1,
    samples_per_frame=1152,
    start_skip=0,
    end_discard=0,
    samples=1152,
    bit_rate=64000,
    declared_frames=None,
    gapless=False,
    mpeg_version=1,
    decoder_config=b"",
    anchors=b"",
)
ODD = os.fsdecode(b"CD2/new\nline '\xff\xf0\x9f\xa7\x80" + b"x" * 230 + b".mp3")
BOOK = {"CD1/1.mp3": b"first" * 100, "CD1/2.mp3": b"second" * 100, ODD: b"third" * 100}
BESIDE = {"cover.jpg": b"picture", "SHA256SUMS": b"sums of somebody else"}


def source_in(root, book=BOOK, beside=BESIDE):
    for path, data in (book | beside).items():
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        with open(os.path.join(root, path), "wb") as file:
            file.write(data)

    def seen(path):
        return identity(os.stat(os.path.join(root, path)))

    return Source(
        root=str(root),
        name=os.path.basename(root),
        files=tuple(
            SourceFile(
                path=path,
                identity=seen(path),
                sha256=hashlib.sha256(data).hexdigest(),
                audio=AUDIO,
                tags=FileTags(),
            )
            for path, data in book.items()
        ),
        sidecars=tuple(Sidecar(path=path, identity=seen(path), kind=SidecarKind.OTHER) for path in beside),
        evidence=Evidence(),
        fingerprint=hashlib.sha256(repr(sorted(book.values())).encode()).hexdigest(),
    )


@pytest.fixture
def source(tmp_path):
    return source_in(str(tmp_path / "in" / "Book"))


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "backups"
    path.mkdir()
    return path


def run(source, directory, *, report=lambda progress: None, ledger=None, now=NOW, extras=None):
    async def main():
        return await step.backup(
            source,
            str(directory),
            now=now,
            limiter=anyio.CapacityLimiter(2),
            ledger=ledger or SpaceLedger(),
            report=report,
            extras=extras or {},
        )

    return anyio.run(main)


def refused(kind, *args, **kwargs):
    with pytest.raises(kind) as caught:
        run(*args, **kwargs)
    return caught.value.code


def visible(directory):
    return [name for name in os.listdir(directory) if not name.startswith(".")]


def assert_nothing_left(directory):
    """Nothing but the lock."""
    assert visible(directory) == []
    assert all(name.endswith(".lock") for name in os.listdir(directory / ".aiom4b"))


def test_everything_is_copied_into_a_set_that_verifies(source, directory):
    receipt = run(source, directory)
    assert receipt.copied
    assert receipt.root == str(directory / "Book_20261121_130509")
    assert [file.path for file in receipt.files] == [*BOOK, "cover.jpg", "SHA256SUMS_"]
    for file, data in zip(receipt.files, [*BOOK.values(), *BESIDE.values()], strict=True):
        with open(os.path.join(receipt.root, file.path), "rb") as copy:
            assert copy.read() == data
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert backups.verify_set(receipt.root) == ()
    (made,) = backups.list_sets(str(directory))
    assert (made.source, made.fingerprint, made.created) == (source.root, source.fingerprint, NOW)


def test_the_source_is_left_as_it_was(source, directory):
    run(source, directory)
    for file in (*source.files, *source.sidecars):
        assert identity(os.stat(os.path.join(source.root, file.path))) == file.identity


def test_a_copy_that_is_there_and_verifies_is_not_made_again(source, directory):
    first = run(source, directory)
    assert run(source, directory) == first
    assert len(visible(directory)) == 1


@pytest.mark.parametrize("days", [-20000, -365, 365])
def test_a_copy_is_found_again_whatever_the_clock_said_when_it_was_made(source, directory, days):
    first = run(source, directory, now=NOW + timedelta(days=days))
    assert run(source, directory) == first


def test_a_damaged_copy_is_not_relied_on(source, directory):
    first = run(source, directory)
    with open(os.path.join(first.root, "CD1/1.mp3"), "r+b") as file:
        file.write(b"X")
    second = run(source, directory)
    assert second.root != first.root
    assert backups.verify_set(second.root) == ()


def test_another_cover_or_another_name_makes_another_copy(source, directory, tmp_path):
    roots = {run(source, directory).root}
    roots.add(run(source_in(source.root, beside=BESIDE | {"cover.jpg": b"PICTURE"}), directory).root)
    renamed = {f"renamed {path[-5:]}": data for path, data in BOOK.items()}
    roots.add(run(source_in(str(tmp_path / "elsewhere" / "Book"), book=renamed), directory).root)
    assert len(roots) == 3


def test_a_sidecar_that_went_away_counts_as_a_change_of_the_source(source, directory):
    run(source, directory)
    os.unlink(os.path.join(source.root, "cover.jpg"))
    assert refused(Transient, source, directory) == "source.changed"
    assert len(visible(directory)) == 1


def test_progress_only_rises_and_ends_at_the_whole(source, directory, monkeypatch):
    monkeypatch.setattr(step, "_NEWS_BYTES", 700)
    heard = []
    run(source, directory, report=heard.append)
    done = [progress.done for progress in heard]
    assert done == sorted(done)
    assert len(done) > 3
    assert done[-1] == heard[-1].total == 2 * sum(map(len, [*BOOK.values(), *BESIDE.values()]))
    assert len({progress.total for progress in heard}) == 1


def test_a_book_of_many_files_is_copied_in_batches(tmp_path, directory, monkeypatch):
    monkeypatch.setattr(step, "BATCH_FILES", 3)
    monkeypatch.setattr(step, "BATCH_BYTES", 40)
    sizes = []
    copy_all = copies.copy_all

    def counted(batch, **kwargs):
        sizes.append([len(batch), sum(copy.expected.size for copy in batch)])
        return copy_all(batch, **kwargs)

    monkeypatch.setattr(step, "copy_all", counted)
    book = {f"{number:02}.mp3": bytes(10) * (number % 5) for number in range(20)} | {"long.mp3": bytes(100)}
    receipt = run(source_in(str(tmp_path / "many"), book=book), directory)
    assert [file.path for file in receipt.files] == [*book, "cover.jpg", "SHA256SUMS_"]
    assert max(count for count, _ in sizes) == 3
    assert all(size <= 40 or count == 1 for count, size in sizes)


def test_a_file_that_changed_since_it_was_examined_leaves_no_copy(source, directory):
    with open(os.path.join(source.root, "CD1/2.mp3"), "ab") as file:
        file.write(b"more")
    assert refused(Transient, source, directory) == "source.changed"
    assert_nothing_left(directory)


def test_audio_whose_content_is_not_the_examined_one_leaves_no_copy(source, directory):
    first = replace(source.files[0], sha256=hashlib.sha256(b"other").hexdigest())
    assert refused(Transient, replace(source, files=(first, *source.files[1:])), directory) == "source.changed"
    assert_nothing_left(directory)


def test_a_fifo_in_place_of_a_file_is_not_waited_for(source, directory):
    path = os.path.join(source.root, "CD1/2.mp3")
    os.unlink(path)
    os.mkfifo(path)
    assert refused(Transient, source, directory) == "source.changed"
    assert_nothing_left(directory)


def test_without_room_nothing_is_written(source, directory):
    ledger = SpaceLedger(lambda _: Volume(device=1, available=1 << 30, size=100 << 30))
    assert refused(Transient, source, directory, ledger=ledger) == "space.full"
    assert_nothing_left(directory)


def test_space_is_set_aside_while_copying_and_given_back(source, directory, monkeypatch):
    free = (1 << 30) + (3 << 20)
    ledger = SpaceLedger(lambda _: Volume(device=1, available=free, size=100 << 30))
    copy_all = copies.copy_all

    def taking_the_rest(*args, **kwargs):
        with pytest.raises(Transient), ledger.reserve("/", free - (1 << 30)):
            pass
        return copy_all(*args, **kwargs)

    monkeypatch.setattr(step, "copy_all", taking_the_rest)
    run(source, directory, ledger=ledger)
    with ledger.reserve("/", free - (1 << 30)):
        pass


def test_a_backup_folder_that_is_not_mounted_is_not_made(source, tmp_path):
    assert refused(NeedsAttention, source, tmp_path / "none") == "directory.missing"
    assert not (tmp_path / "none").exists()


def test_a_disk_that_fails_at_the_end_leaves_no_copy(source, directory, monkeypatch):
    def fail(*args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("aiom4b.adapters.files._renameat2", fail)
    assert refused(Transient, source, directory) == "space.full"
    assert_nothing_left(directory)


def test_the_error_that_stopped_a_backup_is_told_though_tidying_up_fails_too(source, directory, monkeypatch):
    first = replace(source.files[0], sha256=hashlib.sha256(b"other").hexdigest())

    def fail(*args, **kwargs):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(backups.shutil, "rmtree", fail)
    assert refused(Transient, replace(source, files=(first, *source.files[1:])), directory) == "source.changed"


def test_a_cancelled_backup_leaves_no_set_and_stops_within_a_block(source, directory, monkeypatch):
    monkeypatch.setattr(step, "_NEWS_BYTES", 1)
    heard = []

    async def main():
        with anyio.CancelScope() as scope:

            def report(progress):
                heard.append(progress)
                scope.cancel()

            await step.backup(
                source,
                str(directory),
                now=NOW,
                limiter=anyio.CapacityLimiter(1),
                ledger=SpaceLedger(),
                report=report,
            )
        return scope.cancelled_caught

    assert anyio.run(main)
    assert len(heard) == 1
    assert_nothing_left(directory)
    run(source, directory)


def test_two_backups_of_one_source_do_not_meet(source, directory):
    staged = backups.staging(str(directory), source.root, source.name)
    with backups.claimed(staged):
        assert refused(Transient, source, directory) == "backup.busy"
    run(source, directory)


def test_what_a_killed_backup_left_is_removed_by_the_next(source, directory):
    staged = backups.staging(str(directory), source.root, source.name)
    os.makedirs(os.path.join(staged, "CD1"))
    with open(os.path.join(staged, "CD1", "1.mp3"), "wb") as file:
        file.write(b"half")
    receipt = run(source, directory)
    assert backups.verify_set(receipt.root) == ()
    assert not os.path.exists(staged)


def test_killed_at_any_call_there_is_a_whole_set_or_none_and_the_next_run_succeeds(tmp_path):
    source = source_in(str(tmp_path / "in" / "Book"), book={"CD1/1.mp3": b"first", "2.mp3": b"second"}, beside={})

    def make(number):
        directory = tmp_path / f"out{number}"
        directory.mkdir()
        run(source, directory)

    def check(number):
        directory = tmp_path / f"out{number}"
        directory.mkdir(exist_ok=True)
        sets = backups.list_sets(str(directory))
        assert len(visible(directory)) == len(sets) <= 1
        receipt = run(source, directory)
        assert backups.verify_set(receipt.root) == ()
        assert len(visible(directory)) == 1
        assert step.is_still_good(receipt)

    assert every_death(make, check) > 25


def test_a_receipt_is_good_while_its_files_are_there_in_their_sizes(source, directory):
    receipt = run(source, directory)
    assert step.is_still_good(receipt)
    copy = os.path.join(receipt.root, "CD1/1.mp3")
    os.truncate(copy, 3)
    assert not step.is_still_good(receipt)
    os.unlink(copy)
    assert not step.is_still_good(receipt)


def test_a_receipt_of_a_set_that_lost_its_manifest_is_not_good(source, directory):
    receipt = run(source, directory)
    os.unlink(os.path.join(receipt.root, "backup.json"))
    assert not step.is_still_good(receipt)
    assert step.is_still_good(replace(receipt, copied=False))


# --- keys --------------------------------------------------------------------------------------------------------------

KEYS = {"CD1/1.key": b"Key=00\n", "CD3/3.key": b"Key=33\n", os.fsdecode(b"CD2/\xff.key"): b"ActivationBytes=11\n"}


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def open_umask():
    old = os.umask(0o002)
    yield
    os.umask(old)


@pytest.mark.usefixtures("open_umask")
def test_keys_that_the_source_has_not_are_in_the_set_and_for_its_owner_alone(source, directory):
    receipt = run(source, directory, extras=KEYS)
    assert [file.path for file in receipt.files] == [*BOOK, "cover.jpg", "SHA256SUMS_", *KEYS]
    for path, data in KEYS.items():
        place = os.path.join(receipt.root, path)
        with open(place, "rb") as file:
            assert file.read() == data
        assert mode(place) == 0o600
    assert mode(os.path.join(receipt.root, "cover.jpg")) == 0o664
    assert backups.verify_set(receipt.root) == ()
    assert step.is_still_good(receipt)
    (made,) = backups.list_sets(str(directory))
    assert [one.size for one in made.files[-3:]] == [len(data) for data in KEYS.values()]


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("name", ["a.voucher", "CD1/A.KEY", "a.Voucher"])
def test_keys_that_the_source_has_are_copied_for_their_owner_alone(tmp_path, directory, name):
    book = source_in(str(tmp_path / "in" / "Keys"), beside={name: b"secret", "not a key.txt": b"x"})
    os.chmod(os.path.join(book.root, name), 0o644)
    receipt = run(source_in(book.root, beside={name: b"secret", "not a key.txt": b"x"}), directory)
    assert mode(os.path.join(receipt.root, name)) == 0o600
    assert mode(os.path.join(receipt.root, "not a key.txt")) == 0o664


@pytest.mark.usefixtures("open_umask")
def test_no_moment_shows_a_key_to_others(source, directory, monkeypatch):
    seen = []
    write = os.write

    def watched(descriptor, data):
        written = write(descriptor, data)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if bytes(data).startswith((b"Key=", b"ActivationBytes=")):
            seen.append((path, stat.S_IMODE(os.fstat(descriptor).st_mode)))
        return written

    monkeypatch.setattr(os, "write", watched)
    run(source, directory, extras=KEYS)
    assert len(seen) == 3
    assert {found for _, found in seen} == {0o600}


def test_a_set_with_the_same_keys_is_found_again_and_one_with_others_is_not(source, directory):
    first = run(source, directory, extras=KEYS)
    assert run(source, directory, extras=KEYS) == first
    other = run(source, directory, extras=dict.fromkeys(KEYS, b"another"))
    without = run(source, directory)
    fewer = run(source, directory, extras={"CD1/1.key": KEYS["CD1/1.key"]})
    renamed = run(source, directory, extras={"x.key": KEYS["CD1/1.key"]})
    assert len({one.root for one in (first, other, without, fewer, renamed)}) == 5
    assert run(source, directory, extras=KEYS) == first


def test_a_set_whose_key_rotted_is_not_relied_on(source, directory):
    first = run(source, directory, extras=KEYS)
    with open(os.path.join(first.root, "CD1/1.key"), "r+b") as file:
        file.write(b"kEY")
    second = run(source, directory, extras=KEYS)
    assert second.root != first.root
    os.unlink(os.path.join(second.root, "CD1/1.key"))
    assert not step.is_still_good(second)


def test_killed_at_any_call_there_is_a_set_with_its_key_or_none(tmp_path):
    source = source_in(str(tmp_path / "in" / "Book"), book={"1.aax": b"first"}, beside={})

    def make(number):
        directory = tmp_path / f"out{number}"
        directory.mkdir()
        run(source, directory, extras={"1.key": b"secret"})

    def check(number):
        directory = tmp_path / f"out{number}"
        directory.mkdir(exist_ok=True)
        for made in backups.list_sets(str(directory)):
            assert [file.path for file in made.files] == ["1.aax", "1.key"]
            assert backups.verify_set(made.root) == ()
        receipt = run(source, directory, extras={"1.key": b"secret"})
        assert mode(os.path.join(receipt.root, "1.key")) == 0o600
        assert len(visible(directory)) == 1

    assert every_death(make, check) > 25


def test_the_manifest_and_the_sums_hold_no_key(source, directory):
    receipt = run(source, directory, extras={"1.key": b"Key=0123456789abcdef"})
    for name in ("backup.json", "SHA256SUMS"):
        with open(os.path.join(receipt.root, name), "rb") as file:
            assert b"0123456789abcdef" not in file.read()
