"""Which key opens each locked file? Looked for beside it and on the service's ring, and tried before anything is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import anyio.to_thread

from aiom4b import redaction
from aiom4b.adapters import sidecars
from aiom4b.adapters.files import displayable, translated
from aiom4b.adapters.sidecars import FoundKey
from aiom4b.engine import unlock as trials
from aiom4b.engine.unlock import Fit, Trial
from aiom4b.errors import NeedsAttention
from aiom4b.models import AudibleKey, Lock, Name, SidecarKind, SourceFile
from aiom4b.steps.context import Keys, StepContext, needs_own_worker, together

_GOES_ON = "The service then goes on by itself."
_HOW = {
    Lock.AAX: "Sign in with `aiom4b audible login`, or set audible.activation_bytes, or put Libation's .key file beside it. ",
    Lock.AAXC: "Put its .voucher (audible-cli) or .key (Libation) file beside it, under the same name. ",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocked:
    """The ``keys`` of a source, and which of its files were opened by a key that is not among what lies ``beside`` them.

    That key may come from the ring, or from a file that belongs to several books.
    """

    keys: Keys
    from_ring: frozenset[Name]
    beside: frozenset[Name] = frozenset()

    def key_files(self) -> dict[Name, bytes]:
        """Return what has to lie beside those files, as Libation writes it, so that a backup of them can be opened."""
        found: dict[Name, bytes] = {}
        for path in sorted(self.from_ring):
            usual = f"{os.path.splitext(path)[0]}.key"
            # There may be one already, which doesn't open it, or another file of that stem.
            name = f"{path}.key" if usual in self.beside or usual in found else usual
            while name in self.beside:
                name = f"{name}.key"
            found[name] = _written(self.keys[path])
        return found


def _written(key: AudibleKey) -> bytes:
    if key.activation_bytes:
        return f"ActivationBytes={key.activation_bytes}\n".encode("ascii")
    return f"Key={key.key}\nIV={key.iv}\n".encode("ascii")


async def unlock(
    source_files: Sequence[SourceFile], root: str, known: Sequence[Name], context: StepContext
) -> Unlocked:
    """Return the keys of the locked files among these, each tried on its file in ``root``; safe to repeat.

    Keys are looked for in the files' own folder and those above it, up to ``root``: one file may open all books of an
    account. ``known`` are the paths (relative to ``root``) of what belongs to the source. Raises NeedsAttention
    ``audible.key_missing`` and ``audible.key_wrong``, which end when the right key appears; ``audio.damaged`` and
    ``audio.unsupported_codec`` of a file that opens and can't be decoded as it promises.
    """
    locked = [file for file in source_files if file.audio.lock is not None]
    if not locked:
        return Unlocked(keys={}, from_ring=frozenset())
    told = await anyio.to_thread.run_sync(_key_files, root, locked)
    found: tuple[FoundKey, ...] = await context.work(sidecars.read_keys, root, told) if told else ()
    unread = tuple(path for path in told if path not in {one.path for one in found})
    keys = await together([partial(_key, file, root, found, unread, context) for file in locked])
    opened = dict(zip((file.path for file in locked), keys, strict=True))
    return Unlocked(
        keys={path: key for path, (key, _) in opened.items()},
        from_ring=frozenset(path for path, (_, origin) in opened.items() if origin not in known),
        beside=frozenset(known),
    )


def _key_files(root: str, locked: Sequence[SourceFile]) -> tuple[Name, ...]:
    folders: dict[Name, None] = {}
    for file in locked:
        folder = os.path.dirname(file.path)
        while folder:
            folders[folder] = None
            folder = os.path.dirname(folder)
        folders[""] = None
    found = []
    for folder in folders:
        with translated(root, "reading the folder"):
            try:
                names = sorted(os.listdir(os.path.join(root, folder)))
            except FileNotFoundError:  # the whole source went: whoever needs it will say so
                continue
        found += [os.path.join(folder, name) for name in names if sidecars.kind_of(name) is SidecarKind.KEY]
    return tuple(found)


async def _key(
    file: SourceFile, root: str, beside: Sequence[FoundKey], unread: Sequence[Name], context: StepContext
) -> tuple[AudibleKey, Name | None]:
    """Return the key of a file, and the path of the file that told it, None where it came from the ring."""
    lock, shown = file.audio.lock, displayable(file.path)
    assert lock is not None
    # Many books may lie in one folder, each with its voucher: those of other titles would only be tried in vain.
    own = [one for one in beside if one.lock is lock and (_is_for(one, file) or _is_named_alike(one, file))]
    own.sort(key=lambda one: (not _is_for(one, file), not _is_named_alike(one, file)))
    candidates = [(displayable(one.path), one.key) for one in own]
    candidates += await context.keys.keys(lock, file.tags.asin)
    for _, key in candidates:
        for secret in (key.activation_bytes, key.key, key.iv):
            if secret:
                redaction.keep_secret(secret)
    if not candidates:
        useless = [displayable(path) for path in unread if sidecars.is_companion(path, file.path)]
        raise NeedsAttention(
            "audible.key_missing",
            f"{shown} is locked for the Audible account that bought it, and no key for it is known"
            + (f": {useless[0]} holds none that can be read." if useless else "."),
            remedy=_HOW[lock] + _GOES_ON,
            path=os.path.join(root, file.path),
        )
    trial = await context.work(
        trials.tried,
        os.path.join(root, file.path),
        file.audio,
        tuple(key for _, key in candidates),
        single_use=needs_own_worker(file.audio.frames),
    )
    if trial.fit is Fit.OPENS:
        return candidates[trial.which][1], own[trial.which].path if trial.which < len(own) else None
    raise _refused(file, root, own, [origin for origin, _ in candidates], trial)


def _is_for(key: FoundKey, file: SourceFile) -> bool:
    return not key.asin or not file.tags.asin or key.asin == file.tags.asin


def _is_named_alike(key: FoundKey, file: SourceFile) -> bool:
    return sidecars.is_companion(key.path, file.path)


def _refused(
    file: SourceFile, root: str, own: Sequence[FoundKey], origins: Sequence[str], trial: Trial
) -> NeedsAttention:
    path, shown = os.path.join(root, file.path), displayable(file.path)
    if trial.fit is Fit.DAMAGED:
        return NeedsAttention(
            "audio.damaged",
            f"{shown} opens with its key, but can't be decoded at second {trial.second:.0f}: the file is damaged.",
            remedy="Get the file again from Audible.",
            path=path,
        )
    if trial.fit is Fit.OTHER_SHAPE:
        return NeedsAttention(
            "audio.unsupported_codec",
            f"{shown} is coded as HE-AAC without saying so, which is not supported.",
            remedy="Download the book in another quality (audible.quality).",
            path=path,
        )
    others = [one for one in own if one.asin and file.tags.asin and one.asin != file.tags.asin]
    if others:
        why = f"{displayable(others[0].path)} belongs to another title ({others[0].asin}, not {file.tags.asin})"
    elif file.audio.lock is Lock.AAX:
        why = f"it belongs to another account than the activation bytes that are known (from {', '.join(origins)})"
    else:
        why = f"the key from {', '.join(origins)} doesn't open it"
    return NeedsAttention(
        "audible.key_wrong",
        f"{shown} stays locked: {why}.",
        remedy=_HOW[file.audio.lock or Lock.AAXC] + _GOES_ON,
        path=path,
    )
