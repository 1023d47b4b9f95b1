"""What a sweep answers, in numbers and codes; `results.text` makes sentences of it, once for every place.

One convention for a gap: what a configuration costs against the best, so loss minus the best's loss, in nats
per token and in percent of the best's loss. Once the best has been run again on new seeds, every loss and gap
here is that of the seeds, with its interval, and no longer that of the sweep's single runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from results.comparison.records import RecordComparison
from results.effects.untried_side import Side
from results.words.words import Word
from search_spaces.dimension import Value

Sure = Literal[
    "one_run",  # one run per configuration
    "too_few_seeds",  # run again, but on too few seeds for an interval
    "default_costs",  # the guideline default costs more than the margin
    "default_loses_runs",  # runs of the guideline default end early, and those of the best do not
    "best_loses_runs",  # no run of the best on a new seed has finished
    "no_difference",  # the guideline default costs no more than the margin, either way
    "open",  # the interval does not decide yet
    "default_better",  # on the new seeds the guideline default is better by more than the margin
    "default_is_best",  # the sweep's best is the guideline default itself
    "default_unknown",  # run again, without a guideline default to compare with
    "not_by_metric",  # the best by the metric was run again, the default compared with the best by loss
    "best_changed",  # what was run again is not the best any more
    "no_best",  # no trial has finished
]
"""How sure it is that the best is better than the guideline default."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The evaluation loss of one configuration, nats per token."""

    value: float
    """Of one run, or the mean over `seeds`."""
    low: float | None = None
    high: float | None = None
    """Ends of the 95% interval of the mean; None with fewer than 3 seeds."""
    seeds: int = 0
    """Seeds of the confirmation that it is the mean of; 0: the sweep's own single run."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What a configuration costs: its loss minus the best's. Negative where it is better than the best."""

    nats: float
    percent: float | None
    """Of the best's loss; None where that is not above 0."""
    low: float | None = None
    high: float | None = None
    """Ends of the interval in nats, paired by seed; None for single runs and below 3 seeds."""
    low_percent: float | None = None
    high_percent: float | None = None
    contradicted: bool = False
    """Whether later seeds contradict the interval, which stands nevertheless."""
    seeds: int = 0
    """Common seeds; 0: one run of each."""
    trial: int | None = None
    """Of single runs: the trial that costs this, where it was taken for a value of the tables."""
    in_model: int = 0
    """Finished trials of the model that says what the value costs by itself (95% interval); 0 for runs."""
    differs_in: tuple[str, ...] = ()
    """Other searched hyperparameters in which the two differ: they share the gap."""


def single_gap(loss: float | None, best: float | None) -> Gap | None:
    """What one run costs against the best; None where one of the two has no loss."""
    if loss is None or best is None:
        return None
    return Gap(nats=loss - best, percent=100 * (loss - best) / best if best > 0 else None)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A configuration beside the best: the guideline default, or the untouched base."""

    trial: int | None = None
    """Its number in the sweep; None for the base and for a default that was not tried."""
    outcome: str = "complete"
    """complete, also where only its runs on new seeds finished | not_tried | not_measured |
    no_seed_finished | the outcome of a trial that did not finish."""
    reason: str = ""
    """Why a trial did not finish."""
    values: Mapping[str, Value]
    settings: Mapping[str, Value] = field(default_factory=dict)
    """Those that were searched, as in `BestConfig`."""
    has_no_warmup: bool = False
    loss: Loss | None = None
    lost_runs: int = 0
    """Runs on new seeds that did not finish."""
    gap: Gap | None = None
    metric: float | None = None


@dataclass(frozen=True, kw_only=True)
class MergedBest:
    """The best adapter merged into its base by `sweeps merge`."""

    dtype: str
    loss: float
    """Nats per token, of the sweep's own run merged."""
    folder: str
    """Where it was written; relative to the run folder where it lies in it."""
    gap: Gap | None
    """Against the adapter on the sweep's base; None once the best's loss is that of seeds, which were not
    merged."""


@dataclass(frozen=True, kw_only=True)
class BestConfig:
    """The configuration to use."""

    trial: int
    values: Mapping[str, Value]
    """Every hyperparameter of the trial, derived ones too."""
    settings: Mapping[str, Value]
    """Those that were searched, with what follows from them, in the order of `PARAMETER_ORDER`."""
    has_no_warmup: bool
    """Whether warmup was searched and the best scheduler has none."""
    loss: Loss
    lost_runs: int = 0
    """Runs on new seeds that did not finish."""
    metric: float | None = None


