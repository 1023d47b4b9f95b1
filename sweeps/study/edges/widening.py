"""A range at whose end the best lies is widened on that side, once; the study records it.

The space of the sweep file, by which a study is recognized, stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from files_and_text.numbers import number, six_digits
from results.stored_trials import is_replicate
from search_spaces import Dimension, SearchSpace
from sweeps.study.edges.open_side import best_trial, end_reached

WIDENED = "widened"
"""User attribute of a study, and key of a space's context: the widenings as plain values."""
FACTOR = 3.0
WIDENABLE = {"learning_rate": 1.0, "embedding_lr_ratio": float("inf")}
"""Dimensions whose ranges may be widened, each with the largest value that it may take."""


@dataclass(frozen=True, kw_only=True)
class Widening:
    """One end of a range, moved."""

    dimension: str
    side: str
    before: float
    after: float
    best: int
    """The trial that lay at the end."""
    finished: int
    """Trials that had finished then."""

    def __str__(self) -> str:
        before, after = number(self.before), number(self.after)
        way = "up" if self.side == "high" else "down"
        return (
            f"{self.dimension} is searched {way} to {after} from now on: the best so far, trial {self.best}, "
            f"lies at the {self.side} end of its range, {before}"
        )


def next_widening(
    trials: Sequence[FrozenTrial],
    space: SearchSpace,
    earlier: Sequence[Widening],
    *,
    finished: int,
    lowest_rate: float = 0.0,
) -> Widening | None:
    """The end at which the best lies and towards which trials improve, if it has not been moved before.

    None where there is none. An end that the user gave is never moved.
    `lowest_rate`: no learning rate may be as low, because a schedule's minimum lies there.
    """
    best = best_trial(trials)
    if best is None:
        return None
    moved = {(each.dimension, each.side) for each in earlier}
    for name, largest in WIDENABLE.items():
        if name not in space or name not in best.params:
            continue
        dimension, value = space[name], best.params[name]
        if dimension.kind != "float" or dimension.step is not None or not dimension.contains(value):
            continue
        side = end_reached(dimension, float(value))
        if side is None or (name, side) in moved or side in space.context.get("given_ends", {}).get(name, ()):
            continue
        low, high = dimension.bounds()
        before = high if side == "high" else low
        after = min(six_digits(high * FACTOR), largest) if side == "high" else six_digits(low / FACTOR)
        is_farther = after > before if side == "high" else 0 < after < before
        is_forbidden = name == "learning_rate" and side == "low" and after <= lowest_rate
        if is_farther and not is_forbidden and _improves_towards(trials, space, name, side):
            return Widening(
                dimension=name, side=side, before=before, after=after, best=best.number, finished=finished
            )
    return None


def _improves_towards(trials: Sequence[FrozenTrial], space: SearchSpace, name: str, side: str) -> bool:
    from sweeps.study.edges.edge_evidence import improves_towards  # numpy, which readers need not wait for

    return improves_towards([trial for trial in trials if not is_replicate(trial)], space, name, side)


def widenings_of(study: optuna.Study) -> list[Widening]:
    """What has been widened in this study, in its order."""
    return [Widening(**each) for each in study.user_attrs.get(WIDENED) or ()]


def present_space(study: optuna.Study, space: SearchSpace) -> SearchSpace:
    """The space of the sweep file as this study searches it now."""
    return widened_space(space, widenings_of(study))


def record_widening(study: optuna.Study, widening: Widening, space: SearchSpace) -> SearchSpace:
    """Write a widening into the study; returns the wider space, with which the study's results are read."""
    every = [*widenings_of(study), widening]
    wider = widened_space(space, every)
    study.set_user_attr(WIDENED, [asdict(each) for each in every])
    study.set_user_attr("space", wider.to_dict())
    return wider


def widened_space(space: SearchSpace, widenings: Sequence[Widening]) -> SearchSpace:
    """The space with the ends where the widenings moved them; an end that is farther already stays."""
    if not widenings:
        return space
    dimensions = tuple(_widened(dimension, widenings) for dimension in space.dimensions)
    context: Mapping[str, Any] = {**space.context, WIDENED: [asdict(each) for each in widenings]}
    return replace(space, dimensions=dimensions, context=dict(context))


def _widened(dimension: Dimension, widenings: Sequence[Widening]) -> Dimension:
    for each in widenings:
        if each.dimension != dimension.name:
            continue
        low, high = dimension.bounds()
        moved = {"high": max(high, each.after)} if each.side == "high" else {"low": min(low, each.after)}
        note = f"widened by the sweep from {number(each.before)} to {number(each.after)}"
        known = dimension.note.split("; ") if dimension.note else []
        notes = known if note in known else [*known, note]
        dimension = replace(dimension, **moved, note="; ".join(notes))  # type: ignore[arg-type]
    return dimension
