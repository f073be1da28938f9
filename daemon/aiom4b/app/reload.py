"""Which new settings can be put in force while the service runs?"""

from __future__ import annotations

from aiom4b.config import Settings, flattened

# Everything else is asked for when it is needed. Directories and sockets are held, workers are counted, from the start.
_NEED_RESTART = ("paths.", "api.", "encode.workers")


def merged(old: Settings, new: Settings) -> tuple[Settings, tuple[str, ...], tuple[str, ...]]:
    """Return the settings to be in force now, the dotted keys that changed, and those that wait for a restart."""
    before, after = flattened(old), flattened(new)
    differing = [key for key in after if before[key] != after[key] or (key == "api.key" and old.api.key != new.api.key)]
    waiting = tuple(key for key in differing if key.startswith(_NEED_RESTART))
    changed = tuple(key for key in differing if key not in waiting)
    kept = new.model_copy(
        update={
            "paths": old.paths,
            "api": old.api,
            "encode": new.encode.model_copy(update={"workers": old.encode.workers}),
        }
    )
    return kept, changed, waiting
