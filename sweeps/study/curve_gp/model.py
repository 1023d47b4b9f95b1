"""An exact Gaussian process over (hyperparameters, percent of the budget), fitted to all reports.

    z(x, t) = c(t) + t**-gamma * (f(x, t) + e(trial, t)) + noise

c is what all curves have in common; f varies with hyperparameters and time (a Matern 5/2 kernel of each,
multiplied); e is a trial's own course, which its hyperparameters do not explain; losses spread less the
longer trials train, by the power gamma. With NumPy alone, since the keeper imports no torch: BoTorch's model
of partial curves costs it 270 MiB and two seconds of imports, draws its samples at random, and has no e.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.optimize import minimize

from search_spaces import SearchSpace
from sweeps.study.curve_gp.curves import Curve
from sweeps.study.curve_gp.features import Features, Floats

MAX_REPORTS = 400
"""More are thinned out: the time of a fit grows with their third power."""
MAX_ITERATIONS = 40
_COMMON = 4.0
"""Variance of what all curves have in common, of standardized values: nothing is assumed of it."""
_COURSE_SCALE = 2.0
"""Length, in log time, over which a trial's own course changes."""
_BROKEN_SPREADS = 1.0
"""A trial that broke counts as worse than the worst by this many standard deviations."""
Ints = NDArray[np.int64]

# Hyperparameters in log, in this order: a length scale for each group of coordinates, then these, each with
# mean and standard deviation of its normal prior. gamma is not in log.
_PRIORS = {
    "scale_time": (math.log(2.0), 0.7),
    "variance": (0.0, 1.0),
    "course": (math.log(0.01), 1.5),
    "noise": (math.log(0.001), 1.5),
    "gamma": (0.3, 0.3),
}


@dataclass(frozen=True)
class Pairs:
    """What a fit needs of pairs of reports: there are many pairs, but few times and few trials."""

    log_times: Floats
    """Of the distinct times."""
    trials: tuple[Ints, ...]
    """For each pair of reports, the index of its pair of trials."""
    times: tuple[Ints, ...]
    """The same of times."""
    starts: Ints
    """First report of each trial that has any; reports are in the order of trials."""
    has_time: Floats
    """(reports, distinct times), 0 or 1."""
    same_trial: tuple[Ints, ...]
    """Pairs of reports of one trial."""
    same_times: tuple[Ints, ...]
    """Their times."""
    common: Floats
    """The covariance of what all trials have in common."""

    @classmethod
    def of(cls, trial: Ints, time: Floats) -> Pairs:
        """`trial`: rising, of each report; `time`: of each report."""
        distinct, index = np.unique(time, return_inverse=True)
        _, starts, counted = np.unique(trial, return_index=True, return_inverse=True)
        same = np.nonzero(trial[:, None] == trial)
        log_time = np.log(time)
        return cls(
            log_times=np.log(distinct),
            trials=np.ix_(counted, counted),
            times=np.ix_(index, index),
            starts=starts,
            has_time=np.eye(len(distinct))[index],
            same_trial=same,
            same_times=(index[same[0]], index[same[1]]),
            common=_common(log_time, log_time),
        )


@dataclass(frozen=True)
class Observations:
    """Reports as arrays, one entry for each, and the points of their trials."""

    points: Floats
    """(trials, coordinates), of all trials, also of those without a report."""
    trial: Ints
    """Index into `points`."""
    time: Floats
    """Share of the budget."""
    value: Floats
    """Warped and standardized; lower is better."""


