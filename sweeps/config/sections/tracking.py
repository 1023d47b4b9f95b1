"""`tracking`: other programs that show the sweep's results."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from sweeps.config.field_types import AtLeastOne, Text
from sweeps.config.sections.base import Section
from sweeps.config.url_passwords import has_password

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
TRACKERS: tuple[str, ...] = get_args(TrackerName)


def _without_password(uri: str) -> str:
    if "://" in uri and has_password(uri):
        raise ValueError(
            "must not hold a password: put the address into MLFLOW_TRACKING_URI, or the login into "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return uri


class TrackingSection(Section):
    """One run per trial in other programs; none of it changes the sweep."""

    to: Annotated[tuple[TrackerName, ...], Field(title="trackers")] = ()
    """tensorboard (event files in the run folder), mlflow, wandb; updated while the sweep runs."""
    every_seconds: AtLeastOne = 30.0
    """How often they are updated."""
    mlflow_tracking_uri: Annotated[Text, AfterValidator(_without_password)] | None = None
    """null: what MLFLOW_TRACKING_URI says, or mlflow.db in the run folder."""
    wandb_project: Text = "qlora-sweeps"
    """Project in Weights & Biases."""
    wandb_entity: Text | None = None
    """User or team in Weights & Biases; null: the login's own."""
    wandb_mode: Literal["online", "offline"] | None = None
    """null: what WANDB_MODE says, or online. Offline runs stay in the run folder until `wandb sync`."""
