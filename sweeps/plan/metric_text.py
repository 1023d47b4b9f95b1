"""What `sweeps plan` says of the metric: what is asked, how often, and what it decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.plan.blueprint import Blueprint

CACHE = (
    "keys and values are kept from token to token, unless that moves the model's logits: then each token "
    "costs a pass over its whole text, and the worker says why"
)
NO_ANSWERS = "likelihoods are compared, nothing is generated"


def metric_account(blueprint: Blueprint) -> dict[str, Any] | None:
    """The metric as plain values; None for a sweep without one."""
    study_spec = blueprint.study_spec
    metric = study_spec.metric
    if metric is None:
        return None
    return {
        "name": metric.name,
        "direction": metric.direction,
        "objective": metric.objective,
        "num_prompts": study_spec.context["metric"]["num_prompts"],
        "max_new_tokens": metric.max_new_tokens,
        "measured_at": [
            percent for percent in study_spec.report_at if metric.is_measured(percent, study_spec.report_at)
        ],
        "cache": CACHE if metric.max_new_tokens else NO_ANSWERS,
    }


def metric_lines(blueprint: Blueprint) -> list[str]:
    """Short lines for the row `metric` of the plan; none for a sweep without one."""
    said, metric = metric_account(blueprint), blueprint.study_spec.metric
    if said is None or metric is None:
        return []
    role = "trials are searched and ranked by it" if metric.objective else "watched beside the loss"
    asked = said["num_prompts"]
    given = f"{asked} {'documents of the task' if metric.is_task else 'evaluation prompts'}"
    if asked < metric.num_prompts:
        given += f", all there are of the {metric.num_prompts} asked for"
    answers = f", answers of at most {metric.max_new_tokens} tokens" if metric.max_new_tokens else ""
    when = "measured at " + ", ".join(f"{p}%" for p in said["measured_at"])
    if metric.objective and len(said["measured_at"]) == 1 and blueprint.study_spec.search["pruner"] != "none":
        when += ", so no trial is pruned"
    return [
        f"{metric.name} ({metric.direction}): {role}",
        f"{given}{answers}; {when}",
        f"the untouched base once; {said['cache']}",
    ]
