"""Looks at a model and a data set, and writes a sweep file for them that `sweeps plan` accepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_write
from files_and_text.numbers import number_range, parameters, plural
from files_and_text.problems import InputError, Problem
from lora_runner.base.load_model import BaseSpec
from search_spaces import Guidelines, commented_space_yaml, load_guidelines, space_for
from search_spaces.from_rows.learning_rates import LEARNING_RATE_LIMITS
from sweeps.config import SweepConfig
from sweeps.config.reference.json_schema import is_own_schema, schema_text
from sweeps.errors import ConfigError
from sweeps.init.choices import batch, max_length, max_steps
from sweeps.init.defaults import default_name
from sweeps.init.earlier_runs import EarlierRun, read_earlier_runs
from sweeps.init.facts import DataFacts, ModelFacts, data_facts, model_facts
from sweeps.init.file_text import SCHEMA_FILE, SetKey, file_text
from sweeps.init.rates_from_runs import OPEN, OTHER_MODEL, SAME_MODEL, TABLES, rate_override
from sweeps.init.wanted import Wanted, check_wanted, load_unwritten, sources_of
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.build_blueprint import build_blueprint

EARLIER = (
    " The learning rate follows earlier runs, named at `why`: its range holds where their best rates lie, "
    f"widened by a factor of {SAME_MODEL:g} on both sides (of another model's by {OTHER_MODEL:g}, and by "
    f"{OPEN:g} where the best may lie beyond what was tried), and the tables' own values by {TABLES:g}, so "
    f"that both can still be contradicted; also outside {number_range(*LEARNING_RATE_LIMITS)}, where ranges "
    "from the tables end. Like every range given here, it is not widened while the sweep runs. What they "
    "found is tried right after the guideline default."
)


@dataclass(frozen=True, kw_only=True)
class NewSweep:
    """A sweep file that was written, and what it was made from."""

    config: SweepConfig
    data: DataFacts
    blueprint: Blueprint
    """The sweep as `sweeps plan` reads it."""
    earlier: Sequence[EarlierRun] = ()

    def summary(self) -> list[str]:
        """What was found and set, in a few lines."""
        config, data = self.config, self.data
        held_out = "to evaluate on" if config.data.eval or data.eval_split else "of them held out"
        lines = [
            f"Data    {data.num_records:,} records ({data.format}), {data.num_held_out:,} {held_out}",
            f"Length  {config.data.max_length:,} tokens; the longest example has {data.lengths[-1]:,}",
            f"Budget  {config.trials} trials of {plural(config.training.max_steps or 0, 'step')}",
        ]
        lines += [f"From    {run.found}" for run in self.earlier]
        if self.earlier:
            given = config.space["learning_rate"]
            lines.append(
                f"Rates   {number_range(given['low'], given['high'])}, from earlier runs and the tables"
            )
            if cut := given["why"].partition(". Ends at ")[2]:
                lines.append(f"        ends at {cut}")
        if data.chat_template is not None:
            which = "chatml" if data.chat_template == "chatml" else "a plain one"
            lines.append(f"Chat    the tokenizer has no chat template: {which} is set")
        return [*lines, *(f"warning: {text}" for text in self.blueprint.data.warnings)]


def new_sweep(wanted: Wanted, tell: Callable[[str], None] = lambda _: None) -> NewSweep:
    """Write the file, and the JSON schema beside it. Relative paths start from the working directory.

    `tell` gets a line before what takes seconds. Raises ConfigError, ModelError or DataError; then nothing is
    written.
    """
    draft = check_wanted(wanted)
    earlier = read_earlier_runs(wanted.earlier_runs)
    tables = load_guidelines()
    base = BaseSpec(model=draft.model.name)
    tell("Reading the model's configuration and the data ...")
    model = model_facts(base)
    data = data_facts(draft.data, base)
    text = new_sweep_text(wanted, model, data, tables, earlier)
    config = load_unwritten(text, wanted)
    tell("Checking the sweep as `sweeps plan` does ...")
    blueprint = build_blueprint(config)
    _write(wanted, text)
    return NewSweep(config=config, data=data, blueprint=blueprint, earlier=earlier)


def new_sweep_text(
    wanted: Wanted,
    model: ModelFacts,
    data: DataFacts,
    tables: Guidelines,
    earlier: Sequence[EarlierRun] = (),
) -> str:
    """The file's text; `earlier` runs move the range of the learning rate."""
    length = max_length(data, model)
    size, accumulated = batch(data, int(length.value))
    examples = int(size.value * accumulated.value)
    steps = max_steps(data, examples, tables, wanted.scenario)
    num_steps = int(steps.value) if wanted.max_steps is None else wanted.max_steps
    overrides: dict[str, dict[str, Any]] = {}
    try:
        build = partial(
            space_for,
            scenario=wanted.scenario,
            model_size=model.size,
            max_steps=num_steps,
            train_embeddings=wanted.train_embeddings,
            guidelines=tables,
        )
        space = build()
        if earlier:
            overrides["learning_rate"] = rate_override(earlier, space["learning_rate"], model.name)
            space = build(overrides=overrides)
    except InputError as error:
        raise ConfigError(error.problems) from None
    sources = sources_of(wanted)
    values: dict[str, SetKey] = (
        {
            "name": SetKey(value=wanted.name or default_name(wanted.model, wanted.train)),
            "model.name": SetKey(value=sources["model"]),
            "model.size": SetKey(
                value=_short(model.size),
                reason=f"Here {parameters(model.size)}; the size decides which rows of the tables apply.",
            ),
            "data.train": SetKey(
                value=sources["data"]["train"],
                reason=f"Here {plural(data.num_records, 'record')} in format {data.format}.",
            ),
            "data.max_length": SetKey(value=length.value, reason=length.reason),
            "scenario": SetKey(value=wanted.scenario, reason=f"One of {', '.join(tables.scenarios())}."),
            "training.max_steps": SetKey(
                value=num_steps, reason=steps.reason if wanted.max_steps is None else "As asked."
            ),
            "training.per_device_train_batch_size": SetKey(value=size.value, reason=size.reason),
            "training.gradient_accumulation_steps": SetKey(value=accumulated.value),
            "training.per_device_eval_batch_size": SetKey(value=size.value),
            "train_embeddings": SetKey(value=wanted.train_embeddings),
            "trials": SetKey(value=wanted.trials or SweepConfig.model_fields["trials"].default),
        }
        | _evaluation(wanted, data, sources)
        | _template(data)
    )
    made_for = f"scenario {wanted.scenario}, {parameters(model.size)} parameters and {num_steps:,} steps"
    return file_text(
        values,
        title=f"A sweep of {Path(wanted.model).name} on {Path(wanted.train).name}, made by `sweeps init`.",
        space=commented_space_yaml(space, tables, given=overrides),
        space_reason=(
            f"What is searched: the guideline tables' ranges for {made_for}, widened. They do not follow "
            "later changes of these; remove a dimension, or the block, and the tables decide again."
            + (EARLIER if earlier else "")
        ),
        schema=_may_write_schema(wanted.path),
    )  # fmt: skip


