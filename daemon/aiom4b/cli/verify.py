"""What does a person learn about a book in the library? `aiom4b verify`: proved again, or why not."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from aiom4b.cli import output
from aiom4b.cli.book_json import name
from aiom4b.cli.options import ConfigFile, Json
from aiom4b.errors import Aiom4bError


def verify(
    book: Annotated[str, typer.Argument(metavar="BOOK", help="An .m4b file in the library.")],
    *,
    backup: Annotated[
        str | None, typer.Option(metavar="DIR", help="Look for the backup here, not where the record says.")
    ] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Prove a published book again, every second of it, against the backup that it was made from.

    Without a record or a backup it proves only that the file itself is whole, and says so.
    """
    import anyio

    from aiom4b import config as settings_of
    from aiom4b.app import proving

    try:
        settings = settings_of.load(config, {})
        found = anyio.run(lambda: proving.verify_book(book, backup and os.path.abspath(backup), settings))
    except Aiom4bError as error:
        output.fail(error, json)
    if json:
        output.print_json(
            {
                "ok": True,
                **name("book", found.book),
                "proved": "against its backup" if found.proof is not None else "only the file itself",
                "proof": asdict(found.proof) if found.proof is not None else None,
                "unchanged": found.unchanged,
                "missing": found.missing or None,
            }
        )
        return
    if found.proof is not None:
        sound = found.proof.sound
        output.print_text(
            f"proved against its backup: {found.proof.packets} packets, {found.proof.samples} samples,"
            f" {found.proof.chapters} chapters"
        )
        if sound.seconds:
            output.print_text(
                f"likeness second by second: {sound.snr_median:.1f} dB in the median, {sound.snr_min:.1f} dB at least"
            )
    else:
        assert found.facts is not None
        output.print_text(f"only the file itself was proved: all {found.facts.packets} packets decode without an error")
        output.print_text(found.missing)
    if found.unchanged is False:
        output.print_text("The file is not byte for byte the one that was published: its tags were changed since.")
