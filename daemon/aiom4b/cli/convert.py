"""What does a person see of a conversion? `aiom4b convert`: a progress bar, or one JSON document."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiom4b.cli import output
from aiom4b.cli.options import Backup, ConfigFile, Json, Library, Order, check_order, refuse_empty
from aiom4b.errors import Aiom4bError, Exit, Transient

if TYPE_CHECKING:
    from rich.progress import TaskID

    from aiom4b.app.conversion import Outcome
    from aiom4b.config import Settings
    from aiom4b.models import Progress, Source


def convert(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders or single files, a book each.")],
    *,
    library: Library = None,
    backup: Backup = None,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Read the sources themselves, make no copy.")] = False,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that encode at once; 0 = all cores (encode.workers).")
    ] = None,
    order: Order = "auto",
    again: Annotated[bool, typer.Option("--again", help="Convert even what is in the library already.")] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Turn folders of MP3s (or AAC) into one proved .m4b each, and put them into the library.

    Nothing is changed in the sources and nothing is replaced in the library. Ends with 0 only if every book was published,
    or was there already from the same source.
    """
    from aiom4b.engine import nursery

    nursery.start()  # it imports what workers need while we import what we need

    from aiom4b import config as settings_of
    from aiom4b import logs
    from aiom4b.app.directories import prepare_directories
    from aiom4b.models import OrderChoice

    refuse_empty(*(("PATH", path) for path in paths), ("--library", library), ("--backup", backup))
    check_order(order)
    if backup is not None and no_backup:
        raise typer.BadParameter("can't be given together with --backup", param_hint="--no-backup")
    overrides: dict[str, Any] = {}
    if library is not None:
        overrides.setdefault("paths", {})["library"] = os.path.abspath(library)
    if backup is not None:
        overrides.setdefault("paths", {})["backup"] = os.path.abspath(backup)
    if no_backup:
        overrides["backup"] = {"enabled": False}
    if workers is not None:
        overrides["encode"] = {"workers": workers}
    try:
        settings = settings_of.load(config, overrides)
        prepare_directories(settings, paths)
    except Aiom4bError as error:
        output.fail(error, json)
    console = output.console()
    live = console.is_terminal and not json
    logs.configure("warning" if live or settings.log.level == "info" else settings.log.level, settings.log.format)
    outcomes = _run(paths, settings, OrderChoice(order), again=again, live=live, quiet=json)
    _report(outcomes, json=json)


def _run(paths: list[str], settings: Settings, order: Any, *, again: bool, live: bool, quiet: bool) -> list[Outcome]:
    import anyio

    from aiom4b.app.conversion import convert_all

    watcher = _Bars(live=live, quiet=quiet)
    try:
        with watcher:
            return anyio.run(lambda: convert_all(paths, settings, order=order, again=again, observer=watcher))
    except KeyboardInterrupt:
        output.fail(
            Transient(
                "run.interrupted",
                "Interrupted. What is done is kept.",
                remedy="Give the same command again: it goes on from there.",
                exit=Exit.INTERRUPTED,
            ),
            quiet,
        )


def _report(outcomes: list[Outcome], *, json: bool) -> None:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if json:
        from aiom4b.cli.book_json import book

        output.print_json({"ok": not errors, "books": [book(outcome) for outcome in outcomes]})
    if errors:
        exits = {error.exit for error in errors}
        raise typer.Exit(exits.pop() if len(exits) == 1 else Exit.FAILED)


def _clock(seconds: float) -> str:
    """Write a length as people read it: 9:07:12."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


class _Bars:
    """A bar for each book on a terminal, a line for each elsewhere. Progress is counted in encoded samples."""

    def __init__(self, *, live: bool, quiet: bool) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._quiet = quiet
        self._console = output.console()
        self._progress = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            TextColumn("{task.fields[step]}", style="dim"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not live,
            transient=True,
        )
        self._tasks: dict[int, tuple[TaskID, float, float]] = {}

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def began(self, book: int, source: Source) -> None:
        """Open a bar."""
        from aiom4b.adapters.files import displayable

        task = self._progress.add_task("", total=None, name=displayable(source.name)[:40], step="starting", speed="")
        self._tasks[book] = (task, source.seconds, 0.0)

    def progressed(self, book: int, progress: Progress) -> None:
        """Move a bar; a new step starts a new one."""
        task, seconds, began = self._tasks[book]
        row = self._progress.tasks[self._progress.task_ids.index(task)]
        if row.fields["step"] != progress.step:
            # Reset forgets every field that it isn't given.
            fields = row.fields | {"step": str(progress.step), "speed": ""}
            self._progress.reset(task, total=progress.total, **fields)
            self._tasks[book] = (task, seconds, row.get_time())
            return
        elapsed = row.get_time() - began
        speed = ""
        if progress.step == "convert" and elapsed > 1 and progress.total:
            speed = f"{seconds * progress.done / progress.total / elapsed:.0f}×"
        self._progress.update(task, completed=progress.done, total=progress.total, speed=speed)

    def ended(self, book: int, outcome: Outcome) -> None:
        """Close a bar and say what became of the book."""
        from aiom4b.adapters.files import displayable

        if book in self._tasks:
            self._progress.remove_task(self._tasks.pop(book)[0])
            self._progress.refresh()  # or what is said next would push the old bar along
        if self._quiet:
            return
        if outcome.error is not None:
            output.talk(f"{displayable(outcome.path)}:", to=self._console)
            output.print_error(outcome.error, to=self._console)
            return
        assert outcome.finished is not None
        publication = outcome.finished.publication
        where = displayable(publication.book)
        if publication.already:
            output.talk(f"already there: {where}", to=self._console)
            return
        line = outcome.finished.plan.timeline
        length = line.samples / line.sample_rate
        count = len(outcome.finished.plan.chapters)
        output.talk(
            f"published: {where}\n  {_clock(length)}, {count} chapter{'s' if count != 1 else ''}, in"
            f" {outcome.seconds:.1f} s ({length / outcome.seconds:.0f}× real time)",
            style="green",
            to=self._console,
        )
        for warning in outcome.finished.warnings:
            output.talk(f"  note: {warning}", style="yellow", to=self._console)