def observe(features: Features, curves: Sequence[Curve]) -> Observations:
    """The reports of these curves as the model takes them.

    Values are measured from a common curve, and large differences are compressed (log), because losses near
    and beyond the cliff of high rates say nothing about the optimum. A trial that broke has, at its end and
    at 100%, a value beyond the worst.
    """
    points = features.points([curve.params for curve in curves])
    reference, spread = _common_curve(curves)
    entries = list[tuple[int, float, float]]()
    for index, curve in enumerate(curves):
        for percent in curve.reports:
            difference = (curve.reports[percent] - reference[percent]) / spread
            warped = math.copysign(math.log1p(abs(difference)), difference)
            entries.append((index, percent / 100, warped))
    values = [value for _, _, value in entries]
    worst = max(values, default=0.0) + _BROKEN_SPREADS * (float(np.std(values)) if values else 1.0)
    for index, curve in enumerate(curves):
        if curve.state == "broken" and curve.percent < 100:
            entries.append((index, 1.0, worst))
    if len(entries) > MAX_REPORTS:
        entries = _thinned(entries)
    entries.sort(key=lambda entry: entry[0])
    trial, time, value = (
        (np.array(column) for column in zip(*entries, strict=True)) if entries else ([], [], [])
    )
    value = np.asarray(value, float)
    if len(value):
        value = (value - value.mean()) / (value.std() or 1.0)
    return Observations(points, np.asarray(trial, np.int64), np.asarray(time, float), value)


def _common_curve(curves: Sequence[Curve]) -> tuple[dict[int, float], float]:
    """A value for each percent, through the medians of what trials gain from one to the next; and a spread.

    Through medians of differences, because only better trials get far.
    """
    percents = sorted({percent for curve in curves for percent in curve.reports})
    if not percents:
        return {}, 1.0
    first = [curve.reports[percents[0]] for curve in curves if percents[0] in curve.reports]
    reference, best = {percents[0]: min(first)}, min(first)
    spread = float(np.median(first)) - best
    for before, percent in pairwise(percents):
        gains = [
            curve.reports[percent] - curve.reports[before]
            for curve in curves
            if percent in curve.reports and before in curve.reports
        ]
        reference[percent] = reference[before] + (float(np.median(gains)) if gains else 0.0)
    return reference, spread if spread > 0 else 1.0


def _thinned(entries: list[tuple[int, float, float]]) -> list[tuple[int, float, float]]:
    """At most `MAX_REPORTS`: every trial's last one, then those before it, those of better trials first."""
    best = dict[int, float]()
    for index, _, value in entries:
        best[index] = min(value, best.get(index, value))
    place = {index: position for position, index in enumerate(sorted(best, key=lambda i: (best[i], i)))}
    later = dict[int, int]()
    order = list[tuple[int, int, int]]()
    for position in range(len(entries) - 1, -1, -1):
        index = entries[position][0]
        order.append((later.get(index, 0), place[index], position))
        later[index] = later.get(index, 0) + 1
    kept = sorted(position for _, _, position in sorted(order)[:MAX_REPORTS])
    return [entries[position] for position in kept]


