"""The first screen of a plan: does it fit, on what, how long, which trials, on which data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from files_and_text.numbers import parameters, plural
from sweeps.plan.blueprint import Blueprint, metric_summary
from sweeps.plan.frozen_disk import frozen_disk
from sweeps.plan.specs import StudySpec
from sweeps.plan.timing.measured_steps import MeasuredSteps
from sweeps.plan.timing.time_estimate import MeasuredRun, time_lines
from sweeps.plan.trial_kinds import trial_kinds
from sweeps.plan.view.tables import rows, space_table, two_columns
from sweeps.study.edges.stored_space import NEWER_RANGES
from sweeps.study.pruning.rungs import nothing_pruned_reason

if TYPE_CHECKING:
    from lora_runner.data import DataNotice


def overview(
    blueprint: Blueprint,
    matrix_flops: float | None,
    warning: str | None = None,
    *,
    measured: MeasuredRun | None = None,
    steps: MeasuredSteps | None = None,
    busy: str | None = None,
) -> RenderableType:
    """For a terminal of 80 columns; `matrix_flops`, `measured` and `steps` as in `time_lines`.

    `warning` is about the device, `busy` about other programs on it.
    """
    study_spec = blueprint.study_spec
    device = [Text(blueprint.device.name + ("" if blueprint.device.is_here else " (not this machine)"))]
    if warning is not None:
        device.append(Text(f"warning: {warning}", style="yellow"))
    times: list[str | Text] = [*time_lines(blueprint, matrix_flops, measured, steps)]
    if busy is not None:
        times.append(Text(f"warning: {busy}", style="yellow"))
    facts = two_columns(
        *rows("Fits", [fits_text(blueprint), *([] if steps is None else [peak_text(blueprint, steps)])]),
        *rows("Device", device),
        *rows("Time", times),
        *rows("Trials", trial_lines(blueprint)),
        *rows("Disk", disk_lines(study_spec)),
        *rows("Metric", metric_lines(blueprint)),
        ("Model", model_text(blueprint)),
        *rows("Data", data_lines(blueprint)),
    )
    return Group(Text(study_spec.name, style="bold"), Text(), facts, space_table(study_spec.space.dimensions))


def fits_text(blueprint: Blueprint) -> Text:
    """Whether the estimated peak fits, and if not, what helps."""
    peak, available = blueprint.memory_gib, blueprint.memory_available_gib
    seats = blueprint.worker_spec.seats
    if not blueprint.fits:
        needed = f"{peak:.2f} GiB for {plural(seats, 'trial')} at a time, {available:.1f} are there"
        return Text(f"no: {needed}. {_remedy(blueprint)}", style="bold red")
    workers = blueprint.num_workers
    each = f" on each of {workers} GPUs" if workers > 1 else ""
    at_a_time = plural(seats, "trial")
    return Text(f"yes: {at_a_time} at a time{each}, {peak:.2f} of {available:.1f} GiB")


def peak_text(blueprint: Blueprint, steps: MeasuredSteps) -> Text:
    """The measured peak beside the estimated one, in red where it exceeds the memory that is there."""
    text = f"(estimated; measured now on the longest records: {steps.peak_gib:.2f} GiB)"
    return Text(text, style="bold red" if steps.peak_gib > blueprint.memory_available_gib else "")


def _remedy(blueprint: Blueprint) -> str:
    if blueprint.base_gib > blueprint.memory_available_gib:
        return (
            f"The base alone takes {blueprint.base_gib:.2f} GiB at any batch size; use a machine with more "
            "memory, model.device_map: auto over several GPUs, or a smaller base"
        )
    if blueprint.worker_spec.seats > 1:
        return "Lower seats (how many trials share the base)"
    return "Lower per_device_train_batch_size (and raise gradient_accumulation_steps) or data.max_length"


def trial_lines(blueprint: Blueprint) -> list[str | Text]:
    """How many, how long, where their values come from, and when they are stopped early."""
    study_spec = blueprint.study_spec
    steps = study_spec.context["max_steps"]
    lines: list[str | Text] = [
        f"{study_spec.trials} of {plural(steps, 'step')}: {trial_kinds(study_spec)}",
        stopped_early(study_spec),
    ]
    if (newer := study_spec.space.context.get(NEWER_RANGES)) is not None:
        lines.append(newer)
    if (warning := study_spec.pruning_warning) is not None:
        lines.append(Text(f"warning: {warning}", style="yellow"))
    return lines


def stopped_early(study_spec: StudySpec) -> str:
    """At which reports trials are stopped early, or why none is."""
    pruner, earliest = study_spec.search["pruner"], study_spec.first_pruning_percent
    if early := study_spec.pruning_percents:
        at = ", ".join(f"{percent}%" for percent in early)
        return f"stopped early by {pruner} at {at}"
    reason = nothing_pruned_reason(study_spec.search, study_spec.report_at, earliest)
    return "none is stopped early" + (f": {reason}" if reason else "")


def disk_lines(study_spec: StudySpec) -> list[str | Text]:
    """What frozen trials may take; empty for a sweep that freezes none."""
    if (disk := frozen_disk(study_spec)) is None:
        return []
    lines: list[str | Text] = [disk.text()]
    if disk.warning is not None:
        lines.append(Text(f"warning: {disk.warning}", style="yellow"))
    return lines


def model_text(blueprint: Blueprint) -> str:
    """The base, its size, and how it is stored."""
    study_spec = blueprint.study_spec
    size = parameters(float(study_spec.context["model_size"]))
    name = blueprint.config.model.name
    return f"{Path(name).name if Path(name).is_absolute() else name}, {size} parameters {blueprint.base_kind}"


def data_lines(blueprint: Blueprint) -> list[Text]:
    """How much there is, what ends an answer, and what needs a change."""
    data = blueprint.data
    stops = ", ".join(token.text for token in data.train.rendering.stop_tokens)
    ends = f"; answers end with {stops}" if stops else ""
    return [
        Text(
            f"{len(data.train):,} examples with {data.train.num_tokens:,} tokens to train on, "
            f"{len(data.eval):,} to evaluate on{ends}"
        ),
        *(notice_text(notice) for notice in data.notices if notice.is_warning),
    ]


def notice_text(notice: DataNotice) -> Text:
    """A notice as a line for a terminal; a warning is marked as one."""
    return Text(f"warning: {notice.text}", style="yellow") if notice.is_warning else Text(notice.text)


def metric_lines(blueprint: Blueprint) -> list[str]:
    """What the metric decides, on how much it is measured, and when; empty for a sweep without one."""
    summary, metric = metric_summary(blueprint.study_spec), blueprint.study_spec.metric
    if summary is None or metric is None:
        return []
    role = "trials are searched and ranked by it" if metric.objective else "recorded beside the loss"
    num_prompts, measured_at = summary["num_prompts"], summary["measured_at"]
    prompts = f"{num_prompts} {'documents of the task' if metric.is_task else 'evaluation prompts'}"
    if num_prompts < metric.num_prompts:
        prompts += f" (of the {metric.num_prompts} asked for, there are no more)"
    answers = f", answers of at most {metric.max_new_tokens} tokens" if metric.max_new_tokens else ""
    when = "measured at " + ", ".join(f"{percent}%" for percent in measured_at)
    if metric.objective and len(measured_at) == 1 and blueprint.study_spec.search["pruner"] != "none":
        when += ", so no trial is pruned"
    return [
        f"{metric.name} ({metric.direction}): {role}",
        f"{prompts}{answers}; {when}",
        f"measured once on the untouched base; {summary['cache']}",
    ]
