"""How long a sweep bears with what fails around it, and what it keeps on disk."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from sweeps.config.fields import check_real, check_text, check_whole, wrong
from sweeps.config.logins import has_password
from sweeps.config.sections.base import Section

MIN_LEASE_SECONDS = 10.0
"""A living keeper gives a sign every five seconds (sweeps.study.lease.BEAT_SECONDS): one may come late."""

_LOCAL = ("file://", "local://")


def _checkpoints(value: Any) -> str | None:
    """Nothing, a folder, or a URL without a password."""
    text: str | None = check_text(none=True)(value)
    if text is not None and "://" in text and not text.startswith(_LOCAL) and has_password(text):
        raise wrong(
            "must not hold a password: sweep files are copied and shared. Give it to fsspec on every "
            "machine, in ~/.config/fsspec/*.json or a variable such as FSSPEC_SFTP_PASSWORD"
        )
    return text


class ReliabilitySection(Section):
    """`reliability`: none of it changes a number of any trial, so it may be changed between runs."""

    checkpoints: Annotated[str | None, BeforeValidator(_checkpoints)] = None
    """Where checkpoints of running trials lie: a shared folder or an fsspec URL (s3://bucket/folder) that
    every worker reaches; null: in the run folder, by way of the driver from workers that do not see it."""
    checkpoint_seconds: Annotated[float, BeforeValidator(check_real(0))] = 60.0
    """A running trial is checkpointed after the first report this long after its last checkpoint."""
    stall_seconds: Annotated[float, BeforeValidator(check_real(above=0))] = 1800.0
    """A worker that neither ends a step nor an evaluation for this long is ended, and its trials retried."""
    outage_seconds: Annotated[float, BeforeValidator(check_real(0))] = 900.0
    """How long a storage or disk may be away before the sweep ends cleanly, to be resumed later."""
    lease_seconds: Annotated[float, BeforeValidator(check_real(MIN_LEASE_SECONDS))] = 30.0
    """A sweep on another machine that gives no sign of life for this long has lost its study to who asks."""
    max_failures: Annotated[int, BeforeValidator(check_whole(1))] = 10
    """No new trial starts in a run in which this many failed; failed ones never count among `trials`."""
    keep_adapters: Annotated[int, BeforeValidator(check_whole(1))] = 8
    """Adapters of this many best trials stay in their folders, beside the guideline default's."""
