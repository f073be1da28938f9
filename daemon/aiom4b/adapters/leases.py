"""Does somebody hold this file open for writing?"""

from __future__ import annotations

import errno
import fcntl
import os
import signal

from aiom4b.adapters import files
from aiom4b.errors import Aiom4bError

_CANT_TELL = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})


def open_for_writing(path: str) -> bool | None:
    """Return whether any process has the file open for writing; None where the system doesn't tell.

    It tells the owner of the file and who has CAP_LEASE, about writers on this machine. Raises what `files.open_regular` raises.
    """
    try:
        descriptor = files.open_regular(path)
    except Aiom4bError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return True  # another process has a lease on it for writing, as Samba may, and is now asked to give it up
        raise
    try:
        # A process that opens the file for writing while we have the lease is held up until we let go, and we get SIGIO,
        # which kills. SIGURG instead is ignored by default, and without touching what the whole process does on signals.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return True
        if error.errno in _CANT_TELL:
            return None
        with files.translated(path, "asking who writes to"):
            raise
    finally:
        os.close(descriptor)
    return False
