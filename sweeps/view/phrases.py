"""Phrases about a sweep's state that the live screen, the plain lines and `sweeps status` share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from files_and_text.numbers import duration, number, plural, share_text, value_text
from results.answer.answer import single_gap
from results.parameter_order import SHORT_NAMES
from results.text.gaps import gap_text, short_loss
from results.text.values import about
from search_spaces.dimension import Value
from sweeps.study.status import ArmProgress, Stage, Status

GIB = 2**30
_NUMBER = re.compile(r"(?:trial|run) (\d+): ")


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` characters; what is too long loses its end, as the beginning says most."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    if width < 8:
        return text[: max(0, width)]
    return f"{text[: width - 4].rstrip()} ..."


def packed(facts: Iterable[str], width: int) -> list[str]:
    """Lines with as many facts each as fit into `width`; a longer one loses its end."""
    lines = list[str]()
    for fact in facts:
        if lines and len(lines[-1]) + len(fact) + 3 <= width:
            lines[-1] += f"   {fact}"
        else:
            lines.append(shorten(fact, width))
    return lines


def noun(status: Status | None) -> str:
    """What a trial is called: a confirmation runs known configurations again."""
    return "run" if status is not None and status.task == "confirm" else "trial"


def event_text(event: str, status: Status | None) -> str:
    """An event as it is told."""
    return event if noun(status) == "trial" else re.sub(r"\btrial(?= \d)", "run", event)


def trial_of(event: str) -> int | None:
    """The trial that an event of the keeper is about; None for other events."""
    found = _NUMBER.match(event)
    return int(found[1]) if found else None


def is_start(event: str) -> bool:
    """Whether an event only says that a trial has started on a seat."""
    return trial_of(event) is not None and ": started on worker " in event


def counts_text(status: Status) -> str:
    """`6 of 16 trials (4 complete, 2 pruned), 3 frozen`; `6 of at most 16 runs` (it may end early)."""
    outcomes = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in sorted(status.outcomes.items()) if count
    )
    of = plural(status.target, noun(status))
    if status.task == "confirm":
        # Before its plan is made, nobody knows how many there will be.
        return f"{status.finished} of at most {of}" if status.target else plural(status.finished, "run")
    frozen = f", {status.frozen} frozen" if status.frozen else ""
    return f"{status.finished} of {of}" + (f" ({outcomes})" if outcomes else "") + frozen


def left_text(status: Status) -> str:
    """`about 2 min left`, with the reason where it grew; "" while it is not known."""
    is_done = status.finished >= status.target and not status.running
    if status.seconds_left is None or is_done:
        return ""
    return f"{about(status.seconds_left)} left" + (f" ({status.left_note})" if status.left_note else "")


def speed_text(status: Status) -> str:
    """`1,240 tokens/s`; "" before a speed was measured."""
    return f"{status.tokens_per_second:,.0f} tokens/s" if status.tokens_per_second >= 0.5 else ""


def stage_text(stage: Stage, prefix: str = "") -> str:
    """`worker 0: loading the base, 1.2 of 4.7 GiB`; `prefix` stands before what is done."""
    who = "" if stage.worker is None else f"worker {stage.worker}: "
    done = ""
    if stage.total:
        if stage.unit == "bytes":
            done = f", {stage.done / GIB:.1f} of {stage.total / GIB:.1f} GiB"
        else:
            done = f", {number(stage.done)} of {number(stage.total)} {stage.unit}".rstrip()
    return f"{who}{prefix}{stage.name}{done}"


def warning_texts(status: Status) -> Iterator[str]:
    """What a person has to know now: a storage that is away, memory, failed trials, how it computes."""
    if status.storage_away_seconds:
        away = duration(status.storage_away_seconds)
        yield f"the storage has been away for {away}: trials go on and wait for it"
    if status.num_put_back:
        yield f"{plural(status.num_put_back, noun(status))} tried again after running out of memory"
    if status.failed:
        yield f"{plural(status.failed, noun(status))} failed"
    yield from status.widened
    for path in status.compute_paths:
        yield from path.get("notes") or ()


def best_text(status: Status) -> str:
    """`5.432 (trial 5)`, or who leads before a trial is complete; "" before the first evaluation.

    "" in a confirmation too, which has `arm_text`.
    """
    if status.best is not None:
        shown = [short_loss(status.best["eval_loss"])]
        if status.best.get("metric") is not None:
            metric = f"{status.metric} {number(status.best['metric'])}"
            shown = [metric, f"loss {shown[0]}"] if status.is_objective else [f"{shown[0]}, {metric}"]
        return f"{', '.join(shown)} (trial {status.best['number']})"
    if (leader := status.leader) is not None and leader.eval_loss is not None:
        return f"{short_loss(leader.eval_loss)} at {leader.percent}% (trial {leader.number})"
    return ""


def arm_text(arm: ArmProgress) -> str:
    """`3 seeds done, mean loss 6.773, 1 running`: a configuration of a confirmation so far."""
    facts = [f"{plural(arm.finished, 'seed')} done"]
    facts += [] if arm.eval_loss is None else [f"mean loss {short_loss(arm.eval_loss)}"]
    facts += [f"{arm.ended_early} ended early"] if arm.ended_early else []
    facts += [f"{arm.running} running"] if arm.running else []
    return ", ".join(facts)


def beside_best(status: Status) -> list[str]:
    """The guideline default with what it costs against the best, and the untouched base."""
    shown, best = [], status.best
    if status.default_loss is not None:
        cost = ""
        if best is not None and not status.is_objective:
            gap = single_gap(status.default_loss, best["eval_loss"])
            cost = f" ({gap_text(gap)})" if gap is not None and gap.nats else ""
        shown.append(f"guideline default {short_loss(status.default_loss)}{cost}")
    if status.base_eval_loss is not None:
        metric = "" if status.base_metric is None else f", {status.metric} {number(status.base_metric)}"
        other = status.base_unquantized_loss
        unquantized = "" if other is None else f", not quantized {short_loss(other)}"
        shown.append(f"untouched base {short_loss(status.base_eval_loss)}{metric}{unquantized}")
    return shown


def short_name(parameter: str) -> str:
    """The name of a hyperparameter above a column of few characters."""
    return SHORT_NAMES.get(parameter, parameter)


def short_value(parameter: str, value: Value | None) -> str:
    """A value in few characters: `5.98e-3`, `3%` of the steps, `cosine`; `-` where a trial has none."""
    if value is None:
        return "-"
    if parameter == "warmup_ratio" and isinstance(value, int | float):
        return share_text(value)
    return shorten(value_text(value), 24 if parameter == "configuration" else 12)


def step_text(step: int | None, max_steps: int | None, percent: int) -> str:
    """`24/40`; `60%` where the step is not known."""
    return f"{percent}%" if step is None else f"{step}/{max_steps}" if max_steps else str(step)


def short_values(values: Mapping[str, Value]) -> dict[str, str]:
    """Column -> value, in the order given; steps and share of a warmup are one column."""
    return {short_name(name): short_value(name, value) for name, value in values.items()}


def short_settings(values: Mapping[str, Value]) -> str:
    """`lr 5.98e-3, sched cosine, warmup 3%`."""
    return ", ".join(f"{name} {value}" for name, value in short_values(values).items())
