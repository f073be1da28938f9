"""Is it known which directories send file events?"""

from __future__ import annotations

import os

import pytest

from aiom4b.adapters.mounts import kind_of, sends_events
from aiom4b.errors import NeedsAttention

TABLE = rb"""22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
40 22 0:35 / /srv rw,relatime shared:20 master:3 - btrfs /dev/sda rw,subvol=/@srv
41 22 0:50 / /srv/books rw,relatime shared:21 - nfs4 nas:/books rw,vers=4.2
42 22 0:51 / /srv/with\040space rw - cifs //nas/share rw
43 22 0:52 / /mnt/over rw - ext4 /dev/sdb rw
44 22 0:53 / /mnt/over rw - fuse.sshfs nas: rw
45 22 0:54 / /srv/caf\351 rw - vfat /dev/sdc rw
a line that nobody understands
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_bytes(TABLE)
    return os.fspath(path)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srvother/x", "ext4"),
        ("/srv", "btrfs"),
        ("/srv/bookshelf", "btrfs"),
        ("/srv/books/not/there/yet", "nfs4"),
        ("/srv/with space/x", "cifs"),
        ("/mnt/over/x", "fuse.sshfs"),
        (os.fsdecode(b"/srv/caf\xe9/x"), "vfat"),
    ],
)
def test_the_innermost_and_last_mount_counts(table, path, kind):
    assert kind_of(path, table) == kind


def test_links_are_followed(tmp_path, table):
    os.symlink("/srv/books", tmp_path / "books")
    assert kind_of(os.fspath(tmp_path / "books" / "x"), table) == "nfs4"


@pytest.mark.parametrize(
    "kind", ["ext4", "btrfs", "xfs", "zfs", "tmpfs", "overlay", "fuseblk", "exfat", "vfat", "ntfs3", ""]
)
def test_local_file_systems_send_events(kind):
    assert sends_events(kind)


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse.sshfs", "fuse.mergerfs", "fuse"]
)
def test_network_and_user_space_file_systems_are_not_relied_on(kind):
    assert not sends_events(kind)


def test_the_real_table_is_understood():
    assert kind_of("/proc/self") == "proc"


def test_a_table_that_can_not_be_read_is_told(tmp_path):
    with pytest.raises(NeedsAttention):
        kind_of("/", os.fspath(tmp_path / "none"))
