"""What single runs show of a row, in words that name the trials they rest on."""

from __future__ import annotations

from files_and_text.numbers import loss, number, plural, value_text
from results.sweep_result import TrialResult
from results.text.comparisons import model_effect_text
from results.text.conditions import exclusion
from results.text.values import conjunction, searched_range, sentence, shown_range
from results.verdict.measure import BeyondBoundary, Cost, Measurement, SignCounts
from results.verdict.row_verdict import RowVerdict


def reason_not_tested(found: RowVerdict) -> str:
    """Why single runs say nothing about the row; "" when they do."""
    row, measurement = found.row, found.measurement
    name = row.parameter
    match measurement.not_tested:
        case None:
            return ""
        case "excluded":
            return exclusion(found)
        case "no_value":
            is_boundary = row.topic == "boundary"
            return "the row names no value" + ("" if is_boundary else " that a trial could take")
        case "longer_than_run":
            return f"{number(row.low)} steps of warmup are more than half of so short a run"
        case "no_parameter":
            return "the row gives no parameter to compare"
        case "no_trial_with_parameter":
            return f"no trial has a value of {name}"
        case "held_fixed":
            return f"{name} was not searched: every trial held it at {value_text(measurement.held_at)}"
        case "not_in_space":
            return f"{name} was not in the search space"
        case "no_trial_beyond":
            return evidence(found)
        case "nothing_finished":
            return "no trial finished its full budget with a finite loss"
        case "nothing_finished_with_parameter":
            return f"no finished trial has a value of {name}"
        case "best_has_none":
            return f"the best trial has no {name}, and what was run again with it costs more as a whole"
        case "no_such_sign":
            return "no stability sign that a trial reports stands for this row"
        case "no_trial_ran":
            return "no trial ran"
    counts = measurement.signs
    assert counts is not None
    if measurement.not_tested == "sign_not_shown":
        return f"none of {plural(_num_ran(counts), 'trial')} showed {' or '.join(counts.signs)}"
    return f"{_shown_signs(found, counts)}; no trial is without it, so there is none to compare with"


def evidence(found: RowVerdict) -> str:
    """Which trials measured the row's value."""
    measurement = found.measurement
    if measurement.beyond is not None:
        return _beyond(found, measurement.beyond)
    if measurement.signs is not None and measurement.is_tested:
        return f"trials {', '.join(map(str, measurement.signs.trials))}"
    cost = measurement.cost
    if cost is None:
        return "not measured"
    is_best = ", the best itself" if cost.trial == measurement.lowest_trial else ""
    if cost.own_value:
        return f"measured by trial {cost.trial} (the row's own value{is_best})"
    return f"best full-budget trial inside the row: {cost.trial}{is_best}"


def early_ends(found: RowVerdict) -> list[str]:
    """Trials of the row's own value that ended before their full budget."""
    return [_early_end(trial) for trial in found.measurement.ended_early]


def description(found: RowVerdict) -> str:
    """What single runs show of the row, in full sentences."""
    measurement = found.measurement
    if measurement.not_tested is not None:
        trials = measurement.beyond is not None and measurement.beyond.trials
        return f"Not tested: {reason_not_tested(found)}." + (
            f" {sentence(evidence(found))}" if trials else ""
        )
    if measurement.signs is not None:
        return _of_signs(found, measurement.signs)
    if measurement.beyond is not None:
        position = measurement.position
        where = {"inside": "at that value itself", "unused": "nowhere: it has none"}.get(
            position, f"{position} it"
        )
        called = "too low" if found.row.direction == "too_low" else "too high"
        return f"{sentence(evidence(found))} The table calls that {called}; the best trial lies {where}."
    return _of_value(found)


def _of_value(found: RowVerdict) -> str:
    row, measurement = found.row, found.measurement
    position = measurement.position
    if position == "unused":
        parts = [f"The best trial, {measurement.lowest_trial}, has no {row.parameter}."]
        return " ".join([*parts, *_costs(measurement), *map(sentence, early_ends(found))])
    where = {
        "inside": f"lies inside the row's {shown_range(row)}",
        "outside": f"is not among the row's {shown_range(row)}",
    }.get(position, f"lies {position} the row's {shown_range(row)}")
    distance = measurement.distance_log10
    far = f", by {distance:.2f} in log10" if distance else ""
    name, best = row.parameter, measurement.best_trial
    parts = [f"The best {name}, {value_text(measurement.best_value)} (trial {best}), {where}{far}."]
    return " ".join([*parts, *_costs(measurement), *map(sentence, early_ends(found))])


