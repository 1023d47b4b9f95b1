"""`reliability`: how long a sweep tolerates failures around it, and what it keeps on disk."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from sweeps.config.field_types import (
    NUMBER,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Text,
)
from sweeps.config.sections.base import Section
from sweeps.config.url_passwords import has_password

MIN_LEASE_SECONDS = 10.0
"""A running keeper renews its lease every five seconds (sweeps.study.lease.BEAT_SECONDS): one renewal may be
late."""


def _without_password(text: str) -> str:
    if "://" in text and not text.startswith(("file://", "local://")) and has_password(text):
        raise ValueError(
            "must not hold a password: sweep files are copied and shared. Give it to fsspec on every "
            "machine, in ~/.config/fsspec/*.json or a variable such as FSSPEC_SFTP_PASSWORD"
        )
    return text


class ReliabilitySection(Section):
    """None of it changes a number of any trial, so it may be changed between runs."""

    checkpoints: Annotated[Text, AfterValidator(_without_password)] | None = None
    """Where running trials' checkpoints are kept: a shared folder or an fsspec URL (s3://bucket/folder) that
    every worker can reach; null: in the run folder, sent through the driver by workers that do not see it."""
    checkpoint_seconds: NonNegativeFloat = 60.0
    """A running trial is checkpointed at the first report this long after its last checkpoint."""
    stall_seconds: PositiveFloat = 1800.0
    """A worker that finishes neither a step nor an evaluation for this long is killed, and its trials are
    retried."""
    outage_seconds: NonNegativeFloat = 900.0
    """How long storage or disk may be unavailable before the sweep ends cleanly, to be resumed later."""
    lease_seconds: Annotated[float, Field(ge=MIN_LEASE_SECONDS, allow_inf_nan=False), NUMBER] = 30.0
    """A sweep on another machine that shows no sign of life for this long may be replaced by this one."""
    max_failures: PositiveInt = 10
    """After this many failed trials a run starts no new ones; failed trials never count among `trials`."""
    frozen_gib: NonNegativeFloat = 20.0
    """Disk that frozen trials' checkpoints may take together, in GiB (pruner freeze_thaw). Beyond it, those
    least likely to win are pruned for good; lowered for a finished sweep, once it trains again."""
    keep_adapters: PositiveInt = 8
    """The adapters of this many best trials are kept, and that of the guideline default."""
