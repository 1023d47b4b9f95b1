"""Whether a run that ended has failed, and the message then."""

from __future__ import annotations

import optuna

from sweeps.config import SweepConfig
from sweeps.errors import SweepFailed
from sweeps.keeper.failed_trials import TRY_AGAIN, without_value
from sweeps.study.status import Status

CONTINUE = "Run the same command to continue; nothing that was finished is lost."


def check_run_end(
    config: SweepConfig,
    study: optuna.Study,
    status: Status,
    *,
    num_failed: int,
    errors: list[str],
    failures: str | None,
) -> None:
    """SweepFailed for a run that ended without what was asked for.

    `num_failed` trials failed in this run, for the reasons in `failures`; `errors` are those of the workers.
    """
    limit = config.reliability.max_failures
    reasons = list[str]()
    if status.finished < config.trials:
        reasons += errors
        has_time_limit = config.search.timeout_seconds is not None
        if num_failed >= limit:
            reasons.append(f"{num_failed} trials failed in this run: reliability.max_failures is {limit}.")
        if failures is not None and (not has_time_limit or num_failed >= limit):
            reasons.append(failures)
        space_is_used_up = config.search.sampler in ("grid", study.user_attrs.get("exhausted"))
        if not reasons and not has_time_limit and not space_is_used_up:
            reasons.append("the workers ended before.")
        advice = CONTINUE if failures is None else TRY_AGAIN
    else:
        advice = "More `trials` continue from here; another space or training needs another `name`."
    if not reasons and (why := without_value(study, status, config.run_folder)) is not None:
        reasons.append(why)
    if reasons:
        counts = f"{status.finished} of {config.trials} trials finished."
        raise SweepFailed("\n".join([counts, *reasons, advice]))
