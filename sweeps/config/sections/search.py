"""How the space is explored: samplers and pruners by their Optuna names, and what each lets a user set."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from search_spaces import DEFAULT_WIDEN, ON_REQUEST
from sweeps.config.fields import (
    Check,
    Finding,
    all_wrong,
    check_flag,
    check_list_of,
    check_mapping,
    check_one_of,
    check_real,
    check_whole,
    findings_of,
    shown,
    wrong,
)
from sweeps.config.sections.base import Section

SamplerName = Literal["tpe", "random", "gp", "cmaes", "grid"]
PrunerName = Literal["successive_halving", "hyperband", "median", "none"]

SAMPLER_CLASSES = {
    "TPESampler": "tpe",
    "RandomSampler": "random",
    "GPSampler": "gp",
    "CmaEsSampler": "cmaes",
    "GridSampler": "grid",
}
PRUNER_CLASSES = {
    "SuccessiveHalvingPruner": "successive_halving",
    "HyperbandPruner": "hyperband",
    "MedianPruner": "median",
    "NopPruner": "none",
}


_WIDEN: dict[str, Check] = {name: check_real(1) for name in DEFAULT_WIDEN}


def _resource(value: Any) -> Any:
    return value if value == "auto" else check_whole(1, 100)(value)


# Optuna's own argument names. Left out: the seed and the start-up trials, which have keys of their own, and
# what Optuna 5 deprecates or takes only as a Python object.
SAMPLER_OPTIONS: dict[str, dict[str, Check]] = {
    "tpe": {
        "n_ei_candidates": check_whole(1),
        "multivariate": check_flag(),
        "group": check_flag(),
        "constant_liar": check_flag(),
    },
    "random": {},
    "gp": {"deterministic_objective": check_flag()},
    "cmaes": {
        "popsize": check_whole(2),
        "consider_pruned_trials": check_flag(),
        "use_separable_cma": check_flag(),
        "with_margin": check_flag(),
        "lr_adapt": check_flag(),
    },
    "grid": {"points_per_dimension": check_whole(1)},
}
# A pruner's "resource" and "step" are percents of a trial's budget, because that is what trials report.
PRUNER_OPTIONS: dict[str, dict[str, Check]] = {
    "successive_halving": {
        "min_resource": _resource,
        "reduction_factor": check_whole(2),
        "min_early_stopping_rate": check_whole(0),
        "bootstrap_count": check_whole(0),
    },
    "hyperband": {
        "min_resource": check_whole(1, 100),
        "max_resource": _resource,
        "reduction_factor": check_whole(2),
        "bootstrap_count": check_whole(0),
    },
    "median": {
        "n_startup_trials": check_whole(0),
        "n_warmup_steps": check_whole(0, 100),
        "interval_steps": check_whole(1, 100),
        "n_min_trials": check_whole(1),
    },
    "none": {},
}


class SearchSection(Section):
    """`search`: which sampler draws trials, which pruner ends them early, and from what."""

    sampler: Annotated[
        SamplerName, BeforeValidator(check_one_of(get_args(SamplerName), aliases=SAMPLER_CLASSES))
    ] = "tpe"
    """tpe, random, gp, cmaes or grid (or Optuna's class name)."""
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the sampler, by Optuna's names; `points_per_dimension` for the grid."""
    pruner: Annotated[
        PrunerName, BeforeValidator(check_one_of(get_args(PrunerName), aliases=PRUNER_CLASSES))
    ] = "successive_halving"
    """successive_halving, hyperband, median or none (or Optuna's class name)."""
    pruner_options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the pruner, by Optuna's names; resources and steps are percents of a trial's budget."""
    seed: Annotated[int, BeforeValidator(check_whole(0, 2**32 - 1))] = 0
    """Of the sampler; a trial's own seed is `training.seed`."""
    startup_trials: Annotated[int | None, BeforeValidator(check_whole(0, none=True))] = None
    """Finished trials that the sampler waits for before it models anything; null: its own number.

    Random search and the grid have no such phase."""
    include: Annotated[
        tuple[str, ...], BeforeValidator(check_list_of(check_one_of(ON_REQUEST), what="dimension names"))
    ] = ()
    """Dimensions searched on request beside the tables' own, such as lora_r."""
    widen: Annotated[dict[str, float], BeforeValidator(check_mapping(_WIDEN, what="widen"))] = Field(
        default_factory=dict
    )
    """Factors, by dimension, by which guideline ranges are widened on both sides; else the space's own."""
    timeout_seconds: Annotated[float | None, BeforeValidator(check_real(above=0, none=True))] = None
    """No new trial starts after this time; null: no limit."""

    @model_validator(mode="before")
    @classmethod
    def _options_fit(cls, data: Any) -> Any:
        """Check the options against the sampler and pruner that are named beside them."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        found: list[Finding] = []
        kinds = (
            ("sampler", SAMPLER_CLASSES, SAMPLER_OPTIONS),
            ("pruner", PRUNER_CLASSES, PRUNER_OPTIONS),
        )
        for kind, classes, options in kinds:
            given = data.get(kind, cls.model_fields[kind].default)
            name = classes.get(given, given) if isinstance(given, str) else None
            key = f"{kind}_options"
            if name in options and key in data:
                try:
                    data[key] = check_mapping(options[name], what=f"the {name} {kind}")(data[key])
                except PydanticCustomError as error:
                    found += [((key, *deeper), said) for deeper, said in findings_of(error)]
        if found:
            raise all_wrong(found, involves=("sampler", "pruner"))
        return data

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        bootstrap = self.pruner_options.get("bootstrap_count", 0)
        resource = {"successive_halving": "min_resource", "hyperband": "max_resource"}.get(self.pruner)
        if bootstrap and resource and self.pruner_options.get(resource, "auto") == "auto":
            raise wrong(
                f"works only with a number for {resource}, which is 'auto'; got {shown(bootstrap)}",
                "pruner_options",
                "bootstrap_count",
                involves=("pruner",),
            )
        if self.sampler_options.get("group") and not self.sampler_options.get("multivariate"):
            rule = "works only together with multivariate: true; got true"
            raise wrong(rule, "sampler_options", "group", involves=("sampler",))
        return self
