"""What a sweep file accepts is what the libraries and the other packages accept."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from typing import Any

import optuna
import pytest
import transformers

from files_and_text.choices import SCHEDULERS
from lora_runner.config import TrialConfig
from lora_runner.data_spec import DataSpec
from lora_runner.errors import DataError
from sweeps.config.sections.data import DataSection
from sweeps.config.sections.search import (
    PRUNER_CLASSES,
    PRUNER_OPTIONS,
    SAMPLER_CLASSES,
    SAMPLER_OPTIONS,
    SearchSection,
)
from sweeps.config.sections.training import SCHEDULER_OPTIONS, TrainingSection


def test_the_data_section_is_the_data_spec() -> None:
    assert DataSection.model_validate("x").model_dump() == dataclasses.asdict(DataSpec(train="x"))
    for field in dataclasses.fields(DataSpec):
        for bound, limit in field.metadata.items():
            outside = {"ge": limit - 1, "gt": limit, "le": limit + 1, "lt": limit}[bound]
            with pytest.raises(ValueError, match=field.name):
                DataSection.model_validate({"train": "x", field.name: outside})
            with pytest.raises(DataError, match=field.name):
                DataSpec(train="x", **{field.name: outside})


def test_the_training_section_has_the_trials_own_defaults() -> None:
    section = TrainingSection(max_steps=1).model_dump()
    fields = {field.name: field for field in dataclasses.fields(TrialConfig)}
    shared = {name for name in section if name in fields and fields[name].default is not dataclasses.MISSING}
    assert len(shared) >= 8
    assert {name: section[name] for name in shared} == {name: fields[name].default for name in shared}


def test_every_schedule_of_the_space_has_its_options() -> None:
    assert set(SCHEDULER_OPTIONS) == set(SCHEDULERS)


@pytest.mark.parametrize("name", sorted(SCHEDULER_OPTIONS))
def test_schedule_options_are_arguments_of_transformers(name: str) -> None:
    function = transformers.optimization.TYPE_TO_SCHEDULER_FUNCTION[transformers.SchedulerType(name)]
    assert set(SCHEDULER_OPTIONS[name]) <= set(inspect.signature(function).parameters)


# A value that each option takes, where 3 is not one.
VALUES: dict[str, Any] = {
    "group": False,
    "multivariate": True,
    "constant_liar": True,
    "deterministic_objective": True,
    "consider_pruned_trials": True,
    "use_separable_cma": False,
    "with_margin": True,
    "lr_adapt": False,
}


@pytest.mark.parametrize(("class_name", "name"), [*SAMPLER_CLASSES.items(), *PRUNER_CLASSES.items()])
def test_options_are_arguments_of_optuna(class_name: str, name: str) -> None:
    kind, module = (
        ("sampler", optuna.samplers) if class_name in SAMPLER_CLASSES else ("pruner", optuna.pruners)
    )
    options = {"sampler": SAMPLER_OPTIONS, "pruner": PRUNER_OPTIONS}[kind][name]
    given = {option: VALUES.get(option, 3) for option in options}
    section = SearchSection.model_validate({kind: class_name, f"{kind}_options": given})
    kept = section.sampler_options if kind == "sampler" else section.pruner_options
    assert kept == given
    if name == "grid":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        getattr(module, class_name)(**given)


def test_options_that_the_defaults_of_optuna_refuse_together_are_refused() -> None:
    for pruner in ("successive_halving", "hyperband"):
        with pytest.raises(ValueError, match="works only with a number"):
            SearchSection.model_validate({"pruner": pruner, "pruner_options": {"bootstrap_count": 1}})
