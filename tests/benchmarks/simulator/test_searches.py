"""A search in virtual time: what its trials cost, when they end, and what the pruner sees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import RandomSampler

from benchmarks.search import METHODS, Method, halving, simulate, summary
from benchmarks.simulator import shapes
from benchmarks.simulator.curves import Curve, SimulatedTrials, learning_done, relative_rate
from benchmarks.simulator.noise import Noise
from benchmarks.simulator.replays import read_models
from benchmarks.simulator.searches import best_by, search
from benchmarks.simulator.surface import Surface
from benchmarks.simulator.worlds import space
from sweeps.study.curve_gp.pruner import FreezeThaw

REPORT_AT = (20, 40, 60, 80, 100)
SPACE = space(3, 8.03e9)


class Numbered:
    """Trial n has loss n; some diverge."""

    report_at = REPORT_AT

    def __init__(self, diverging: tuple[int, ...] = ()) -> None:
        self.started = 0
        self.diverging = diverging

    def curve(self, params: Mapping[str, Any]) -> Curve:
        number, self.started = self.started, self.started + 1
        at = 40 if number in self.diverging else None
        return Curve(losses=dict.fromkeys(REPORT_AT, float(number)), diverged_at=at)


class AllBut(BasePruner):
    """Prunes every trial but some at its second report, and notes what was reported when it was asked."""

    def __init__(self, kept: tuple[int, ...]) -> None:
        self.kept = kept
        self.seen: list[list[int]] = []

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        self.seen.append([len(t.intermediate_values) for t in study.get_trials(deepcopy=False)])
        return trial.last_step == 40 and trial.number not in self.kept


def run(
    pruner: BasePruner, trials: Numbered, *, seats: int, compute: int
) -> list[tuple[int, str, float | None]]:
    ended = search(
        trials, SPACE, (), lambda number: RandomSampler(seed=number), pruner, seats=seats, compute=compute
    )
    return [(trial.at, trial.outcome, trial.loss) for trial in ended]


def test_seats_share_the_compute() -> None:
    assert run(NopPruner(), Numbered(), seats=1, compute=3) == [
        (100, "complete", 0.0),
        (200, "complete", 1.0),
        (300, "complete", 2.0),
    ]
    at_once = run(NopPruner(), Numbered(), seats=4, compute=8)
    assert [at for at, _, _ in at_once] == [100] * 4 + [200] * 4
    assert run(NopPruner(), Numbered(), seats=32, compute=16) == []


def test_a_pruned_trial_s_seat_is_given_to_the_next() -> None:
    """The first trial is the guideline default, which is never pruned."""
    found = run(AllBut((3,)), Numbered(), seats=1, compute=3)
    assert found == [
        (100, "complete", 0.0),
        (140, "pruned", None),
        (180, "pruned", None),
        (280, "complete", 3.0),
    ]


def test_trials_that_report_together_are_recorded_before_any_is_decided_on() -> None:
    pruner = AllBut(())
    run(pruner, Numbered(), seats=3, compute=1)
    assert pruner.seen[0] == [1, 1, 1]


def test_a_diverged_trial_frees_its_seat_where_it_breaks() -> None:
    found = run(NopPruner(), Numbered(diverging=(0,)), seats=1, compute=2)
    assert found == [(40, "diverged", None), (140, "complete", 1.0)]


def test_the_best_is_that_of_the_trials_that_have_ended() -> None:
    ended = search(
        Numbered(), SPACE, (), lambda number: RandomSampler(seed=number), NopPruner(), seats=1, compute=3
    )
    assert best_by(ended, 99) is None
    assert best_by(ended, 300) is ended[0]


def test_warmup_delays_learning_and_only_decay_ends_at_no_rate() -> None:
    assert relative_rate("linear", 0.2, 0.1) == pytest.approx(0.5)
    assert relative_rate("constant", 0.2, 1.0) == 1.0
    assert relative_rate("cosine", 0.0, 1.0) == pytest.approx(0.0)
    assert learning_done("linear", 0.0, 1.0) == pytest.approx(0.5)
    assert learning_done("linear", 0.2, 0.2) < learning_done("linear", 0.0, 0.2) / 1.5


def test_curves_end_at_the_loss_of_the_surface_and_a_long_warmup_looks_worse_at_first() -> None:
    surface = Surface(shape=shapes.bowl(), log_rate=math.log10(4e-4))
    trials = SimulatedTrials(
        surface=surface,
        noise=Noise(percent=0.0, growth=0.0, diverges=False),
        report_at=REPORT_AT,
        generator=np.random.default_rng(0),
    )
    params = {"learning_rate": 4e-4, "lr_scheduler_type": "linear", "warmup_ratio": 0.0}
    short, long = (trials.curve(params | {"warmup_ratio": warmup}).losses for warmup in (0.0, 0.2))
    assert short[100] == long[100] == pytest.approx(surface.loss(params))
    assert long[20] > short[20] + 0.05
    assert sorted(short.values(), reverse=True) == list(short.values())


@pytest.mark.parametrize(
    "method", [halving("tpe", 40), Method(sampler="qmc")], ids=lambda method: method.name
)
def test_a_benchmarked_search_has_a_regret_and_repeats(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.search.COMPUTE", (8, 16))
    found = [simulate(method, 3, 8, number, 0) for number in range(2)]
    shown = summary(found)
    assert shown["sweeps"] == 2
    assert all(regret is not None and regret[0] >= 0 for regret in shown["regret"])
    assert found == [simulate(method, 3, 8, number, 0) for number in range(2)], "a seed repeats a sweep"


def test_a_search_too_short_for_a_trial_has_no_regret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.search.COMPUTE", (8, 32))
    found = simulate(Method(sampler="random"), 3, 32, 0, 0)
    assert found["regret"][0] is None
    assert found["regret"][1] is not None
    assert summary([found])["regret"][0] is None


def test_methods_have_names_of_their_own() -> None:
    names = [method.name for method in METHODS]
    assert len(set(names)) == len(names)
    assert "tpe + successive halving from 40%" in names


TABLE = """\
model,lr,rank,test_nll,train_nll
small,1e-4,8,1.10,1.0
small,1e-3,8,1.02,1.0
small,1e-2,8,1.30,1.0
small,1e-4,16,1.08,1.0
small,1e-3,16,1.00,1.0
small,1e-3,16,1.02,1.0
small,1e-2,16,1.20,1.0
small,1e-3,64,0.90,1.0
few,1e-4,8,1.0,1.0
"""


def test_a_published_model_is_replayed_between_the_rates_that_were_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.simulator.replays.LEAST_CONFIGS", 6)
    (tmp_path / "table.csv").write_text(TABLE)
    [model] = read_models(tmp_path / "table.csv")
    assert model.name == "small"
    assert model.space["lora_r"].choices == (8, 16), "one rate of a rank is no curve"
    assert model.loss({"learning_rate": 1e-3, "lora_r": 16}) == pytest.approx(1.01)
    assert model.loss({"learning_rate": 10**-3.5, "lora_r": 8}) == pytest.approx(1.06)
    assert model.lowest == pytest.approx(1.01)


def test_a_trial_that_is_frozen_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial 1 is stopped at 40%; taken up at once, it ends after the 60% that are left."""
    monkeypatch.setattr("benchmarks.simulator.searches.thaw", lambda space, curves, has_new: [1])
    monkeypatch.setattr(
        FreezeThaw, "prune", lambda self, study, trial: trial.number == 1 and trial.last_step == 40
    )
    found = run(FreezeThaw(lambda _: SPACE, min_resource=40), Numbered(), seats=1, compute=3)
    assert found == [(100, "complete", 0.0), (200, "complete", 1.0), (300, "complete", 2.0)]
    monkeypatch.setattr("benchmarks.simulator.searches.thaw", lambda space, curves, has_new: [])
    left = run(FreezeThaw(lambda _: SPACE, min_resource=40), Numbered(), seats=1, compute=3)
    assert left == [(100, "complete", 0.0), (240, "complete", 2.0), (300, "frozen", None)]
