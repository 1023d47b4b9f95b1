"""`search`: the sampler and the pruner by their Optuna names, and the options of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from search_spaces import DEFAULT_WIDEN, ON_REQUEST
from sweeps.config.field_types import (
    NUMBER,
    AtLeastOne,
    Flag,
    NonNegativeInt,
    Percent,
    PositiveFloat,
    PositiveInt,
    Seed,
    mapping_of,
    one_of,
)
from sweeps.config.sections.base import Section
from sweeps.config.validation import refusal

SamplerName = Literal["tpe", "random", "gp", "cmaes", "grid", "curve_gp"]
PrunerName = Literal["successive_halving", "hyperband", "median", "none", "freeze_thaw"]

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

_AtLeastTwo = Annotated[int, Field(ge=2), NUMBER]
_Resource = Literal["auto"] | Percent

# Optuna's own argument names. Left out: the seed and the start-up trials, which have keys of their own, and
# what Optuna 5 deprecates or takes only as a Python object.
SAMPLER_OPTIONS: dict[str, dict[str, Any]] = {
    "tpe": {"n_ei_candidates": PositiveInt, "multivariate": Flag, "group": Flag, "constant_liar": Flag},
    "random": {},
    "gp": {"deterministic_objective": Flag},
    "cmaes": {
        "popsize": _AtLeastTwo,
        "consider_pruned_trials": Flag,
        "use_separable_cma": Flag,
        "with_margin": Flag,
        "lr_adapt": Flag,
    },
    "grid": {"points_per_dimension": PositiveInt},
    "curve_gp": {},
}
# A pruner's "resource" and "step" are percents of a trial's budget, because that is what trials report.
PRUNER_OPTIONS: dict[str, dict[str, Any]] = {
    "successive_halving": {
        "min_resource": _Resource,
        "reduction_factor": _AtLeastTwo,
        "min_early_stopping_rate": NonNegativeInt,
        "bootstrap_count": NonNegativeInt,
    },
    "hyperband": {
        "min_resource": Percent,
        "max_resource": _Resource,
        "reduction_factor": _AtLeastTwo,
        "bootstrap_count": NonNegativeInt,
    },
    "median": {
        "n_startup_trials": NonNegativeInt,
        "n_warmup_steps": Annotated[int, Field(ge=0, le=100), NUMBER],
        "interval_steps": Percent,
        "n_min_trials": PositiveInt,
    },
    "none": {},
    "freeze_thaw": {"min_resource": Percent},
}


def _group_needs_multivariate(options: dict[str, Any]) -> dict[str, Any]:
    if options.get("group") and not options.get("multivariate"):
        raise refusal([(("group",), "works only together with multivariate: true; got true")])
    return options


def _bootstrap_needs(resource: str) -> AfterValidator:
    def check(options: dict[str, Any]) -> dict[str, Any]:
        if options.get("bootstrap_count") and options.get(resource, "auto") == "auto":
            message = (
                f"works only with a number for {resource}, which is 'auto'; got {options['bootstrap_count']}"
            )
            raise refusal([(("bootstrap_count",), message)])
        return options

    return AfterValidator(check)


_RULES = {
    "tpe": AfterValidator(_group_needs_multivariate),
    "successive_halving": _bootstrap_needs("min_resource"),
    "hyperband": _bootstrap_needs("max_resource"),
}
_CHECK_OPTIONS: dict[str, Callable[[Any], Any]] = {
    name: mapping_of(f"the {name} {kind}", options, _RULES.get(name))
    for kind, table in (("sampler", SAMPLER_OPTIONS), ("pruner", PRUNER_OPTIONS))
    for name, options in table.items()
}


class SearchSection(Section):
    """Which sampler proposes trials, which pruner stops them early, and how far ranges are widened."""

    sampler: Annotated[SamplerName, one_of(get_args(SamplerName), SAMPLER_CLASSES)] = "tpe"
    """tpe, random, gp, cmaes or grid (or Optuna's class name), or curve_gp: a Gaussian process over the
    reports of all trials, also of running and pruned ones."""
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the sampler, by Optuna's names; `points_per_dimension` for the grid."""
    pruner: Annotated[PrunerName, one_of(get_args(PrunerName), PRUNER_CLASSES)] = "successive_halving"
    """successive_halving, hyperband, median or none (or Optuna's class name); with curve_gp also freeze_thaw,
    which is its default: trials that fall behind keep their checkpoint and are taken up again when they may
    win."""
    pruner_options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the pruner, by Optuna's names; resources and steps are percents of a trial's budget."""
    seed: Seed = 0
    """Seed of the sampler; a trial's own seed is `training.seed`."""
    startup_trials: NonNegativeInt | None = None
    """Trials that must finish before the sampler models anything; null: its own number. Random search and the
    grid have no such phase."""
    include: Annotated[tuple[Annotated[str, one_of(ON_REQUEST)], ...], Field(title="dimension names")] = ()
    """Dimensions that are searched only on request, such as lora_r."""
    widen: Annotated[
        dict[str, float], BeforeValidator(mapping_of("widen", dict.fromkeys(DEFAULT_WIDEN, AtLeastOne)))
    ] = Field(default_factory=dict)
    """Factors, by dimension, by which guideline ranges are widened on both sides; the space has defaults."""
    tail_replicates: Flag | None = None
    """Whether the guideline default and the leading trial run again on new seeds in seats that are idle while
    the last trials end: the sweep then ends with a first interval; null: on a GPU, where such a seat costs
    no time."""
    widen_edges: Flag = True
    """When the best rate lies at an end of its range, search beyond it, once for each end, but never beyond
    an end that `space` gives; when nothing was tried on one side of it, try that. false: neither. Random
    search and a grid do neither."""
    timeout_seconds: PositiveFloat | None = None
    """After this time no new trial starts; null: no limit."""

    @model_validator(mode="before")
    @classmethod
    def _pruner_of_sampler(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("sampler") == "curve_gp" and "pruner" not in data:
            return {**data, "pruner": "freeze_thaw"}
        return data

    @field_validator("pruner")
    @classmethod
    def _pruner_fits(cls, pruner: str, info: ValidationInfo) -> str:
        if pruner == "freeze_thaw" and (sampler := info.data.get("sampler", "curve_gp")) != "curve_gp":
            raise ValueError(f"freeze_thaw works only with the sampler curve_gp; got {sampler!r}")
        return pruner

    @field_validator("sampler_options", "pruner_options", mode="before")
    @classmethod
    def _options_fit(cls, options: Any, info: ValidationInfo) -> Any:
        name = info.data.get(str(info.field_name).removesuffix("_options"))
        # Of a name that is wrong itself, nothing is known about its options.
        return options if name is None else _CHECK_OPTIONS[name](options)