class CurveModel:
    """The process, fitted to observations and conditioned on them."""

    def __init__(self, space: SearchSpace, curves: Sequence[Curve]) -> None:
        self.features = Features.of(space)
        self.curves = list(curves)
        self._data = observe(self.features, curves)
        self._groups = np.array(self.features.groups, int)
        self._pairs = Pairs.of(self._data.trial, self._data.time)
        self._parameters = self._fit()
        self._condition()

    @property
    def num_reports(self) -> int:
        return len(self._data.value)

    # --- the fit ----------------------------------------------------------------------------------

    def _prior(self) -> tuple[Floats, Floats]:
        # Wider with more dimensions, as distances are.
        scale = math.log(0.4 * math.sqrt(max(1, self.features.num_groups)))
        pairs = [(scale, 0.75)] * self.features.num_groups + list(_PRIORS.values())
        means, deviations = zip(*pairs, strict=True)
        return np.array(means), np.array(deviations)

    def _fit(self) -> Floats:
        """The most probable hyperparameters; those of the prior while there is little to fit."""
        means, deviations = self._prior()
        if self.num_reports < 3:
            return means
        points = self._data.points[np.unique(self._data.trial)]
        found = minimize(
            self._loss,
            means,
            args=(self._squares(points, points), means, deviations),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(means - 3 * deviations, means + 3 * deviations, strict=True)),
            options={"maxiter": MAX_ITERATIONS},
        )
        return np.asarray(found.x) if np.isfinite(found.fun) else means

    def _loss(
        self, parameters: Floats, squares: Floats, means: Floats, deviations: Floats
    ) -> tuple[float, Floats]:
        """Minus the log posterior density of the hyperparameters, and its gradient."""
        num_groups, pairs = self.features.num_groups, self._pairs
        scales, rest = parameters[:num_groups], dict(zip(_PRIORS, parameters[num_groups:], strict=True))
        kx, slope = _matern((squares * np.exp(-2 * scales)[:, None, None]).sum(0))
        log_time = pairs.log_times
        lags = np.abs(log_time[:, None] - log_time) * math.exp(-rest["scale_time"])
        kt, kt_slope = _matern(lags**2)
        shrink = np.exp(-rest["gamma"] * log_time)
        amplitude = shrink[:, None] * shrink
        by_time = math.exp(rest["variance"]) * kt * amplitude
        own = math.exp(rest["course"]) * _course(log_time, log_time) * amplitude
        noise = math.exp(rest["noise"])
        kx_of_reports, by_time_of_reports = kx[pairs.trials], by_time[pairs.times]
        covariance = kx_of_reports * by_time_of_reports + pairs.common
        covariance[pairs.same_trial] += own[pairs.same_times]
        covariance[np.diag_indices_from(covariance)] += noise
        factor, failed = dpotrf(covariance, lower=1, clean=1, overwrite_a=1)
        if failed:
            return math.inf, np.zeros_like(parameters)
        value = self._data.value
        weights = cho_solve((factor, True), value, check_finite=False)
        log_determinant = 2 * np.log(np.diag(factor)).sum()
        inverse, _ = dpotri(factor, lower=1, overwrite_c=1)
        inner = inverse + inverse.T
        inner[np.diag_indices_from(inner)] *= 0.5
        # d loss / d theta = sum of `inner` * dK / d theta
        inner -= np.outer(weights, weights)
        inner *= 0.5
        deviation = (parameters - means) / deviations
        loss = 0.5 * (value @ weights + log_determinant + deviation @ deviation)
        gradient = np.empty_like(parameters)
        by_trial = np.add.reduceat(inner * by_time_of_reports, pairs.starts, axis=0)
        by_trial = np.add.reduceat(by_trial, pairs.starts, axis=1) * slope
        for group in range(num_groups):
            gradient[group] = (by_trial * squares[group]).sum() * -2 * math.exp(-2 * scales[group])
        shared_inner = pairs.has_time.T @ (inner * kx_of_reports) @ pairs.has_time
        own_inner = np.zeros_like(own)
        np.add.at(own_inner, pairs.same_times, inner[pairs.same_trial])
        shared, own = shared_inner * by_time, own_inner * own
        scale = math.exp(rest["variance"]) * amplitude * kt_slope * -2 * lags**2
        parts = {
            "scale_time": (shared_inner * scale).sum(),
            "variance": shared.sum(),
            "course": own.sum(),
            "noise": noise * np.trace(inner),
            "gamma": ((shared + own) * -(log_time[:, None] + log_time)).sum(),
        }
        gradient[num_groups:] = [parts[name] for name in _PRIORS]
        return float(loss), gradient + deviation / deviations

    # --- predictions ------------------------------------------------------------------------------

    def _condition(self) -> None:
        data = self._data
        if not self.num_reports:
            return
        covariance = self._covariance(data.points[data.trial], data.time, data.points[data.trial], data.time)
        same = data.trial[:, None] == data.trial
        covariance += same * self._own(data.time, data.time)
        covariance[np.diag_indices_from(covariance)] += math.exp(self._value("noise"))
        self._factor = np.asarray(cho_factor(covariance, lower=True, check_finite=False)[0])
        self._weights = cho_solve((self._factor, True), data.value, check_finite=False)

    def _value(self, name: str) -> float:
        return float(self._parameters[self.features.num_groups + list(_PRIORS).index(name)])

    def _squares(self, a: Floats, b: Floats) -> Floats:
        """(groups, a, b): squared distances within each group of coordinates."""
        squares = np.zeros((self.features.num_groups, len(a), len(b)))
        for coordinate, group in enumerate(self._groups):
            squares[group] += (a[:, None, coordinate] - b[:, coordinate]) ** 2
        return squares

    def _covariance(self, points_a: Floats, time_a: Floats, points_b: Floats, time_b: Floats) -> Floats:
        """Of c and f."""
        scales = np.exp(-2 * self._parameters[: self.features.num_groups])
        kx, _ = _matern((self._squares(points_a, points_b) * scales[:, None, None]).sum(0))
        a, b = np.log(time_a), np.log(time_b)
        kt, _ = _matern(((a[:, None] - b) * math.exp(-self._value("scale_time"))) ** 2)
        gamma = self._value("gamma")
        amplitude = np.exp(-gamma * a)[:, None] * np.exp(-gamma * b)
        return np.asarray(math.exp(self._value("variance")) * kx * kt * amplitude + _common(a, b))

    def _own(self, time_a: Floats, time_b: Floats) -> Floats:
        """Of e, of one trial."""
        a, b, gamma = np.log(time_a), np.log(time_b), self._value("gamma")
        amplitude = np.exp(-gamma * a)[:, None] * np.exp(-gamma * b)
        return np.asarray(math.exp(self._value("course")) * _course(a, b) * amplitude)

    def finals(self) -> tuple[Floats, Floats]:
        """Mean and covariance of every trial's value at its full budget."""
        data, size = self._data, len(self.curves)
        end = np.ones(size)
        prior = self._covariance(data.points, end, data.points, end)
        prior += np.eye(size) * self._own(end[:1], end[:1])
        if not self.num_reports:
            return np.zeros(size), prior
        cross = self._covariance(data.points, end, data.points[data.trial], data.time)
        cross += (np.arange(size)[:, None] == data.trial) * self._own(end, data.time)
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        return cross @ self._weights, prior - half.T @ half

    def new(self, points: Floats, pending: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of f, at the full budget, at `points` that no trial has tried.

        `pending`: points whose trials have not ended; as if each would end at its mean, which leaves the
        means as they are and makes their neighbourhood certain.
        """
        data, end = self._data, np.ones(len(points))
        at_end = np.zeros(1)
        variance = np.repeat(math.exp(self._value("variance")) + _common(at_end, at_end)[0], len(points))
        if not self.num_reports:
            return np.zeros(len(points)), np.sqrt(variance)
        cross = self._covariance(points, end, data.points[data.trial], data.time)
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = variance - (half**2).sum(0)
        if len(pending):
            end_pending = np.ones(len(pending))
            theirs = self._covariance(pending, end_pending, data.points[data.trial], data.time)
            theirs_half = solve_triangular(self._factor, theirs.T, lower=True, check_finite=False)
            inner = self._covariance(pending, end_pending, pending, end_pending) - theirs_half.T @ theirs_half
            inner += np.eye(len(pending)) * (self._own(end[:1], end[:1]) + math.exp(self._value("noise")))
            both = self._covariance(pending, end_pending, points, end) - theirs_half.T @ half
            factor = cho_factor(inner, lower=True, check_finite=False)[0]
            variance = variance - (solve_triangular(factor, both, lower=True, check_finite=False) ** 2).sum(0)
        return cross @ self._weights, np.sqrt(np.maximum(variance, 1e-12))

    def points(self, numbers: Sequence[int]) -> Floats:
        """The points of the trials at these positions of `curves`."""
        return self._data.points[list(numbers)]


def _matern(squared: Floats) -> tuple[Floats, Floats]:
    """Matern 5/2 of a squared distance, and its derivative by it."""
    root = np.sqrt(5 * squared)
    decay = np.exp(-root)
    return (1 + root + 5 * squared / 3) * decay, -5 / 6 * (1 + root) * decay


def _course(log_a: Floats, log_b: Floats) -> Floats:
    return np.asarray(np.exp(-np.abs(log_a[:, None] - log_b) / _COURSE_SCALE))


def _common(log_a: Floats, log_b: Floats) -> Floats:
    """The same for all trials: a level, and a change over time."""
    return _COMMON * (1 + np.asarray(np.exp(-0.5 * (log_a[:, None] - log_b) ** 2)))
