"""The answer of a sweep in words: what to use, what it is worth, how sure that is, and what to do next."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from files_and_text.numbers import duration, number, plural, share_text, value_text, warmup_text
from results.answer.answer import Answer, BestConfig, Compared, Gap, NextCommand, RunFacts
from results.parameter_order import in_order
from results.text.gaps import gap_text, interval_text, loss_text, percent_text, short_loss
from results.text.parameters import (
    TableLine,
    capital,
    parameter_sentence,
    parameter_title,
    table_lines,
)
from results.text.records import records_text
from results.text.values import about
from search_spaces.dimension import Value

__all__ = [
    "TableLine",
    "answer_lines",
    "base_text",
    "default_text",
    "done_text",
    "gap_text",
    "headline",
    "loss_text",
    "merged_text",
    "next_text",
    "parameter_sentence",
    "parameter_title",
    "settings_text",
    "sure_text",
    "table_lines",
    "use_text",
]

_OUTCOMES = {"out_of_memory": "out of memory", "running": "unfinished"}
"""A trial that has started may be at work or wait to be continued: only a live status knows."""
_ENDED = {
    "pruned": "was stopped early",
    "frozen": "was stopped early and may go on",
    "diverged": "diverged",
    "out_of_memory": "ran out of memory",
    "failed": "failed",
    "running": "is still running",
    "waiting": "has not started",
}


def use_text(answer: Answer) -> str:
    """`learning_rate 5.98e-3, scheduler constant, no warmup`: what was searched; "" without a best."""
    if answer.best is None:
        return ""
    if answer.uses_default:
        return f"the guideline default: {default_text(answer)}"
    text = settings_text(answer.best.settings, has_no_warmup=answer.best.has_no_warmup)
    return text or f"the settings of trial {answer.best.trial} (nothing was searched)"


def default_text(answer: Answer) -> str:
    """The guideline default's own values, as in `use_text`; "" where it was not tried."""
    return settings_text(answer.default.settings, has_no_warmup=answer.default.has_no_warmup)


def default_sentence(answer: Answer) -> str:
    """`Guideline default: learning_rate 2e-4, scheduler linear.`; "" where there is none beside the best."""
    settings, is_best = default_text(answer), answer.best and answer.default.trial == answer.best.trial
    return f"Guideline default: {settings}." if settings and not is_best else ""


def settings_text(settings: Mapping[str, Value], *, has_no_warmup: bool = False) -> str:
    """Settings as a person lists them: rates, scheduler and warmup first, others by key."""
    said = {
        "learning_rate": "learning_rate",
        "embedding_learning_rate": "embedding_learning_rate",
        "lr_scheduler_type": "scheduler",
    }
    parts = [f"{shown} {value_text(settings[name])}" for name, shown in said.items() if name in settings]
    warmup = "no warmup" if has_no_warmup else _warmup(settings)
    parts += [warmup] if warmup else []
    left_out = {*said, "warmup_steps", "warmup_ratio"}
    if "embedding_learning_rate" in settings:
        left_out.add("embedding_lr_ratio")
    parts += [
        f"{name} {value_text(settings[name])}" for name in in_order(list(settings)) if name not in left_out
    ]
    return ", ".join(parts)


def headline(answer: Answer) -> str:
    """`Use ...: loss 5.432; the guideline default costs 25.7% more.`"""
    best = answer.best
    if best is None:
        return capital(_no_best(answer))
    if answer.uses_default and answer.default.loss is not None:
        rest = _beside_default(answer.default.gap, best)
        return f"Use {use_text(answer)}: loss {loss_text(answer.default.loss)}; {rest}."
    loss = f"loss {loss_text(best.loss)}"
    if answer.is_by_metric and answer.metric and best.metric is not None:
        loss = f"{answer.metric} {number(best.metric)}, {loss}"
    rest = _default_clause(answer)
    if answer.sure == "best_changed":
        rest += " in one run of each, since what was run again is an earlier best"
    return f"Use {use_text(answer)}: {loss}{f'; {rest}' if rest else ''}."


def sure_text(answer: Answer) -> str:
    """How sure it is that the best beats the guideline default, also over other evaluation records; and that
    a better rate may lie beyond it."""
    return " ".join(
        filter(None, (_sure(answer), _contradicted(answer), records_text(answer), untried_text(answer)))
    )


def untried_text(answer: Answer) -> str:
    """`Try a higher learning_rate: ...`; "" where rates on both sides of the best were tried."""
    if not answer.untried:
        return ""
    return (
        f"Try a {answer.untried} learning_rate: nothing tried has a {answer.untried} mean rate over the run "
        f"than the best, {number(answer.mean_rate)}."
    )


