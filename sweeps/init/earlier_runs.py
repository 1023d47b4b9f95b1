"""What earlier sweeps found about the learning rate: where their curves are lowest. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from files_and_text.nearest_name import nearest
from files_and_text.numbers import number, number_range, plural
from files_and_text.problems import Problem
from sweeps.config import RESOLVED_NAME, SweepConfig, load_sweep, storage_url
from sweeps.errors import ConfigError, SweepError

if TYPE_CHECKING:
    from results.curve_model.best_rate import BestRate
    from search_spaces.dimension import Value

Trials = frozenset[tuple[object, ...]]
"""What tells a run's finished trials from those of any other run."""
TOLERANCE = 1e-6
"""Relative, between a rate and its logarithm's power."""


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """A run folder, and the learning rates that its trials leave as the best."""

    folder: str
    """As it was named."""
    model: str
    num_finished: int
    rate: float
    """The best by the curve; of too few rates the best trial's."""
    low: float
    high: float
    """Where the best rate lies, with 5% beyond each end; equal to `rate` where there is no curve."""
    open_below: bool = False
    open_above: bool = False
    """Whether the best may lie beyond what was tried. Not above where a higher rate diverged, or nearly."""
    same: tuple[str, ...] = ()
    """The other folders that were named and hold this run's trials, or some of them; this one may recur."""

    @property
    def found(self) -> str:
        """`runs/demo: best learning rate 3e-4 (2e-4 to 5e-4 or above, 12 finished trials)`."""
        parts = [plural(self.num_finished, "finished trial")]
        if self.low < self.high:
            sides = " or below" * self.open_below + " or above" * self.open_above
            parts.insert(0, number_range(_short(self.low), _short(self.high)) + sides)
        best = f"{self.folder}: best learning rate {number(_short(self.rate))} ({', '.join(parts)})"
        if not self.same:
            return best
        others = [folder for folder in dict.fromkeys(self.same) if folder != self.folder]
        what = f"the same run as {' and '.join(others)}" if others else "named more than once"
        return f"{best}, {what}, counted once"


def read_earlier_runs(folders: Sequence[Path]) -> list[EarlierRun]:
    """Read run folders, also of sweeps that still run; a run and its copies count once.

    Raises ConfigError with every problem.
    """
    found, problems = [], []
    for folder in folders:
        try:
            found.append(_read(folder))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return _counted_once(found)


def _counted_once(found: Sequence[tuple[EarlierRun, Trials]]) -> list[EarlierRun]:
    """The runs whose trials no other holds as well, the first of equal ones."""
    same: dict[int, list[str]] = {}
    for run, trials in found:
        holders = [place for place, (_, others) in enumerate(found) if trials <= others]
        largest = max(holders, key=lambda place: len(found[place][1]))
        same.setdefault(largest, []).append(run.folder)
    kept = []
    for place, (run, _) in enumerate(found):
        if folders := same.get(place):
            folders.remove(run.folder)
            kept.append(replace(run, same=tuple(folders)))
    return kept


def _read(folder: Path) -> tuple[EarlierRun, Trials]:
    from results.sweep_result import read_study
    from sweeps.study.study import started_study

    config = _config(folder)
    try:
        sweep = read_study(started_study(storage_url(config.storage, config.run_folder), config.name))
    except SweepError as error:
        raise ConfigError([Problem(f"--from takes runs with trials: {error}", str(folder))]) from None
    runs = [
        (trial.values, trial.eval_loss)
        for trial in sweep.finished
        if trial.eval_loss is not None and "learning_rate" in trial.values
    ]
    if not runs:
        rule = (
            f"--from needs a finished trial; this run has {plural(len(sweep.trials), 'trial')}, none finished"
        )
        raise ConfigError([Problem(f"{rule} at its full budget.", str(folder))])
    diverged = [
        float(trial.values["learning_rate"])
        for trial in sweep.trials
        if trial.outcome == "diverged" and "learning_rate" in trial.values
    ]
    trials = frozenset((trial.number, trial.started, trial.eval_loss) for trial in sweep.finished)
    shared = {"folder": str(folder), "model": config.model.name, "num_finished": len(runs)}
    curve = best_of(runs, diverged)
    if curve is None:
        best = float(runs[0][0]["learning_rate"])
        return EarlierRun(**shared, rate=best, low=best, high=best), trials  # type: ignore[arg-type]
    return EarlierRun(**shared, **asdict(curve)), trials  # type: ignore[arg-type]


def best_of(
    runs: Sequence[tuple[Mapping[str, Value], float]], diverged: Sequence[float] = ()
) -> BestRate | None:
    """The best rate of finished (values, loss), the best first, up to the highest not near divergence.

    A higher one that was, or one of `diverged`, is too high: then the best is not said to lie above. None
    where no curve can be fitted: too few rates, or losses that are not above 0.
    """
    from results.curve_model.best_rate import best_rate
    from results.curve_model.hyperparameters import fitted
    from results.curve_model.points import LEAST_RATES, USUAL_RANK, num_rates, points_of
    from results.curve_model.posterior import CurvePosterior

    if min(loss for _, loss in runs) <= 0:
        return None
    points = points_of(runs)
    kept = [float(rate) for rate in 10**points.rate]
    if num_rates(kept) < LEAST_RATES:
        return None
    rank = float(runs[0][0].get("lora_r") or USUAL_RANK)
    found = best_rate(CurvePosterior(fitted(), points), min(kept), max(kept), rank=rank)
    tried = [*diverged, *(float(values["learning_rate"]) for values, _ in runs)]
    is_bounded = max(tried) > max(kept) * (1 + TOLERANCE)
    return replace(found, open_above=found.open_above and not is_bounded)


def _config(folder: Path) -> SweepConfig:
    if not (folder / RESOLVED_NAME).is_file():
        siblings = folder.parent.iterdir() if folder.parent.is_dir() else ()
        runs = [str(run) for run in siblings if (run / RESOLVED_NAME).is_file()]
        rule = f"--from takes the folder of a run, such as runs/NAME.{nearest(str(folder), runs)}"
        raise ConfigError([Problem(rule, str(folder))])
    # Refuses another method than qlora, whose rates are of another size.
    return load_sweep(folder, environ={}, check_files=False)


def _short(rate: float) -> float:
    return float(f"{rate:.2g}")