def _evaluation(wanted: Wanted, data: DataFacts, sources: dict[str, Any]) -> dict[str, SetKey]:
    if wanted.eval is not None:
        return {"data.eval": SetKey(value=sources["data"]["eval"])}
    if data.eval_split is not None:
        reason = "The training source has it, so nothing is held out."
        return {"data.eval_split": SetKey(value=data.eval_split, reason=reason)}
    held_out = f"{data.num_held_out:,} of {plural(data.num_records, 'record')} are held out."
    return {"data.eval_fraction": SetKey(value=data.eval_fraction, reason=held_out)}


def _template(data: DataFacts) -> dict[str, SetKey]:
    if data.chat_template is None:
        return {}
    which = "ChatML, whose tokens it knows" if data.chat_template == "chatml" else "a plain one"
    ends = f" Answers end with {data.stop_token}." if data.stop_token else ""
    reason = f"Conversations need one and this tokenizer has none, so {which} is set.{ends}"
    return {"data.chat_template": SetKey(value=data.chat_template, reason=reason)}


def _may_write_schema(path: Path) -> bool:
    file = path.parent / SCHEMA_FILE
    return not file.exists() or is_own_schema(file)


def _write(wanted: Wanted, text: str) -> None:
    try:
        if _may_write_schema(wanted.path):
            atomic_write(wanted.path.parent / SCHEMA_FILE, schema_text())
        if wanted.overwrite:
            atomic_write(wanted.path.resolve(), text)
        else:
            with wanted.path.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        rule = f"the file cannot be written: {error.strerror}."
        raise ConfigError([Problem(rule, str(wanted.path))]) from None


def _short(size: float) -> float | str:
    """8.03e9 as 8.03e+09 rather than 8030000000.0, if that is exact."""
    return int(size) if size == int(size) else size
