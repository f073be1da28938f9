"""Where does a command without a service find keys? In the state directory and the settings, once it meets a locked file."""

from __future__ import annotations

from aiom4b.config import Settings
from aiom4b.models import AudibleKey, Lock


class SettledKeys:
    """A `models.KeyRing` for one run of a command."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def keys(self, lock: Lock, asin: str) -> tuple[tuple[str, AudibleKey], ...]:
        """Return the owner's keys that may open a file of this lock and ASIN, each with its origin in words."""
        # Late: what speaks to Audible takes longer to import than all the rest, and most books have no lock.
        from aiom4b.account.keys import Keys

        return await Keys(lambda: self._settings).keys(lock, asin)