def _sure(answer: Answer) -> str:
    seeds, gap = answer.seeds, answer.default.gap
    between = "" if gap is None else interval_text(gap)
    compared = _seeds(seeds if gap is None or not gap.seeds else gap.seeds)
    margin = percent_text(100 * answer.margin, plus=False).replace(".0%", "%").replace("0%", "%")
    match answer.sure:
        case "no_best":
            return "No trial has finished its full budget yet."
        case "one_run" if answer.run.is_unfinished:
            return "Not yet: the sweep is not finished."
        case "one_run":
            return "Not yet: one run per configuration."
        case "best_changed":
            return "Not yet: one run per configuration. What was run again is an earlier best."
        case "not_by_metric":
            return f"Not by {answer.metric}: the guideline default was compared with the best by loss alone."
        case "default_is_best":
            return "The guideline default is itself the best here."
        case "default_unknown":
            return f"The best was run again on {_seeds(seeds)}, without a guideline default to compare with."
        case "best_loses_runs":
            runs = 0 if answer.best is None else answer.best.lost_runs
            return f"No: 0 of {plural(runs, 'run')} of the best on new seeds finished."
        case "default_loses_runs":
            return f"Yes: {_lost_by_default(answer)} ended early, and none of the best's did."
        case "too_few_seeds" | "open" if gap is None and answer.default.lost_runs:
            return f"Not yet: {_lost_by_default(answer)} did not finish."
        case "too_few_seeds":
            return f"Not yet: {_seeds(seeds)}, and an interval needs 3."
        case "default_costs":
            return (
                f"Yes: better than the guideline default, which costs {between} on {compared}. Other trials "
                "may be as good."
            )
        case "no_difference":
            cost = f"the guideline default costs {between}"
            return f"Yes: no difference: {cost}, and up to {margin} does not matter."
        case "default_better":
            return f"No: on {compared} the guideline default is better than the sweep's best."
    return f"Not yet: on {compared} the guideline default costs {between or 'an unknown amount'}."


def _contradicted(answer: Answer) -> str:
    """That later seeds contradict the interval of the guideline default; "" where they do not."""
    gap = answer.default.gap
    if gap is None or not gap.contradicted:
        return ""
    mean = f"{gap.nats:.4f} nats" if gap.percent is None else percent_text(gap.percent, plus=False)
    return f"Later seeds contradict that interval: the mean over {_seeds(gap.seeds)} is {mean}."


def done_text(run: RunFacts) -> str:
    """`14 of 14 trials (6 complete, 8 pruned) in 2 min 11 s on 2 CPU cores`."""
    of = f" of {run.target}" if run.target is not None else ""
    counts = ", ".join(
        f"{count} {_OUTCOMES.get(name, name)}" for name, count in run.outcomes.items() if count
    )
    text = f"{run.finished}{of} trial{'' if (run.target or run.finished) == 1 else 's'}"
    text += f" ({counts})" if counts else ""
    text += f" in {duration(run.seconds)}" if run.seconds and run.seconds >= 0.5 else ""
    return text + (f" on {' and '.join(run.devices)}" if run.devices else "")


def next_text(command: NextCommand) -> str:
    """What a command is for, with the time where it takes some."""
    why = {
        "confirm": "run the best and the guideline default again on new seeds",
        "confirm_two": "run the two best again on new seeds",
        "continue": "run the trials that are left",
        "export": "write the best configuration for TRL",
        "report": "everything on one page",
    }.get(command.why, command.why)
    return why if command.seconds is None else f"{why}, {about(command.seconds)}"


def answer_lines(
    answer: Answer,
    *,
    width: int = 80,
    done: Sequence[str] | None = None,
    report: str = "",
    with_next: bool = True,
) -> list[str]:
    """The answer in a terminal: Done, Use, Loss, Sure? and Next, each with its further lines indented.

    `done` replaces what stands behind Done; an empty one leaves it out. `report` is the path of the report,
    "" where there is none. No line is wider than `width` unless a command or path is.
    """
    # What was interrupted is not done.
    label = "Ran:" if answer.run.is_unfinished else "Done:"
    lines = _labelled(label, [f"{done_text(answer.run)}."] if done is None else done, width)
    if answer.best is None:
        nothing = "nothing yet" if answer.run.is_unfinished else "nothing"
        lines += _labelled("Use", [f"{nothing}: {_no_best(answer)}"], width)
    else:
        lines += _labelled("Use", [use_text(answer)], width)
        lines += _labelled("Loss", list(_losses(answer)), width)
        lines += _labelled("", _metrics(answer), width)
        lines += _labelled("Sure?", [sure_text(answer)], width)
    return lines + (_next_lines(answer.next, report, width) if with_next else [])


def _next_lines(commands: Sequence[NextCommand], report: str, width: int) -> list[str]:
    room = width - 6
    shown = [
        line if len(line := command.command + _beside(command)) <= room else command.command
        for command in commands
    ]
    shown += [report] if report else []
    return [f"{'Next' if index == 0 else '':5} {text}" for index, text in enumerate(shown)]


def _beside(command: NextCommand) -> str:
    if command.why == "continue":
        return "     continues it"
    return "" if command.seconds is None else f"     {about(command.seconds)}"


def _labelled(label: str, items: Sequence[str], width: int) -> list[str]:
    """Items beside a label, three spaces apart, as many on a line as fit; a long one is wrapped."""
    room = max(width - 6, 20)
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + 3 + len(item) <= room:
            lines[-1] += f"   {item}"
        else:
            lines += textwrap.wrap(item, room, break_long_words=False, break_on_hyphens=False)
    return [f"{label if index == 0 else '':5} {line}" for index, line in enumerate(lines)]


