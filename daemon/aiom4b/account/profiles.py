"""Which of the owner's accounts are signed in here? One identity for each profile, in files for our user only.

``<state>/audible/<profile>.json`` is a sign-in, ``<profile>.pending.json`` one that waits for its second step. All calls
block, for the disk and for the encryption: they belong in a thread.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

from aiom4b.adapters import files
from aiom4b.adapters.audible_api import storage
from aiom4b.adapters.audible_api.identity import Identity, PendingSignIn
from aiom4b.adapters.files import displayable, translated
from aiom4b.errors import Exit, NeedsAttention
from aiom4b.jobs.title import Profile

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SIGNED_IN, _PENDING = ".json", ".pending.json"


def checked(name: str) -> Profile:
    """Return ``name`` if it can be a profile's. Raises NeedsAttention ``profile.invalid``."""
    if not _NAME.fullmatch(name):
        raise NeedsAttention(
            "profile.invalid",
            f"{displayable(name)!r} can't be the name of an account.",
            remedy="Use 1 to 64 letters (a to z), digits, hyphens and underscores.",
            exit=Exit.USAGE,
        )
    return Profile(name)


class Profiles:
    """The sign-ins in one folder, which need not be there yet. ``password``: what they are encrypted with, None: not at all."""

    def __init__(self, folder: str, password: str | None) -> None:
        self._folder = folder
        self._password = password

    def __repr__(self) -> str:
        """Return the folder, and nothing that is secret."""
        return f"Profiles({self._folder!r})"

    def names(self) -> tuple[Profile, ...]:
        """Return the profiles that are signed in or on the way to it, in the order of their names."""
        try:
            with translated(self._folder, "listing"):
                found = os.listdir(self._folder)
        except NeedsAttention as error:
            if error.code == "file.missing":
                return ()
            raise
        stems = {name.removesuffix(_PENDING).removesuffix(_SIGNED_IN) for name in found if name.endswith(_SIGNED_IN)}
        return tuple(Profile(stem) for stem in sorted(stems) if _NAME.fullmatch(stem))

    def signed_in(self, profile: Profile) -> bool:
        """Whether there is a sign-in, whatever it may be worth."""
        return os.path.lexists(self._path(profile, _SIGNED_IN))

    def waits(self, profile: Profile) -> bool:
        """Whether a sign-in waits for its second step."""
        return os.path.lexists(self._path(profile, _PENDING))

    def encrypted(self, profile: Profile) -> bool:
        """Whether a profile's sign-in lies encrypted, which one written before there was a password does not."""
        return storage.is_encrypted(self._path(profile, _SIGNED_IN))

    def load(self, profile: Profile) -> Identity:
        """Return a profile's identity.

        Raises NeedsAttention ``profile.missing`` when nobody is signed in under that name, ``authfile.*`` when its file can't
        be used (another password, damaged), and what `files.translated` raises.
        """
        path = self._path(profile, _SIGNED_IN)
        if not os.path.lexists(path):
            raise _missing(profile)
        return storage.load(path, self._password)

    def save(self, profile: Profile, identity: Identity) -> None:
        """Record who is signed in, durably and in place of who was; a pending sign-in of that name is done with."""
        self._make_folder()
        storage.save(self._path(profile, _SIGNED_IN), identity, self._password)
        self._remove(self._path(profile, _PENDING))

    def seal(self) -> tuple[Profile, ...]:
        """Encrypt the sign-ins that were stored before there was a password, and return which these were.

        Raises as `load` and `save` do.
        """
        if self._password is None:
            return ()
        plain = tuple(name for name in self.names() if self.signed_in(name) and not self.encrypted(name))
        for name in plain:
            storage.save(self._path(name, _SIGNED_IN), self.load(name), self._password)
        return plain

    def pending(self, profile: Profile) -> PendingSignIn:
        """Return the sign-in that waits for its second step. Raises NeedsAttention ``signin.not_begun`` where none does."""
        return storage.load_pending(self._path(profile, _PENDING))

    def save_pending(self, profile: Profile, pending: PendingSignIn) -> None:
        """Record durably that a sign-in waits for its second step; one that waited before is given up."""
        self._make_folder()
        storage.save_pending(self._path(profile, _PENDING), pending)

    def remove(self, profile: Profile) -> None:
        """Forget a profile, a pending sign-in too, durably. Safe to repeat."""
        for suffix in (_PENDING, _SIGNED_IN):
            self._remove(self._path(profile, suffix))

    def _path(self, profile: Profile, suffix: str) -> str:
        return os.path.join(self._folder, checked(profile) + suffix)

    def _make_folder(self) -> None:
        files.make_directories(self._folder)
        with translated(self._folder, "making private"):
            os.chmod(self._folder, 0o700)

    def _remove(self, path: str) -> None:
        if os.path.lexists(path):
            with translated(path, "removing"):
                with suppress(FileNotFoundError):
                    os.unlink(path)
                files.fsync_directory(self._folder)


def _missing(profile: Profile) -> NeedsAttention:
    return NeedsAttention(
        "profile.missing",
        f"No account is signed in under the name {profile}.",
        remedy=f"Sign in with `aiom4b audible login --country CC --profile {profile}`; `aiom4b audible status` shows who is.",
        exit=Exit.NOT_FOUND,
    )