def _costs(measurement: Measurement) -> list[str]:
    return [_cost_sentence(measurement), *_by_itself(measurement)]


def _cost_sentence(measurement: Measurement) -> str:
    if measurement.cost is not None:
        return _of_cost(measurement.cost)
    reach = searched_range(measurement.searched)
    return f"What the row's value costs was not measured: no trial inside it finished{reach}."


def _of_cost(cost: Cost) -> str:
    if cost.own_value:
        who = f"The row's own value was measured by trial {cost.trial}, which"
    else:
        who = f"The best full-budget trial inside the row, {cost.trial},"
    shared = f"; it also differs in {conjunction(cost.differs_in)}" if cost.differs_in else ""
    return f"{who} {_against_best(cost)}{shared}."


def _by_itself(measurement: Measurement) -> list[str]:
    """What the row's value costs alone, where the cheapest trial inside the row has more in its cost."""
    alone, effect, cost = measurement.alone, measurement.effect, measurement.cost
    if cost is not None and not cost.differs_in:
        return []
    if alone is not None:
        return [f"By itself: trial {alone.trial}, alike in all else, {_against_best(alone)}."]
    if effect is None:
        return []
    return [
        f"By itself {value_text(effect.value)} costs {model_effect_text(effect)}; "
        f"the model rests on {plural(effect.trials, 'finished trial')}."
    ]


def _against_best(cost: Cost) -> str:
    if cost.difference == 0:
        return f"has the lowest loss of the sweep, {loss(cost.eval_loss)}"
    share = "" if cost.percent is None else f" ({cost.percent:.2f}%)"
    return f"ended at {loss(cost.eval_loss)}, {cost.difference:.4f}{share} above the best"


def _early_end(trial: TrialResult) -> str:
    who = f"trial {trial.number} (the row's own value)"
    if trial.outcome == "running":
        return f"{who} is still running" + ("" if trial.percent is None else f", at {trial.percent}%")
    verb = {"failed": "failed", "diverged": "diverged", "out_of_memory": "ran out of memory"}.get(
        trial.outcome, "was stopped"
    )
    at = "" if trial.percent is None else f" at {trial.percent}%"
    return f"{who} {verb}{at}" + (f": {trial.stop_reason.rstrip('.')}" if trial.stop_reason else "")


def _beyond(found: RowVerdict, beyond: BeyondBoundary) -> str:
    """What became of the trials at or beyond a boundary's value."""
    row = found.row
    side = f"at {value_text(row.low)} {'or below' if row.direction == 'too_low' else 'or above'}"
    if not beyond.trials:
        return f"no trial {side}{searched_range(found.measurement.searched)}"
    said = f"{plural(len(beyond.trials), 'trial')} {side}: "
    said += ", ".join(f"{count} {outcome}" for outcome, count in beyond.outcomes.items())
    if beyond.signs:
        said += f"; signs: {', '.join(f'{sign} in {count}' for sign, count in beyond.signs.items())}"
    cost = beyond.cost
    return said if cost is None else f"{said}; the best of them, trial {cost.trial}, {_against_best(cost)}"


def _of_signs(found: RowVerdict, counts: SignCounts) -> str:
    relation = {"inside": "equal to", "above": "higher than", "below": "lower than"}
    side = "above" if found.row.direction == "too_high" else "below"
    said_side = (
        ""
        if counts.num_on_said_side_of_best is None
        else f" {counts.num_on_said_side_of_best} of {counts.num_values} with the sign lie {side} the best, "
        f"{number(counts.best_value)}."
    )
    return (
        f"{_shown_signs(found, counts)}. Their median {_sign_parameter(found)}, "
        f"{number(counts.median_with_sign)}, is {relation[found.measurement.position]} that of the others, "
        f"{number(counts.median_without_sign)}.{said_side} A hint and no test: the trials are few, and the "
        "sampler avoids bad regions."
    )


def _shown_signs(found: RowVerdict, counts: SignCounts) -> str:
    name = _sign_parameter(found)
    meaning = {"too_high": f"{name} being too high", "too_low": f"{name} being too low"}
    return (
        f"{len(counts.trials)} of {plural(_num_ran(counts), 'trial')} showed {' or '.join(counts.signs)}, "
        f"which the table reads as {meaning.get(found.row.direction or '', 'a sign without a direction')}"
    )


def _sign_parameter(found: RowVerdict) -> str:
    return found.row.parameter or "learning_rate"


def _num_ran(counts: SignCounts) -> int:
    return len(counts.trials) + counts.num_others
