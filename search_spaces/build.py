"""Scenario x model size x number of steps -> a search space that names its sources.

A sweep that stays inside the tables can only agree with them, so every range is widened by a stated factor.
- learning_rate x5 each side: with the usual 2e-4 the range ends at 1e-3, called too high by one document and
  best by other published sweeps, so that either can be shown; never beyond 1e-6 (called too low) and 1e-2.
- embedding_lr_ratio x4 each side, and always up to 1.0: one rate for all, which the documents advise against.
- warmup_ratio x2 above, and down to no warmup at all; never above half the run.
- per_device_train_batch_size x2 each side, in powers of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from files_and_text.choices import SCHEDULERS_WITHOUT_WARMUP
from files_and_text.value_checker import Limits, ValueChecker
from files_and_text.yaml_lines import KeyPath, Lines
from search_spaces.first_trials import propose
from search_spaces.from_rows.dimension_draft import DEFAULT_WIDEN, Draft, Run
from search_spaces.from_rows.learning_rates import embedding_ratio_draft, learning_rate_draft
from search_spaces.from_rows.other_dimensions import (
    batch_size_draft,
    convention_draft,
    scheduler_draft,
    warmup_draft,
)
from search_spaces.guidelines import Guidelines, load_guidelines
from search_spaces.overrides import Override, apply_override, read_overrides
from search_spaces.rows import METHODS
from search_spaces.space import Dimension, SearchSpace

ON_REQUEST = ("lora_r", "lora_alpha", "lora_dropout", "per_device_train_batch_size", "weight_decay")


def space_for(
    *,
    scenario: str = "general",
    model_size: float,
    max_steps: int,
    train_embeddings: bool,
    method: str = "qlora",
    include: Iterable[str] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    widen: Mapping[str, float] | None = None,
    guidelines: Guidelines | None = None,
    path: str | None = None,
    lines: Lines | None = None,
    at: KeyPath = ("space",),
) -> SearchSpace:
    """The search space that the tables give for one kind of run.

    `model_size` in parameters (8.03e9), `max_steps` in optimizer steps. `include` asks for dimensions of
    ON_REQUEST; an override of one asks for it too. `overrides` are the user's own ranges by dimension:
    {low, high, log, step}, {choices} or {value}; `widen` are factors by dimension over DEFAULT_WIDEN (1 keeps
    the tables' own ends). `path`, `lines` and `at` say where the overrides stand in the user's file.
    Raises InputError with every problem at once.
    """
    tables = load_guidelines() if guidelines is None else guidelines
    check = ValueChecker(path, lines)
    check.one_of(scenario, tables.scenarios(), ("scenario",))
    check.one_of(method, METHODS, ("method",))
    _check_sizes(model_size, max_steps, check)
    wanted = list(dict.fromkeys(include))
    for name in wanted:
        check.one_of(name, ON_REQUEST, ("include",))
    factors = _read_widen(widen or {}, check)
    given = read_overrides(overrides or {}, check, at)
    if "embedding_lr_ratio" in given and not train_embeddings:
        where = (*at, "embedding_lr_ratio")
        check.add("embedding_lr_ratio needs trained embeddings, and they are frozen.", where)
    check.raise_if_any()

    run = Run(
        scenario=scenario,
        model_size=float(model_size),
        max_steps=int(max_steps),
        train_embeddings=train_embeddings,
        method=method,
    )
    drafts = _drafts(tables, run, factors, given, set(wanted), check, at)
    check.raise_if_any()
    trials, dropped = propose(drafts)
    context: dict[str, Any] = {
        "scenario": run.scenario,
        "model_size": run.model_size,
        "max_steps": run.max_steps,
        "train_embeddings": run.train_embeddings,
        "method": run.method,
        "widen": {
            draft.final.name: factors[draft.final.name] for draft in drafts if draft.final.name in factors
        },
        "overridden": [draft.final.name for draft in drafts if draft.overridden],
        "notes": [note for draft in drafts for note in draft.notes],
        "dropped": dropped,
    }
    return SearchSpace(dimensions=tuple(d.final for d in drafts), proposals=tuple(trials), context=context)


def _check_sizes(model_size: object, max_steps: object, check: ValueChecker) -> None:
    size = check.number(model_size, ("model_size",))
    if size is not None and size < 1000:
        check.add(f"model_size is a number of parameters, such as 8.03e9; got {size:g}.", ("model_size",))
    check.number(max_steps, ("max_steps",), Limits(whole=True, at_least=1))


def _read_widen(widen: Mapping[str, float], check: ValueChecker) -> dict[str, float]:
    factors = dict(DEFAULT_WIDEN)
    for name, value in check.mapping(widen, ("widen",), DEFAULT_WIDEN).items():
        factor = check.number(value, ("widen", name), Limits(at_least=1))
        if factor is not None:
            factors[name] = factor
    return factors


def _drafts(
    tables: Guidelines,
    run: Run,
    factors: Mapping[str, float],
    given: Mapping[str, Override],
    wanted: set[str],
    check: ValueChecker,
    at: KeyPath,
) -> list[Draft]:
    def settle(draft: Draft) -> Draft:
        override = given.get(draft.tables.name)
        if override is None:
            return draft
        here = (*at, draft.tables.name)
        final = apply_override(draft.tables, override, check, here)
        return replace(draft, final=final, overridden=final != draft.tables)

    rate = settle(learning_rate_draft(tables, run, factors["learning_rate"]))
    drafts = [rate]
    if run.train_embeddings:
        main_rate = rate.final.default
        assert not isinstance(main_rate, str)
        ratio = embedding_ratio_draft(tables, run, factors["embedding_lr_ratio"], main_rate)
        if ratio is None and "embedding_lr_ratio" in given:
            ratio = convention_draft("embedding_lr_ratio")
        if ratio is not None:
            drafts.append(settle(ratio))
        else:
            text = f"embeddings take the main rate: no row gives them another one under method {run.method}"
            drafts[0] = replace(rate, notes=(*rate.notes, text))
    scheduler = settle(scheduler_draft(tables, run))
    drafts.append(scheduler)
    warmup = _conditional(settle(warmup_draft(tables, run, factors["warmup_ratio"])), scheduler.final)
    if warmup is not None:
        drafts.append(warmup)
    elif "warmup_ratio" in given:
        check.add("warmup_ratio has no effect: no scheduler of the space uses it.", (*at, "warmup_ratio"))
    for name in ON_REQUEST:
        if name not in wanted and name not in given:
            continue
        if name == "per_device_train_batch_size":
            drafts.append(settle(batch_size_draft(tables, run, factors[name])))
        else:
            drafts.append(settle(convention_draft(name, tables, run)))
    return drafts


def _conditional(warmup: Draft, scheduler: Dimension) -> Draft | None:
    """Warmup only under the schedulers that use it; None when there is none of them."""
    choices = scheduler.choices or ()
    using = tuple(choice for choice in choices if choice not in SCHEDULERS_WITHOUT_WARMUP)
    if not using:
        return None
    if len(using) == len(choices):
        return warmup
    condition = (scheduler.name, using)
    return replace(warmup, final=replace(warmup.final, active_when=condition))
