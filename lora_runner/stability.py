"""Signs of a learning rate that is too high or too low, watched for in one trial.

The signs and their meaning are from the guideline text "Training Stability Indicators". It gives no
thresholds; the constants here are ours.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SPIKE_WINDOW = 10
"""Steps whose training losses a new loss is compared with."""
SPIKE_DEVIATIONS = 6.0
"""A loss this many standard deviations above the window's median is a spike."""
SPIKE_RATIO = 1.3
"""... if it is also this factor above it, since a smooth curve deviates little."""
EARLY_RATIO = 2.0
"""Before the window is full: a loss this factor above all earlier ones is a spike."""
DIVERGED_RATIO = 2.0
"""A trial has diverged when the median loss of a full window exceeds its first loss by this factor."""
EVAL_RISE = 0.01
"""Relative rise of the evaluation loss above its own minimum that counts as rising."""
SLOW_SHARE = 0.02
"""Relative fall of the evaluation loss over the whole budget below which it falls slowly."""
UNCHANGED_SHARE = 0.002
"""... and below which the model has barely changed."""
REPEATED_SHARE = 0.5
"""Share of repeated 3-grams above which a sample counts as repetitive."""
REPEATED_MIN_TOKENS = 12
"""Shorter samples are not checked for repetition."""


@dataclass(frozen=True)
class Sign:
    """One observed sign: its name, the step, and the numbers."""

    sign: str
    step: int
    detail: str


@dataclass
class StabilityWatch:
    """Collects a trial's signs; `diverged` is the reason once the trial has diverged."""

    base_eval_loss: float
    base_repetition: float = 0.0
    """Share of repeated 3-grams in the untouched base's samples, which training did not cause."""
    signs: list[Sign] = field(default_factory=list)
    diverged: str | None = None
    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)
    """(step, evaluation loss, mean training loss since the last evaluation)"""
    _since_evaluation: list[float] = field(default_factory=list)

    def after_step(self, step: int, loss: float, grad_norm: float) -> None:
        """Add a training step's loss and gradient norm."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {grad_norm}"
            self._diverge("nan_or_inf", step, f"{what} at step {step}")
            return
        window = self.losses[-SPIKE_WINDOW:]
        if len(window) == SPIKE_WINDOW:
            middle, spread = statistics.median(window), statistics.pstdev(window)
            if loss > middle * SPIKE_RATIO and loss > middle + SPIKE_DEVIATIONS * spread:
                self._add("loss_spike", step, f"training loss {loss:.3f} after a median of {middle:.3f}")
        elif window and loss > EARLY_RATIO * max(window):
            self._add("loss_spike", step, f"training loss {loss:.3f} after at most {max(window):.3f}")
        self.losses.append(loss)
        self._since_evaluation.append(loss)
        recent = self.losses[-SPIKE_WINDOW:]
        if len(recent) == SPIKE_WINDOW and statistics.median(recent) > DIVERGED_RATIO * self.losses[0]:
            self._diverge(
                "loss_spike",
                step,
                f"training loss {statistics.median(recent):.3f} (median of {SPIKE_WINDOW} steps) is "
                f"more than {DIVERGED_RATIO:g} times the first loss {self.losses[0]:.3f} at step {step}",
            )

    def after_evaluation(self, step: int, eval_loss: float) -> None:
        """Add an evaluation loss, and compare its trend with the training loss's."""
        if not math.isfinite(eval_loss):
            self._diverge("nan_or_inf", step, f"evaluation loss {eval_loss} at step {step}")
            return
        train_loss = statistics.fmean(self._since_evaluation) if self._since_evaluation else math.nan
        self._since_evaluation.clear()
        if self.evaluations:
            _, lowest, train_then = min(self.evaluations, key=lambda seen: seen[1])
            if eval_loss > lowest * (1 + EVAL_RISE) and train_loss < train_then:
                self._add(
                    "eval_rises",
                    step,
                    f"evaluation loss rose from {lowest:.4f} to {eval_loss:.4f} while training loss fell "
                    f"from {train_then:.4f} to {train_loss:.4f}",
                )
        self.evaluations.append((step, eval_loss, train_loss))

    def after_samples(self, step: int, samples: Sequence[Sequence[int]]) -> None:
        """Look for repetition beyond the base's own in sampled continuations (token ids)."""
        share = repetition(samples)
        if share > max(REPEATED_SHARE, 1.25 * self.base_repetition):
            self._add(
                "repetitive_output",
                step,
                f"{share:.0%} of the samples' 3-grams repeat (untouched base: {self.base_repetition:.0%})",
            )

    def at_end(self, step: int) -> None:
        """Look for the signs of a low learning rate in the whole curve, after the full budget."""
        if not self.evaluations:
            return
        last = self.evaluations[-1][1]
        fall = (self.base_eval_loss - last) / self.base_eval_loss
        if abs(fall) < UNCHANGED_SHARE:
            self._add(
                "barely_changed",
                step,
                f"evaluation loss {last:.4f}, untouched base {self.base_eval_loss:.4f}",
            )
        if 0 <= fall < SLOW_SHARE:
            self._add("slow_decrease", step, f"evaluation loss fell by {fall:.2%} over the whole budget")

    def _add(self, sign: str, step: int, detail: str) -> None:
        self.signs.append(Sign(sign, step, detail))

    def _diverge(self, sign: str, step: int, detail: str) -> None:
        self._add(sign, step, detail)
        self.diverged = self.diverged or detail

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready state, the inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> StabilityWatch:
        """Rebuild a watch from a checkpoint."""
        watch = cls(**{**state, "signs": [Sign(**sign) for sign in state["signs"]]})
        watch.losses = [float(loss) for loss in state["losses"]]
        watch._since_evaluation = [float(loss) for loss in state["_since_evaluation"]]
        watch.evaluations = [(int(a), float(b), float(c)) for a, b, c in state["evaluations"]]
        return watch


def repetition(samples: Sequence[Sequence[int]]) -> float:
    """Share of 3-grams that occurred before in the same sample, over all samples long enough to tell."""
    repeated = total = 0
    for tokens in samples:
        if len(tokens) < REPEATED_MIN_TOKENS:
            continue
        grams = [tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)]
        total += len(grams)
        repeated += len(grams) - len(set(grams))
    return repeated / total if total else 0.0