def _losses(answer: Answer) -> Iterator[str]:
    best, default = answer.best, answer.default
    assert best is not None
    own = loss_text(best.loss)
    if best.lost_runs and not best.loss.seeds:
        own += f" (one run; 0 of {plural(best.lost_runs, 'new seed')} finished)"
    if answer.uses_default:
        yield f"guideline default {_default_loss(answer)}"
        yield f"sweep's best {own}"
        if text := base_text(answer):
            yield f"untouched base {text}"
        if text := merged_text(answer):
            yield f"sweep's best {text}"
        return
    yield own
    if default.trial == best.trial:
        yield "the guideline default itself"
    elif default.loss is None:
        yield f"guideline default {_not_finished(default)}"
    else:
        yield f"guideline default {_default_loss(answer)}"
    base = f"untouched base {text}" if (text := base_text(answer)) else ""
    if beside := "   ".join(filter(None, (base, merged_text(answer)))):
        yield beside


def merged_text(answer: Answer) -> str:
    """`merged in bfloat16 6.040`; "" where no merged model of the best was measured."""
    found = answer.merged
    return "" if found is None else f"merged in {found.dtype} {short_loss(found.loss)}"


def base_text(answer: Answer) -> str:
    """`3.824`, or `3.824, not quantized 3.561`; "" where the base was not measured."""
    base, unquantized = answer.base.loss, answer.unquantized_base
    if base is None:
        return ""
    if unquantized is None or unquantized.loss is None:
        return short_loss(base.value)
    return f"{short_loss(base.value)}, not quantized {short_loss(unquantized.loss.value)}"


def _default_loss(answer: Answer) -> str:
    best, loss, gap = answer.best, answer.default.loss, answer.default.gap
    assert loss is not None
    if gap is None:
        return loss_text(loss)
    single = " of single runs" if best is not None and best.loss.seeds else ""
    return short_loss(loss.value) + (f", {gap_text(gap)}" if gap.seeds else f" ({gap_text(gap)}{single})")


def _metrics(answer: Answer) -> list[str]:
    """The sweep's metric beside the loss, where it has one."""
    best, name = answer.best, answer.metric
    if best is None or name is None or best.metric is None:
        return []
    found = [f"{name} {number(best.metric)}{' (searched by it)' if answer.is_by_metric else ''}"]
    if answer.default.metric is not None and answer.default.trial != best.trial:
        found.append(f"guideline default {number(answer.default.metric)}")
    if answer.base.metric is not None:
        found.append(f"untouched base {number(answer.base.metric)}")
    return found


def _no_best(answer: Answer) -> str:
    if answer.run.is_unfinished:
        return "no trial has finished its full budget."
    return "no trial finished its full budget with a finite loss."


def _default_clause(answer: Answer) -> str:
    best, default, gap = answer.best, answer.default, answer.default.gap
    if best is not None and default.trial == best.trial:
        return "it is the guideline default"
    if default.loss is None:
        return f"the guideline default {_was_not(default)}"
    if gap is None:
        return f"the guideline default has loss {loss_text(default.loss)}"
    if answer.is_by_metric and default.metric is not None:
        return f"the guideline default has {number(default.metric)}, loss {short_loss(default.loss.value)}"
    if answer.sure == "no_difference":
        return f"the guideline default is as good on {_seeds(gap.seeds or answer.seeds)}"
    if gap.percent is None:
        return f"the guideline default costs {gap.nats:.4f} nats more"
    size = percent_text(abs(gap.percent), plus=False)
    if not float(size.removesuffix("%")):
        return "the guideline default has the same loss"
    return f"the guideline default {f'costs {size} more' if gap.nats >= 0 else f'is {size} better'}"


def _beside_default(gap: Gap | None, best: BestConfig) -> str:
    if gap is None:
        return f"the sweep's best finished on 0 of {plural(best.lost_runs, 'new seed')}"
    size = "" if gap.percent is None else f"{percent_text(-gap.percent, plus=False)} "
    return f"it is {size}better than the sweep's best"


def _was_not(default: Compared) -> str:
    if default.outcome == "no_seed_finished":
        return f"finished on 0 of {plural(default.lost_runs, 'new seed')}"
    return (
        "was not tried" if default.outcome == "not_tried" else _ENDED.get(default.outcome, "did not finish")
    )


def _not_finished(default: Compared) -> str:
    return _was_not(default).removeprefix("was ")


def _lost_by_default(answer: Answer) -> str:
    default = answer.default
    runs = default.lost_runs + (0 if default.loss is None else default.loss.seeds)
    return f"{default.lost_runs} of {plural(runs, 'run')} of the guideline default"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _warmup(settings: Mapping[str, Value]) -> str:
    steps, ratio = settings.get("warmup_steps"), settings.get("warmup_ratio")
    share = ratio if isinstance(ratio, int | float) else None
    if not isinstance(steps, int | float):
        return "" if share is None else f"warmup {share_text(share)}"
    return f"warmup {warmup_text(share, steps)}" if steps else "no warmup"
