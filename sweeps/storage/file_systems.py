"""Which file system a path is on."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
# Without 9p, virtiofs and the like, which share a folder between one virtual machine and its host.
NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "lustre", "gpfs", "beegfs", "ceph", "afs"}
    | {"panfs", "pvfs2", "orangefs", "wekafs", "glusterfs", "ocfs2", "gfs2", "acfs", "davfs", "coda"}
)
"""Shared by several machines."""
_NETWORK_FUSE = re.compile(
    r"fuse\.(sshfs|s3fs|gcsfuse|goofys|mountpoint-s3|glusterfs.*|ceph.*|juicefs|rclone|davfs2?|blobfuse2?"
    r"|lustre|beegfs|seaweedfs|moosefs|mfs.*|curlftpfs|smbnetfs|hdfs.*|weed|afpfs|cvmfs.*|nfs.*)",
)
_OCTAL = re.compile(r"\\([0-7]{3})")


def file_system_of(path: Path | str, mounts: str | None = None) -> str | None:
    """The type of the file system on which `path` is or would be created, such as ext4; None when unknown.

    `mounts` is the text of /proc/self/mountinfo (see proc(5)); by default that file is read.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:  # not Linux
            return None
    resolved = Path(os.path.realpath(path))
    found, depth = None, -1
    for line in mounts.splitlines():
        head, separator, tail = line.partition(" - ")
        fields, kind = head.split(), tail.split()
        if not separator or len(fields) < 5 or not kind:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # Of two mounts on one folder, the later one hides the earlier.
        if resolved.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = kind[0], len(point.parts)
    return found


def network_file_system(path: Path | str, mounts: str | None = None) -> str | None:
    """The type of the file system of `path` if several machines may share it, else None."""
    kind = file_system_of(path, mounts)
    if kind is None:
        return None
    return kind if kind in NETWORK or _NETWORK_FUSE.fullmatch(kind) else None