@dataclass(frozen=True, kw_only=True)
class TableValue:
    """A value or range that one or more guideline rows give for the same hyperparameter."""

    parameter: str
    text: str
    """`2e-4`, `0.03 to 0.1`, `linear or constant`; with `too high` behind it in a warning."""
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    is_warning: bool
    """Whether the rows warn of the value instead of recommending it."""
    is_default: bool
    """Whether it is the guideline default's own value."""
    rows: tuple[str, ...]
    """Ids of the rows that say it."""
    position: str
    """Where the best lies: inside | below | above | outside; not_tested where the best has no such value."""
    ratio: float | None
    """The best's value divided by the nearest end; None inside, for names, and beside zero."""
    cost: Gap | None
    """What the value costs; None where nothing measured it."""
    word: Word


@dataclass(frozen=True, kw_only=True)
class ParameterAnswer:
    """One hyperparameter: the best value here, and what the tables say."""

    parameter: str
    best: Value | None
    """None where the best trial does not use it."""
    unused_beside: str
    """Why the best does not use it: the name of its scheduler; "" where it does."""
    tables: Sequence[TableValue]
    """The guideline default's own value first, then by number of rows."""
    edge: str
    """low | high: the best lies at that end of what was searched."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One prompt of the evaluation set, and what was written for it: greedy, up to its first few tokens."""

    prompt: str
    """Of a long one the end."""
    reference: str
    """The example's own answer; of a long one the beginning."""
    base: str
    default: str | None
    """None where the guideline default did not finish, or is the best."""
    best: str | None
    """None where no trial has finished."""


@dataclass(frozen=True, kw_only=True)
class NextCommand:
    """A command that makes sense now, ready to be copied."""

    command: str
    why: str
    """confirm | confirm_two (without a guideline default) | confirm_rows | continue | export | report."""
    seconds: float | None = None
    """About how long it takes, from this sweep's own trials; None where it is not known or takes no time."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """How the sweep was run, as far as its study tells."""

    run_folder: str
    """As on the command line."""
    finished: int
    target: int | None
    """Trials that the sweep asks for; None when not known."""
    outcomes: Mapping[str, int]
    """Outcome -> number of trials, `running` and `waiting` included."""
    is_unfinished: bool
    seconds: float | None
    """Time in which trials ran."""
    devices: tuple[str, ...]
    tokens_per_second: float | None
    """Over all seats, while trials ran."""
    trial_seconds: float | None
    """Median of the trials that used their full budget."""
    seats: int
    """Trials that ran side by side, over all workers."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of one sweep, finished or not."""

    sweep: str
    run: RunFacts
    best: BestConfig | None
    """None while no trial has finished its full budget with a finite loss."""
    default: Compared
    base: Compared
    unquantized_base: Compared | None = None
    """The base without quantization; None where the sweep did not measure it, or has no quantization."""
    merged: MergedBest | None = None
    """None where the best was not merged, or not measured then."""
    sure: Sure
    untried: Side = ""
    """higher | lower: nothing with such a mean rate over the run was tried beyond the best's; "" where both
    were, and while the sweep is not finished."""
    mean_rate: float | None = None
    """The best's mean learning rate over the run, schedule and warmup included."""
    seeds: int
    """Seeds on which the best was run again; 0 before `confirm`, and when the best has changed since."""
    margin: float
    """Share of the best's loss below which a difference does not matter."""
    metric: str | None
    """Name of the sweep's metric beside the loss."""
    is_by_metric: bool
    """Whether the sweep searched by the metric: the best is the best by it."""
    parameters: Sequence[ParameterAnswer]
    """Those that guideline rows speak of and the sweep tested, in the order of `PARAMETER_ORDER`."""
    over_records: RecordComparison | None = None
    """What the guideline default costs over other evaluation records; None where runs kept no losses of
    single records."""
    samples: Sequence[Sample] = ()
    """Empty where the sweep samples no text, and in studies that do not hold the prompts."""
    next: Sequence[NextCommand]
    """The most useful first."""
    rows_alone: NextCommand | None = None
    """What runs the tables' values one by one on new seeds; None before the best was run again."""

    @property
    def uses_default(self) -> bool:
        """Whether the guideline default, and not the sweep's best, is what to use after the new seeds."""
        if self.is_by_metric or self.default.loss is None:
            return False
        finished = bool(self.default.loss.seeds) and not self.default.lost_runs
        return self.sure == "default_better" or (self.sure == "best_loses_runs" and finished)
