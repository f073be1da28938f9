"""On what kind of file system does a path lie, and do changes on it send events?"""

from __future__ import annotations

import os
import re

from aiom4b.adapters.files import translated

# Other machines, or the host of this one, change these without our kernel knowing. Of FUSE only what is mounted by
# `mount` on a block device (ntfs-3g, exfat) is changed by us alone.
_NETWORK = frozenset(
    {
        *(
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "smbfs",
            "9p",
            "virtiofs",
            "afs",
            "ceph",
            "glusterfs",
            "lustre",
            "gfs2",
            "ocfs2",
        ),
        *("davfs", "vboxsf", "vmhgfs", "prl_fs", "fuse", "beegfs", "orangefs", "coda", "ncpfs"),
    }
)
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def kind_of(path: str, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Return the type of the file system that ``path`` lies on ("ext4", "nfs4", "fuse.sshfs"), "" if it can't be told.

    ``path`` need not exist yet. ``mountinfo`` is a table as proc(5) describes it. Raises what `translated` raises.
    """
    with translated(mountinfo, "reading"), open(mountinfo, "rb") as stream:
        table = stream.read()
    return _kind(os.fsencode(os.path.realpath(path)), table)


def _kind(path: bytes, table: bytes) -> str:
    best, kind = b"", b""
    for line in table.splitlines():
        fields, _, rest = line.partition(b" - ")
        columns = fields.split(b" ")
        if len(columns) < 5 or not rest:
            continue
        point = _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), columns[4])
        inside = path == point or path.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= len(best):  # of several on one point the last covers the others
            best, kind = point, rest.split(b" ")[0]
    return os.fsdecode(kind)


def sends_events(kind: str) -> bool:
    """Return whether every change of a file system of this kind comes with an event; where not, only looking tells."""
    return kind not in _NETWORK and not kind.startswith("fuse.")
