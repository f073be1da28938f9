"""Which new settings can be put in force while the service runs?"""

from __future__ import annotations

from aiom4b.config import Settings

# Everything else is asked for when it is needed. Directories and sockets are held, workers are counted, from the start; and
# what is stored is encrypted with the password of the start.
_NEED_RESTART = ("paths.", "api.", "encode.workers", "audible.password")


def merged(old: Settings, new: Settings) -> tuple[Settings, tuple[str, ...], tuple[str, ...]]:
    """Return the settings to be in force now, the dotted keys that changed, and those that wait for a restart."""
    # By their values, since a secret looks like any other where it is shown.
    rows = [(name, getattr(old, name), table) for name, table in new]
    differing = [
        f"{name}.{key}" for name, before, table in rows for key, value in table if getattr(before, key) != value
    ]
    waiting = tuple(key for key in differing if key.startswith(_NEED_RESTART))
    changed = tuple(key for key in differing if key not in waiting)
    kept = new.model_copy(
        update={
            "paths": old.paths,
            "api": old.api,
            "encode": new.encode.model_copy(update={"workers": old.encode.workers}),
            "audible": new.audible.model_copy(update={"password": old.audible.password}),
        }
    )
    return kept, changed, waiting
