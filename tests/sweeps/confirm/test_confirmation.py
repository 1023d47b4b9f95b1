"""Confirm studies without Ray: in which order arms run, when they stop, and what a kill leaves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lora_runner.config import TrialConfig
from results.comparison.constants import MARGIN
from results.comparison.paired import compare_all
from results.comparison.relation import relation
from results.errors import DamagedReplicates
from results.sweep_result import SweepResult, read_study
from results.verdict.replicates import margin_of, read_replicates
from results.verdict.verdict import verdict
from sweeps.confirm.arms import choose_arms
from sweeps.confirm.budget import fitting_arms
from sweeps.confirm.confirmation import Confirmation, sweep_to_confirm
from sweeps.confirm.request import ConfirmRequest
from sweeps.confirm.set_aside import set_aside
from sweeps.confirm.study_specs import confirm_study_spec, has_work
from sweeps.errors import ConfigError, StudyHeld, StudyMismatch
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.sources.replicate_source import ReplicateSource
from sweeps.plan.replicate_plan import new_seeds
from sweeps.study.study import peek
from tests.sweeps.confirm.conftest import SWEPT, noisy

Make = Callable[..., Keeper]


def request(**options: Any) -> ConfirmRequest:
    return ConfirmRequest(**{"margin": 0.005, **options})


@pytest.fixture
def confirm(swept: Keeper, tmp_path: Path) -> Iterator[Callable[..., Keeper]]:
    """`confirm(trials=..., rows=...)`: a keeper of the confirm study, as a new process would open it."""
    made: list[Keeper] = []

    def make(*, at: str = "", margin: float = 0.005, **options: Any) -> Keeper:
        arms_of = request(margin=margin, **{"rows": False, **options})
        study_spec = confirm_study_spec(swept.study_spec, read_study(swept.study), arms_of, None, 0)
        study_spec = replace(
            study_spec, name=f"{study_spec.name}{at}", run_folder=f"{study_spec.run_folder}{at}"
        )
        made.append(Keeper(study_spec, str(swept._storage.url)))
        return made[-1]

    yield make
    for keeper in made:
        keeper._storage.close()


def runs_of(keeper: Keeper, stored: Any) -> list[tuple[str, int]]:
    return [(t.user_attrs["arm"], t.user_attrs["seed"]) for t in stored(keeper)]


def test_a_run_that_failed_is_run_again_by_the_next_call_and_stands_in_for_no_other(
    confirm: Callable[..., Keeper], pack: Any, stored: Any
) -> None:
    failing = iter([False, True])

    def loss(config: TrialConfig, percent: int) -> float | str:
        return "failed" if next(failing, False) else noisy()(config, percent)

    first = confirm(trials=6)
    pack(first, loss, seats=1).run()
    first.close()
    arms = [arm.name for arm in first.study_spec.replicates.arms]  # type: ignore[union-attr]
    planned = [(arm, seed) for seed in new_seeds(0, 3) for arm in arms]
    assert runs_of(first, stored) == planned
    assert (first.status().finished, first.status().failed) == (5, 1)
    second = confirm(trials=6)
    pack(second, noisy(), seats=1).run()
    trials = stored(second)
    (failed,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert (trials[6].user_attrs["arm"], trials[6].user_attrs["seed"]) == planned[failed.number]
    assert trials[6].state == TrialState.COMPLETE
    assert len(trials) == 7
    assert second.status().finished == 6


# --- the plan -------------------------------------------------------------------------------------


def test_every_arm_runs_once_per_new_seed_seed_by_seed_and_shares_a_pack(
    confirm: Any, swept: Keeper, pack: Any, stored: Any
) -> None:
    keeper = confirm(best=3, trials=12, margin=1e-6)
    simulated = pack(keeper, noisy(), seats=4)
    simulated.ask()
    assert len({a.config.seed for a in simulated.seats.values()}) == 1
    assert len({a.config.hash() for a in simulated.seats.values()}) == 4
    simulated.run()
    arms = [arm.name for arm in keeper.study_spec.replicates.arms]
    seeds = new_seeds(0, 3)
    assert runs_of(keeper, stored) == [(arm, seed) for seed in seeds for arm in arms]
    assert len(set(seeds)) == 3
    assert 0 not in seeds, "the sweep's own seed chose the best"
    for trial in stored(keeper):
        config = TrialConfig.from_dict(trial.user_attrs["config"])
        values = keeper.study_spec.replicates.arms[arms.index(trial.user_attrs["arm"])].values
        assert trial.params == values
        assert config == replace(swept.study_spec.trial_config(values), seed=trial.user_attrs["seed"])
        assert trial.state == TrialState.COMPLETE
    assert keeper.study.user_attrs["arms"] == keeper.study_spec.replicates.described()


def test_nothing_is_pruned_however_bad(confirm: Any, pack: Any, stored: Any) -> None:
    keeper = confirm(trials=6)
    pack(keeper, lambda config, percent: 50.0 if config.learning_rate < 3e-4 else 2.0, seats=2).run()
    assert {t.state for t in stored(keeper)} == {TrialState.COMPLETE}


def test_it_stops_when_every_arm_has_its_relation_and_leaves_no_run_open(
    confirm: Any, pack: Any, stored: Any
) -> None:
    keeper = confirm(trials=40)
    pack(keeper, noisy(slope=3.0), seats=2).run()
    trials = stored(keeper)
    ended = [t for t in trials if t.state.is_finished()]
    assert 6 <= len(ended) <= 10
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.WAITING}
    assert any("the answer is clear" in event for event in keeper.status().events)
    assert verdict(peek_study(keeper, "t"), keeper.study).replicates.clear
    again = confirm(trials=40)
    assert again.ask(0, [0, 1]).start == ()
    again.rejoin(0)
    assert [t.state for t in stored(again)].count(TrialState.COMPLETE) == len(ended)


def peek_study(keeper: Keeper, name: str) -> optuna.Study:
    study = peek(str(keeper._storage.url), name)
    assert study is not None
    return study


def test_a_smaller_margin_goes_on_from_what_a_larger_one_calls_clear(
    confirm: Any, pack: Any, stored: Any
) -> None:
    pack(confirm(trials=20), noisy(slope=0.0), seats=2).run()
    stricter = confirm(trials=20, margin=1e-7)
    before = [t for t in stored(stricter) if t.state.is_finished()]
    assert len(before) < 20
    pack(stricter, noisy(slope=0.0), seats=2).run()
    assert len(stored(stricter)) == 20
    assert stored(stricter)[: len(before)] == before


def test_an_unclear_answer_uses_its_budget_and_a_raised_one_goes_on(
    confirm: Any, pack: Any, stored: Any
) -> None:
    loud = noisy(slope=0.0, noise=0.3)
    pack(confirm(trials=7), loud, seats=2).run()
    keeper = confirm(trials=7)
    assert len(stored(keeper)) == 6, "the best alone on a seed shows nothing"
    before = stored(keeper)
    more = confirm(trials=10)
    pack(more, loud, seats=2).run()
    assert stored(more)[:6] == before
    arms = [arm.name for arm in more.study_spec.replicates.arms]
    assert runs_of(more, stored) == [(arm, seed) for seed in new_seeds(0, 5) for arm in arms]


def test_a_run_that_diverges_counts_and_infrastructure_does_not(confirm: Any, pack: Any) -> None:
    def loss(config: TrialConfig, percent: int) -> float | str:
        return "diverged" if config.learning_rate > 3e-4 and percent == 100 else 2.0

    keeper = confirm(trials=6)
    pack(keeper, loss, seats=2).run()
    runs = read_replicates(keeper.study).runs
    assert {run.arm for run in runs if run.lost} == {"best"}
    assert len(runs) == 6


@pytest.mark.slow
@pytest.mark.parametrize("seats", [1, 3])
def test_whenever_a_keeper_dies_the_next_one_finishes_the_same_plan(
    confirm: Any, pack: Any, stored: Any, seats: int
) -> None:
    """It is dropped after each of its calls; no run is lost, repeated or moved to another seed."""
    options = {"trials": 6}
    loss = noisy(slope=0.0, noise=0.2)
    whole = confirm(at="whole", **options)
    simulated = pack(whole, loss, seats=seats)
    simulated.ask()
    calls = 1
    while simulated.seats:
        simulated.turn()
        calls += 1
    expected = [(t.params, t.user_attrs["arm"], t.user_attrs["seed"], t.value) for t in stored(whole)]
    assert len(expected) == 6
    for dies_after in range(1, calls + 1):
        at = f"dies{dies_after}"
        simulated = pack(confirm(at=at, **options), loss, seats=seats)
        simulated.ask()
        for _ in range(dies_after - 1):
            simulated.turn()
        after = confirm(at=at, **options)
        pack(after, loss, seats=seats).run()
        found = [(t.params, t.user_attrs["arm"], t.user_attrs["seed"], t.value) for t in stored(after)]
        assert found == expected, dies_after


def one_clear_arm(config: TrialConfig, percent: int) -> float:
    """The guideline default (the lower rate) is far worse; other arms differ from the best by noise alone."""
    own = (int(config.hash()[:8], 16) % 1000 / 500 - 1) * 0.2
    return 2 + own + (9.0 if config.learning_rate == pytest.approx(2e-4) else 0.0)


def test_runs_of_a_decided_arm_go_to_the_others_within_the_same_budget(
    confirm: Any, pack: Any, stored: Any
) -> None:
    keeper = confirm(best=3, trials=30)
    pack(keeper, one_clear_arm, seats=1).run()
    runs, seeds = runs_of(keeper, stored), new_seeds(0, 15)
    ran = {
        arm.name: [seed for name, seed in runs if name == arm.name]
        for arm in keeper.study_spec.replicates.arms
    }
    assert len(runs) in (29, 30)
    assert 3 <= len(ran["guideline default"]) < 7
    others = [name for name in ran if name not in ("best", "guideline default")]
    assert all(len(ran[name]) > 7 for name in others), "more than 30 // 4"
    for name in ran:
        assert ran[name] == list(seeds[: len(ran[name])])
    assert len(ran["best"]) == max(len(ran[name]) for name in others)
    assert any("'guideline default'" in event for event in keeper.status().events)
    assert keeper.ask(0, [0]).start == ()


def test_without_a_budget_no_arm_has_more_than_eight_seeds(confirm: Any, pack: Any, stored: Any) -> None:
    keeper = confirm(best=3)
    pack(keeper, one_clear_arm, seats=4).run()
    arms = [arm for arm, _ in runs_of(keeper, stored)]
    assert keeper.status().target == 32
    assert max(map(arms.count, arms)) == 8
    assert arms.count("guideline default") < 8
    assert not has_work(keeper.study, keeper.study_spec), "the rest of the budget has no use"


def test_a_raised_budget_keeps_the_design_and_every_relation(confirm: Any, pack: Any, stored: Any) -> None:
    shown: dict[str, str] = {}
    for trials in (12, 16, 24, 40):
        keeper = confirm(best=3, trials=trials)
        pack(keeper, one_clear_arm, seats=3).run()
        found = read_replicates(keeper.study)
        assert keeper.study.user_attrs["most_seeds"] == found.most_seeds == 3
        now = {
            name: relation(comparison)
            for name, comparison in compare_all(found.arms, found.runs, most_seeds=found.most_seeds).items()
        }
        assert all(now[name] == before for name, before in shown.items() if before != "open")
        shown = now
    assert shown["guideline default"] == "worse"
    assert [t.user_attrs["ended"] for t in sorted(stored(keeper), key=lambda t: t.datetime_complete)] == list(
        range(len(stored(keeper)))
    )


def test_a_study_begun_without_a_design_is_judged_by_the_default(confirm: Any, pack: Any) -> None:
    keeper = confirm(trials=6)
    storage = keeper.study._storage
    arms = keeper.study.user_attrs["arms"]
    old = optuna.create_study(storage=storage, study_name="old.confirm")
    old.set_user_attr("arms", arms)
    assert read_replicates(old).most_seeds == 8
    ReplicateSource(
        keeper.study_spec, old, lambda _: None, keeper.study_spec.replicates
    ).enqueue_first_trials()
    assert "most_seeds" not in old.user_attrs
    for wrong in (2, "8", 0.5):
        old.set_user_attr("most_seeds", wrong)
        with pytest.raises(DamagedReplicates, match=r"`most_seeds` of study 'old.confirm' is a whole number"):
            read_replicates(old)


# --- the whole confirmation -----------------------------------------------------------------------


class Runs:
    """Runs a study with a simulated pack, as a fleet would; ends early after `calls` turns."""

    def __init__(self, url: str, pack: Any, loss: Any) -> None:
        self.url, self.pack, self.loss = url, pack, loss
        self.turns: int | None = None
        self.names: list[str] = []

    def __call__(self, study_spec: Any, study: optuna.Study | None) -> tuple[bool, list[str]]:
        self.names.append(study_spec.name)
        keeper = Keeper(study_spec, self.url)
        simulated = self.pack(keeper, self.loss, seats=4)
        simulated.ask()
        for turn in itertools.count():
            if not simulated.seats or turn == self.turns:
                break
            simulated.turn()
        keeper.leave()
        return bool(simulated.seats), []


@pytest.fixture
def confirmation(swept: Keeper, pack: Any) -> Callable[..., tuple[Confirmation, Runs]]:
    """`confirmation(trials=...)`: one call of `sweeps confirm` on simulated packs, and what runs them."""

    def make(loss: Any = None, **options: Any) -> tuple[Confirmation, Runs]:
        runs = Runs(str(swept._storage.url), pack, loss or noisy(slope=1.0))
        sweep: SweepResult = read_study(peek_study(swept, "t"))
        return Confirmation(runs.url, swept.study_spec, sweep, request(**options), runs), runs

    return make


def test_one_rate_is_tuned_on_the_sweeps_seed_before_it_becomes_an_arm(
    confirmation: Any, swept: Keeper
) -> None:
    whole, runs = confirmation(noisy(slope=2.0))
    whole.prepare()
    progress = whole.run()
    assert runs.names == ["t.confirm.one-rate", "t.confirm"]
    tuning = peek_study(swept, "t.confirm.one-rate").get_trials()
    assert {t.user_attrs["seed"] for t in tuning} == {0}
    best = min(tuning, key=lambda t: t.value)
    arms = {arm.name: arm for arm in read_replicates(peek_study(swept, "t.confirm")).arms}
    (one_rate,) = [arm for arm in arms.values() if arm.role == "one_rate"]
    assert one_rate.values == best.params
    assert one_rate.values["embedding_lr_ratio"] == 1.0
    assert "One rate for LoRA and embeddings was tried at" in progress.notes[0]
    assert progress.clear
    answer = verdict(peek_study(swept, "t"), peek_study(swept, "t.confirm"))
    words = {row.row.id: row.word for row in answer.rows}
    assert words["scenario.general"] == "too_low"
    assert words["boundary.same_rate"] == "supported"
    again, runs = confirmation()
    again.prepare()
    assert (again.run().added, runs.names) == (0, [])


def test_a_confirmation_keeps_its_margin_for_whoever_reads_it_later(confirmation: Any, swept: Keeper) -> None:
    loss = noisy(slope=1.0)
    for margin, started in ((0.02, ["t.confirm"]), (0.02, []), (0.03, [])):
        whole, runs = confirmation(loss, rows=False, margin=margin)
        whole.prepare()
        assert whole.run().clear
        assert runs.names == started
        assert margin_of(peek_study(swept, "t.confirm")) == margin
        answer = verdict(peek_study(swept, "t"), peek_study(swept, "t.confirm"))
        assert answer.margin == margin
        assert answer.replicates is not None
        assert answer.replicates.margin == margin
    assert verdict(peek_study(swept, "t"), peek_study(swept, "t.confirm"), margin=0.01).margin == 0.01
    whole.prepare(anew=True)
    assert margin_of(peek(str(swept._storage.url), "t.confirm")) == MARGIN == verdict(swept.study).margin


def test_an_interrupted_confirmation_goes_on_in_the_stage_it_was_in(confirmation: Any, swept: Keeper) -> None:
    whole, runs = confirmation()
    runs.turns = 1
    assert whole.run().interrupted
    assert runs.names == ["t.confirm.one-rate"]
    second, runs = confirmation()
    second.prepare()
    assert not second.run().interrupted
    assert runs.names == ["t.confirm.one-rate", "t.confirm"]


@pytest.mark.parametrize("rows", [True, False])
def test_a_budget_too_small_for_three_seeds_is_refused_with_the_least_one(
    confirmation: Any, swept: Keeper, rows: bool
) -> None:
    two, _ = confirmation(trials=5, rows=rows)
    with pytest.raises(ConfigError, match="--trials is at least 6: 2 configurations on 3 seeds; got 5"):
        two.prepare()
    assert peek(str(swept._storage.url), "t.confirm.one-rate") is None


def test_a_budget_too_small_for_all_arms_leaves_out_the_least_telling_and_a_larger_one_keeps_those(
    confirmation: Any, swept: Keeper
) -> None:
    """With the arm of one rate its tuning is left out too, then and later; --anew chooses among all again."""
    every = choose_arms(read_study(swept.study), swept.study_spec)
    small, runs = confirmation(trials=10)
    runs.turns = 1
    small.prepare().run()
    assert runs.names == ["t.confirm"]
    study = peek(str(swept._storage.url), "t.confirm")
    assert study is not None
    kept = [arm["name"] for arm in study.user_attrs["arms"]]
    fitting = fitting_arms(every, 10, read_study(swept.study), margin=0.005)
    assert kept == [arm.name for arm in fitting]
    assert 2 < len(kept) < len(every)
    larger, runs = confirmation(trials=200)
    runs.turns = 1
    larger.prepare().run()
    assert runs.names == ["t.confirm"]
    study = peek(str(swept._storage.url), "t.confirm")
    assert study is not None
    assert [arm["name"] for arm in study.user_attrs["arms"]] == kept
    with pytest.raises(StudyMismatch, match="it also has"):
        confirmation(trials=10, rows=False)[0].prepare()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"best": 0}, "--best is at least 1; got 0"),
        ({"trials": 0}, "--trials is at least 1"),
        ({"hours": 0.0}, "--hours is above 0"),
        ({"hours": math.nan}, "--hours is above 0"),
        ({"margin": 0.0}, "the margin is above 0"),
    ],
)
def test_values_that_no_confirmation_can_have_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        request(**options)


def test_more_of_the_best_than_have_finished_are_refused(confirmation: Any, swept: Keeper) -> None:
    finished = len(read_study(swept.study).finished)
    with pytest.raises(ConfigError, match=f"--best is at most {finished}, .*; got {finished + 1}"):
        confirmation(rows=False, best=finished + 1)[0].prepare()
    confirmation(rows=False, best=finished)[0].prepare()


def test_a_time_limit_starts_nothing_new_and_more_time_goes_on(confirmation: Any) -> None:
    short, runs = confirmation(rows=False, hours=1e-9)
    progress = short.run()
    assert (progress.status.finished, progress.unfinished, progress.interrupted) == (0, False, False)
    longer, runs = confirmation(rows=False, hours=1.0)
    longer.prepare()
    assert longer.run().clear
    assert runs.names == ["t.confirm"]


def test_a_sweep_that_goes_on_elsewhere_is_not_confirmed(swept: Keeper, held_elsewhere: Any) -> None:
    url = str(swept._storage.url)
    whole = sweep_to_confirm(peek_study(swept, "t"), lease_seconds=30)
    assert len(whole.finished) == len(read_study(swept.study).finished)
    held_elsewhere(url, "t")
    with pytest.raises(StudyHeld, match="process 11 on node7"):
        sweep_to_confirm(peek_study(swept, "t"), lease_seconds=30)


def test_a_confirmation_that_runs_elsewhere_is_not_set_aside(
    confirmation: Any, swept: Keeper, held_elsewhere: Any, plainly: Any
) -> None:
    confirmation(rows=False)[0].run()
    url = str(swept._storage.url)
    held_elsewhere(url, "t.confirm")
    before = plainly(url, "t.confirm")
    with pytest.raises(StudyHeld, match="process 11 on node7"):
        confirmation(rows=False)[0].prepare(anew=True)
    assert plainly(url, "t.confirm") == before
    assert (Path(swept.study_spec.run_folder) / "confirm").is_dir()


def test_another_best_is_refused_until_one_starts_anew_and_the_old_runs_are_kept(
    confirmation: Any, swept: Keeper, make_keeper: Make, pack: Any, plainly: Any
) -> None:
    first, _ = confirmation(rows=False)
    first.run()
    url = str(swept._storage.url)
    old = plainly(url, "t.confirm")
    more = make_keeper(at="study", url=url, **SWEPT | {"trials": 30})
    pack(more, lambda config, percent: 1.0, seats=6).run()
    second, runs = confirmation(rows=False)
    with pytest.raises(StudyMismatch, match=r"other configurations: its best is .*, the sweep's is .*--anew"):
        second.prepare()
    second.prepare(anew=True)
    folder = Path(swept.study_spec.run_folder)
    assert (folder / "confirm.earlier-1" / "trials" / "0000").is_dir()
    assert not (folder / "confirm").exists()
    kept = plainly(url, "t.confirm.earlier-1")
    assert [(t.number, t.params, t.value, t.user_attrs) for t in kept] == [
        (t.number, t.params, t.value, t.user_attrs) for t in old
    ]
    assert peek(url, "t.confirm") is None
    second.prepare()
    second.run()
    assert runs.names == ["t.confirm"]
    assert set_aside(url, "t", folder) == ".earlier-2"
