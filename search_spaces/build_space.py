"""Scenario, model size and number of steps -> a search space in which every range names its rows.

A sweep that stays inside the rows' ranges can only agree with them, so every range is widened by a factor.
- learning_rate x5 each side, and x10 above for models of up to 8B: with the usual 2e-4 the range passes 1e-3,
  called too high by one document and best in published sweeps of two such models of three, in which it was
  the last rate tried; models of up to 3B reach 3e-3. Never beyond 1e-6 (called too low) and 1e-2.
- embedding_lr_ratio x4 each side, and always up to 1.0: one rate for all, which the documents advise against.
- warmup_ratio x2 above what the rows give as a share, to what they give as a number of steps, and down to no
  warmup at all; never above half the run. Trials are compared from twice the longest warmup on, so that a
  range without need would cost the pruning.
- per_device_train_batch_size x2 each side, in powers of two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from files_and_text.choices import SCHEDULERS_WITHOUT_WARMUP
from files_and_text.value_checker import Limits, ValueChecker
from files_and_text.yaml_lines import KeyPath, Lines
from search_spaces.dimension import Dimension
from search_spaces.first_trials import first_trials
from search_spaces.from_rows.learning_rates import (
    embedding_lr_ratio,
    embedding_lr_ratio_without_rows,
    learning_rate,
)
from search_spaces.from_rows.on_request import ON_REQUEST, on_request
from search_spaces.from_rows.schedule import scheduler, warmup_ratio
from search_spaces.from_rows.sourced_dimension import DEFAULT_WIDEN, Run, SourcedDimension
from search_spaces.guidelines import Guidelines, load_guidelines
from search_spaces.overrides import Override, apply_override, read_overrides
from search_spaces.rows import METHODS
from search_spaces.search_space import SearchSpace


def space_for(
    *,
    scenario: str = "general",
    model_size: float,
    max_steps: int,
    train_embeddings: bool,
    method: str = "qlora",
    include: Collection[str] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    widen: Mapping[str, float] | None = None,
    guidelines: Guidelines | None = None,
    path: str | None = None,
    lines: Lines | None = None,
    at: KeyPath = ("space",),
) -> SearchSpace:
    """The search space that the guideline rows give for one kind of run.

    `model_size` in parameters (8.03e9), `max_steps` in optimizer steps. `include` adds dimensions of
    ON_REQUEST; an override of one adds it too. `overrides` are the user's own ranges by dimension:
    {low, high, log, step}, {choices} or {value}, and beside it {try, why}. `widen` replaces factors of
    DEFAULT_WIDEN by dimension (1 keeps the rows' own ends). `path`, `lines` and `at` say where the overrides
    are in the user's file.
    The space's context says under `given_ends` which ends of ranges are the user's own.
    Raises InputError with every problem at once.
    """
    tables = load_guidelines() if guidelines is None else guidelines
    check = ValueChecker(path, lines)
    check.one_of(scenario, tables.scenarios(), ("scenario",))
    check.one_of(method, METHODS, ("method",))
    size = check.number(model_size, ("model_size",))
    if size is not None and size < 1000:
        check.add(f"model_size is a number of parameters, such as 8.03e9; got {size:g}.", ("model_size",))
    check.number(max_steps, ("max_steps",), Limits(whole=True, at_least=1))
    wanted = set(include)
    for name in dict.fromkeys(include):
        check.one_of(name, ON_REQUEST, ("include",))
    factors = _read_widen(widen or {}, check)
    given = read_overrides(overrides or {}, check, at)
    if "embedding_lr_ratio" in given and not train_embeddings:
        rule = "embedding_lr_ratio needs trained embeddings, and they are frozen."
        check.add(rule, (*at, "embedding_lr_ratio"))
    check.raise_if_any()

    run = Run(
        scenario=scenario,
        model_size=float(model_size),
        max_steps=int(max_steps),
        train_embeddings=train_embeddings,
        method=method,
    )
    found = _dimensions(
        tables, run, factors, given, wanted, check, at, own_rate_factor="learning_rate" in (widen or {})
    )
    check.raise_if_any()
    trials, dropped = first_trials(found)
    dimensions = tuple(each.final for each in found)
    context: dict[str, Any] = {
        **asdict(run),
        "widen": {each.name: factors[each.name] for each in dimensions if each.name in factors},
        "overridden": [each.final.name for each in found if each.is_overridden],
        "notes": [note for each in found for note in each.notes],
        "dropped": dropped,
    }
    if given_ends := {each.final.name: list(each.given_ends) for each in found if each.given_ends}:
        context["given_ends"] = given_ends
    return SearchSpace(dimensions=dimensions, first_trials=tuple(trials), context=context)


def _read_widen(widen: Mapping[str, float], check: ValueChecker) -> dict[str, float]:
    factors = dict(DEFAULT_WIDEN)
    for name, value in check.mapping(widen, ("widen",), DEFAULT_WIDEN).items():
        factor = check.number(value, ("widen", name), Limits(at_least=1))
        if factor is not None:
            factors[name] = factor
    return factors


def _dimensions(
    tables: Guidelines,
    run: Run,
    factors: Mapping[str, float],
    given: Mapping[str, Override],
    wanted: Collection[str],
    check: ValueChecker,
    at: KeyPath,
    *,
    own_rate_factor: bool,
) -> list[SourcedDimension]:
    """The dimensions in the order in which a trial decides them, within the user's ranges."""

    def within(found: SourcedDimension) -> SourcedDimension:
        override = given.get(found.from_rows.name)
        if override is None:
            return found
        here = (*at, found.from_rows.name)
        in_space = apply_override(found.from_rows, override, check, here, about_high=found.about_high)
        return replace(found, in_space=in_space, tried_first=override.first)

    rate = within(learning_rate(tables, run, factors["learning_rate"], is_own_factor=own_rate_factor))
    found = [rate]
    if run.train_embeddings:
        main_rate = rate.final.default
        assert not isinstance(main_rate, str)
        ratio = embedding_lr_ratio(tables, run, factors["embedding_lr_ratio"], main_rate)
        if ratio is None and "embedding_lr_ratio" in given:
            ratio = embedding_lr_ratio_without_rows()
        if ratio is not None:
            found.append(within(ratio))
        else:
            note = f"embeddings take the main rate: no row gives them another one under method {run.method}"
            found = [replace(rate, notes=(*rate.notes, note))]
    schedule = within(scheduler(tables, run))
    found.append(schedule)
    warmup = _conditional(within(warmup_ratio(tables, run, factors["warmup_ratio"])), schedule.final)
    if warmup is not None:
        found.append(warmup)
    elif "warmup_ratio" in given:
        check.add("warmup_ratio has no effect: no scheduler of the space uses it.", (*at, "warmup_ratio"))
    return found + [
        within(on_request(name, tables, run, factors.get(name, 1.0)))
        for name in ON_REQUEST
        if name in wanted or name in given
    ]


def _conditional(warmup: SourcedDimension, schedule: Dimension) -> SourcedDimension | None:
    """Warmup only under the schedulers that use it; None when there is none of them."""
    choices = schedule.choices or ()
    using = tuple(choice for choice in choices if choice not in SCHEDULERS_WITHOUT_WARMUP)
    if not using:
        return None
    if len(using) == len(choices):
        return warmup
    return replace(warmup, in_space=replace(warmup.final, active_when=(schedule.name, using)))
