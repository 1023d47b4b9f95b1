"""Optuna's pruners by the names of a sweep file, and a successive halving for whole packs."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna import pruners
from optuna.trial import FrozenTrial, TrialState

from results.stored_trials import is_replicate
from search_spaces import SearchSpace
from sweeps.study.curve_gp.pruner import FreezeThaw
from sweeps.study.edges.widening import present_space
from sweeps.study.pruning.rungs import default_rung


class SuccessiveHalving(pruners.SuccessiveHalvingPruner):
    """Successive halving that compares a trial with all reports at a rung.

    Optuna's own compares it only with trials that it has decided on before. In a pack, whose trials report
    together, the first seat would always continue, and a trial exempt from pruning would not be compared.
    """

    def __init__(
        self,
        min_resource: int | str = "auto",
        reduction_factor: int = 4,
        min_early_stopping_rate: int = 0,
        bootstrap_count: int = 0,
    ) -> None:
        super().__init__(
            min_resource, reduction_factor, min_early_stopping_rate, bootstrap_count
        )  # checks the arguments
        self.min_resource = min_resource
        self.reduction_factor = reduction_factor
        self.min_early_stopping_rate = min_early_stopping_rate
        self.bootstrap_count = bootstrap_count
        self._forget(None)

    def _forget(self, study: optuna.Study | None) -> None:
        self._study = study
        self._num_known = 0
        self._unfinished: set[int] = set()
        """Numbers below `_num_known` of trials whose values may still change."""
        self._ended: dict[int, list[float]] = {}
        """Rung -> sorted reports there of ended trials, so that each is read once and not at every report."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the last report is the first at a rung and not among its best 1 / reduction_factor."""
        step = trial.last_step
        if step is None:
            return False
        trials = study.get_trials(deepcopy=False)
        self._update(study, trials, trial.number)
        before = max((earlier for earlier in trial.intermediate_values if earlier < step), default=0)
        for rung in self._rungs(trials, step):
            if rung <= before:
                continue
            value = trial.intermediate_values[step]
            ended = self._ended_at(rung, trials)
            others = [trials[number] for number in self._unfinished if number != trial.number]
            unfinished = list(self._values_at(rung, others))
            num_compared = len(ended) + len(unfinished) + 1
            last = max(0, num_compared // self.reduction_factor - 1)
            better = bisect.bisect_left(ended, _or_inf(value)) + sum(v < value for v in unfinished)
            if num_compared <= self.bootstrap_count or math.isnan(value) or better > last:
                return True
        return False

    def _update(self, study: optuna.Study, trials: Sequence[FrozenTrial], number: int) -> None:
        """Add the trials that have ended since the last call, except `number`, the one to decide on."""
        if study is not self._study or (number < self._num_known and number not in self._unfinished):
            self._forget(study)
        self._unfinished.update(range(self._num_known, len(trials)))
        self._num_known = len(trials)
        ended = [trials[n] for n in self._unfinished if trials[n].state.is_finished() and n != number]
        self._unfinished.difference_update(trial.number for trial in ended)
        for rung, values in self._ended.items():
            for value in self._values_at(rung, ended):
                bisect.insort(values, value)

    def _ended_at(self, rung: int, trials: Sequence[FrozenTrial]) -> list[float]:
        if rung not in self._ended:
            ended = (trial for trial in trials if trial.number not in self._unfinished)
            self._ended[rung] = sorted(self._values_at(rung, ended))
        return self._ended[rung]

    def _rungs(self, trials: Iterable[FrozenTrial], step: int) -> Iterator[int]:
        """The rungs up to `step`."""
        first = self.min_resource
        if not isinstance(first, int):
            # As in Optuna: a hundredth of a full budget, once there is one.
            full = [t.last_step for t in trials if t.state == TrialState.COMPLETE and t.last_step is not None]
            if not full:
                return
            first = max(1, max(full) // 100)
        rung = first * self.reduction_factor**self.min_early_stopping_rate
        while rung <= step:
            yield rung
            rung *= self.reduction_factor

    def _values_at(self, rung: int, trials: Iterable[FrozenTrial]) -> Iterator[float]:
        """Each trial's first report between this rung and the next.

        A trial recovered from disk may have its final report alone, which is not compared at 20%.
        """
        for trial in trials:
            if is_replicate(trial):
                continue
            step = min((step for step in trial.intermediate_values if step >= rung), default=None)
            if step is not None and step < rung * self.reduction_factor:
                yield _or_inf(trial.intermediate_values[step])


def _or_inf(value: float) -> float:
    return math.inf if math.isnan(value) else value


def make_pruner(
    search: Mapping[str, Any], report_at: Sequence[int], earliest: int, space: SearchSpace
) -> pruners.BasePruner:
    """The pruner that the sweep file names; its resource is whole percents of a trial's budget.

    Its first rung is the first report from percent `earliest` on (`rungs.py`), unless the file sets another.
    """
    options = dict(search["pruner_options"])
    first = default_rung(report_at, earliest)
    match search["pruner"]:
        case "successive_halving":
            defaults = {"min_resource": first, "reduction_factor": 2}
            return SuccessiveHalving(**{**defaults, **options})
        case "hyperband":
            defaults = {"min_resource": first, "max_resource": 100, "reduction_factor": 2}
            return pruners.HyperbandPruner(**{**defaults, **options})
        case "median":
            return pruners.MedianPruner(**{"n_warmup_steps": first, **options})
        case "none":
            return pruners.NopPruner()
        case "freeze_thaw":
            return FreezeThaw(lambda study: present_space(study, space), **{"min_resource": first, **options})
    raise ValueError(f"unknown pruner {search['pruner']!r}")
