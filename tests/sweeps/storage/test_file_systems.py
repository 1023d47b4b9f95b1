"""Which file system a path is on; network file systems are refused or warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

import sweeps.storage.open_storage
from sweeps.errors import StorageUnreachable
from sweeps.storage.file_systems import file_system_of, network_file_system
from sweeps.storage.open_storage import check_reachable, open_storage

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/me/scratch rw - xfs /dev/sdb rw
32 22 0:41 / /data rw - lustre 10.0.0.1@o2ib:/fs rw
33 22 0:42 / /remote rw - fuse.sshfs me@host: rw
34 22 0:43 / /archive rw - fuse.squashfuse x ro
35 22 0:44 / /with\040space rw - cifs //server/share rw
36 22 0:45 / /covered rw - nfs server:/x rw
37 22 0:46 / /covered rw - tmpfs tmpfs rw
not a mount
"""


@pytest.mark.parametrize(
    ("path", "kind", "shared"),
    [
        ("/tmp/study.db", "ext4", False),
        ("/", "ext4", False),
        ("/home/me/runs/study.db", "nfs4", True),
        ("/home/me/scratch/runs/study.db", "xfs", False),
        ("/homework/study.db", "ext4", False),
        ("/data/study.db", "lustre", True),
        ("/remote", "fuse.sshfs", True),
        ("/archive/x", "fuse.squashfuse", False),
        ("/with space/x", "cifs", True),
        ("/covered/x", "tmpfs", False),
    ],
)
def test_the_longest_and_latest_mount_decides(path: str, kind: str, shared: bool) -> None:
    assert file_system_of(path, MOUNTS) == kind
    assert network_file_system(path, MOUNTS) == (kind if shared else None)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/home/me")
    assert file_system_of(tmp_path / "link" / "runs" / "study.db", MOUNTS) == "nfs4"


def test_an_unknown_file_system_is_not_refused(tmp_path: Path) -> None:
    assert file_system_of(tmp_path, "") is None
    assert network_file_system(tmp_path, "") is None


def test_the_mounts_of_this_machine_are_read() -> None:
    assert file_system_of("/proc/self") in ("proc", None)


def test_sqlite_on_a_network_file_system_is_refused_and_a_journal_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = MOUNTS + f"40 22 0:50 / {tmp_path} rw - nfs4 server:/x rw\n"
    monkeypatch.setattr(
        sweeps.storage.open_storage, "network_file_system", lambda path: network_file_system(path, mounts)
    )
    for refused in (check_reachable, open_storage):
        with pytest.raises(
            StorageUnreachable, match=r"locks do not work .*\(nfs4\).*use a PostgreSQL"
        ) as caught:
            refused(f"sqlite:///{tmp_path / 'study.db'}")
        assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(UserWarning, match=r"on a network file system \(nfs4\)"):
        check_reachable(f"journal:{tmp_path / 'study.log'}")
    check_reachable("sqlite:////tmp/study.db")
