"""Where else a sweep's results are shown, by request."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

from sweeps.config.fields import check_list_of, check_one_of, check_real, check_text, wrong
from sweeps.config.logins import has_password
from sweeps.config.sections.base import Section

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
TRACKERS: tuple[str, ...] = get_args(TrackerName)
_check_trackers = check_list_of(check_one_of(TRACKERS), what="trackers")


def _uri(value: Any) -> str | None:
    text: str | None = check_text(none=True)(value)
    if text is not None and "://" in text and has_password(text):
        raise wrong(
            "must not hold a password: put the address into MLFLOW_TRACKING_URI, or the login into "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return text


class TrackingSection(Section):
    """`tracking`: one run per trial in other programs; none of it changes the sweep."""

    to: Annotated[tuple[TrackerName, ...], BeforeValidator(_check_trackers)] = ()
    """tensorboard (event files in the run folder), mlflow, wandb; kept up to date while the sweep runs."""
    every_seconds: Annotated[float, BeforeValidator(check_real(1))] = 30.0
    """How often they are brought up to date."""
    mlflow_tracking_uri: Annotated[str | None, BeforeValidator(_uri)] = None
    """null: what MLFLOW_TRACKING_URI holds, or mlflow.db in the run folder."""
    wandb_project: Annotated[str, BeforeValidator(check_text())] = "qlora-sweeps"
    wandb_entity: Annotated[str | None, BeforeValidator(check_text(none=True))] = None
    wandb_mode: Annotated[
        Literal["online", "offline"] | None,
        BeforeValidator(check_one_of(("online", "offline"), none=True)),
    ] = None
    """null: what WANDB_MODE holds, or online. Offline runs lie in the run folder until `wandb sync`."""
