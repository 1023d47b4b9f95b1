"""`sweeps init --from RUN`: the new range follows what earlier runs found, and can contradict it."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from files_and_text.yaml_lines import dump_yaml, load_yaml
from search_spaces import Dimension, load_guidelines, space_for
from sweeps.config import load_sweep, space_of
from sweeps.errors import ConfigError
from sweeps.init.earlier_runs import EarlierRun, best_of, read_earlier_runs
from sweeps.init.facts import DataFacts, ModelFacts
from sweeps.init.new_sweep import new_sweep, new_sweep_text
from sweeps.init.rates_from_runs import MOST_TRIED, OPEN, OTHER_MODEL, SAME_MODEL, rate_override
from sweeps.init.wanted import Wanted
from tests.kept.restoring import restore
from tests.terminal import in_terminal

MODEL = "some/Model-8B"
BEST = 1.2e-3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_STORAGE", raising=False)
    return tmp_path


def earlier_sweep(home: Path, losses: Mapping[float, float] | None) -> Path:
    """A run folder that a sweep left, with finished trials at these rates (losses as shares of the lowest
    that it left); None: as it was left."""
    run = restore("sqlite", home)
    if losses is None:
        return run
    storage = optuna.storages.RDBStorage(f"sqlite:///{run / 'study.db'}")
    study = optuna.load_study(study_name="sqlite", storage=storage)
    done = next(trial for trial in study.get_trials() if trial.state == TrialState.COMPLETE)
    lowest = study.best_value
    for rate, share in losses.items():
        loss = lowest * share
        config = {**done.user_attrs["config"], "learning_rate": rate}
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=loss,
                params={**done.params, "learning_rate": rate},
                distributions=wide(done.distributions),
                user_attrs={**done.user_attrs, "config": config, "eval_loss": loss},
            )
        )
    storage.engine.dispose()
    return run


def wide(distributions: Mapping[str, Any]) -> dict[str, Any]:
    return {**distributions, "learning_rate": optuna.distributions.FloatDistribution(1e-6, 1e-1, log=True)}


def valley(best: float) -> dict[float, float]:
    """Shares of the lowest loss that the sweep left; lowest at `best`."""
    factors = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
    return {best * f: 0.9 * math.exp(0.03 * math.log10(f) ** 2 + 0.02 * max(f - 1, 0)) for f in factors}


def text_for(earlier: Sequence[EarlierRun], **changed: Any) -> str:
    Path("train.jsonl").write_text('{"text": "hello"}\n')
    data = DataFacts(
        format="messages",
        num_records=520,
        num_train=500,
        num_held_out=20,
        eval_fraction=0.05,
        lengths=tuple(range(1, 501)),
        is_sample=False,
    )
    wanted = Wanted(model=MODEL, train="train.jsonl", path=Path("sweep.yaml"), **changed)
    model = ModelFacts(name=MODEL, size=8e9, max_positions=4096)
    return new_sweep_text(wanted, model, data, load_guidelines(), earlier)


def run_of(rate: float, low: float, high: float, model: str = MODEL, **changed: bool) -> EarlierRun:
    return EarlierRun(
        folder="runs/old", model=model, num_finished=12, rate=rate, low=low, high=high, **changed
    )


def tables() -> Dimension:
    return space_for(model_size=8e9, max_steps=189, train_embeddings=False)["learning_rate"]


# --- what a run found -------------------------------------------------------------------------------


def test_the_best_rate_of_a_run_is_read_off_its_curve(folder: Path) -> None:
    (found,) = read_earlier_runs([earlier_sweep(folder, valley(BEST))])
    assert found.low < BEST < found.high
    assert found.low > BEST / 4
    assert found.high < BEST * 4
    assert 0.6 * BEST < found.rate < 1.6 * BEST
    assert found.num_finished == 9  # two that the sweep left
    assert "best learning rate" in found.found
    assert "9 finished trials" in found.found
    assert not found.same


def test_a_run_named_twice_or_with_its_copy_counts_once(folder: Path) -> None:
    run = earlier_sweep(folder, valley(BEST))
    copy = shutil.copytree(run, run.with_name("copy"))
    once = read_earlier_runs([run])[0].found
    (named_twice,) = read_earlier_runs([run, Path(f"{run}/")])
    assert named_twice.found == f"{once}, named more than once, counted once"
    (copied,) = read_earlier_runs([run, copy, run])
    assert copied.found == f"{once}, the same run as {copy}, counted once"
    why = rate_override([copied], tables(), MODEL)["why"]
    assert why == f"earlier runs: {copied.found}"


def test_of_a_run_and_its_copy_from_before_the_longer_counts(folder: Path) -> None:
    run = earlier_sweep(folder, None)
    before = shutil.copytree(run, run.with_name("before"))
    shutil.rmtree(run)
    earlier_sweep(folder, valley(BEST))
    (found,) = read_earlier_runs([before, run])
    assert found.folder == str(run)
    assert found.num_finished == 9
    assert found.same == (str(before),)


def test_two_runs_of_one_name_with_other_trials_both_count(folder: Path) -> None:
    run = earlier_sweep(folder, valley(BEST))
    other = shutil.move(run, run.with_name("other"))
    earlier_sweep(folder, valley(BEST))
    assert [each.same for each in read_earlier_runs([other, run])] == [(), ()]


def test_a_best_at_the_last_rate_is_open_above(folder: Path) -> None:
    losses = {rate: 0.9 - 0.04 * math.log10(rate / 1e-3) for rate in (1e-3, 3e-3, 1e-2, 3e-2)}
    (found,) = read_earlier_runs([earlier_sweep(folder, losses)])
    assert found.open_above
    assert not found.open_below
    assert " to 0.03 or above, " in found.found


def bowl(*more: tuple[float, float]) -> list[tuple[dict[str, Any], float]]:
    """Runs at 12 rates around 2.5e-4, and `more`; the best first."""
    rates = [float(f"{3e-5 * 1.375**step:.4g}") for step in range(12)]
    runs = [(rate, 2 * (1 + 0.3 * math.log10(rate / 2.5e-4) ** 2)) for rate in rates]
    return [
        ({"learning_rate": r, "lora_r": 16}, loss) for r, loss in sorted([*runs, *more], key=lambda x: x[1])
    ]


def test_a_run_near_divergence_does_not_send_the_search_there() -> None:
    without, beside = best_of(bowl()), best_of(bowl((3e-3, 3.5)))
    assert without is not None
    assert beside is not None
    assert not beside.open_above
    assert beside.high == pytest.approx(without.high, rel=0.1)
    assert beside.high < 6e-4


@pytest.mark.parametrize("diverged", [(), (4e-3,), (5e-4,)])
def test_where_a_higher_rate_diverged_the_best_is_not_beyond(diverged: tuple[float, ...]) -> None:
    falling = [(r, 2 - 0.1 * math.log10(r / 1e-4)) for r in (1e-3, 5e-4, 2e-4, 1e-4)]
    found = best_of([({"learning_rate": rate}, loss) for rate, loss in falling], diverged)
    assert found is not None
    assert found.high == pytest.approx(1e-3)
    assert found.open_above == (diverged != (4e-3,))


def test_rates_that_hardly_differ_are_no_curve() -> None:
    nearly_same = [({"learning_rate": 2e-4 * (1 + step / 10_000)}, 2 + step / 100) for step in range(4)]
    assert best_of(nearly_same) is None
    assert best_of([({"learning_rate": rate}, -1.0) for rate in (1e-4, 3e-4, 1e-3)]) is None


def test_of_few_rates_the_best_trial_counts(folder: Path) -> None:
    (found,) = read_earlier_runs([earlier_sweep(folder, None)])
    assert found.low == found.rate == found.high
    assert "2 finished trials" in found.found


# --- the range --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [2e-5, 2e-4, 1e-3, 4e-3])
@pytest.mark.parametrize(("model", "factor"), [(MODEL, SAME_MODEL), ("other/Model-1B", OTHER_MODEL)])
def test_the_range_can_contradict_both_the_runs_and_the_tables(
    rate: float, model: str, factor: float
) -> None:
    run = run_of(rate, rate / 1.5, rate * 1.5, model)
    given = rate_override([run], tables(), MODEL)
    assert given["low"] <= 1.06 * run.low / factor
    assert given["high"] >= 0.94 * run.high * factor
    assert given["low"] <= 1e-4
    assert given["high"] >= 4e-4  # the tables' own 2e-4 has both sides too
    assert math.log10(given["high"] / given["low"]) < 3


def test_an_open_end_widens_more() -> None:
    closed, opened = (
        rate_override([run_of(1e-4, 5e-5, 2e-4, open_above=is_open)], tables(), MODEL)
        for is_open in (False, True)
    )
    assert opened["high"] == pytest.approx(OPEN / SAME_MODEL * closed["high"], rel=0.1)
    assert opened["low"] == closed["low"]


@pytest.mark.parametrize(
    ("run", "low", "high"),
    [
        (run_of(6.3e-3, 4e-3, 0.02, open_above=True), 1e-4, 0.2),  # the demo's
        (run_of(0.03, 0.02, 0.045), 1e-4, 0.14),
        (run_of(3e-3, 2e-3, 6e-3), 1e-4, 0.018),
        (run_of(3e-7, 2e-7, 4.5e-7), 6.7e-8, 4e-4),
        (run_of(2e-6, 1e-6, 4e-6, open_below=True), 1e-7, 4e-4),
    ],
)
def test_a_range_is_not_cut_where_those_of_the_tables_end(run: EarlierRun, low: float, high: float) -> None:
    given = rate_override([run], tables(), MODEL)
    assert (given["low"], given["high"]) == pytest.approx((low, high))
    assert given["try"] == [run.rate]
    assert "Ends at" not in given["why"]
    space = space_for(
        model_size=8e9, max_steps=200, train_embeddings=False, overrides={"learning_rate": given}
    )
    assert space["learning_rate"].bounds() == (given["low"], given["high"])
    assert space.first_trials[1].params["learning_rate"] == run.rate


def test_no_rate_is_searched_that_a_sweep_refuses_and_the_file_says_so() -> None:
    given = rate_override([run_of(0.3, 0.2, 0.5, open_above=True)], tables(), MODEL)
    assert given["high"] == 1
    assert given["why"].endswith(". Ends at 1, not 5: a sweep accepts no higher learning rate")
    space_for(model_size=8e9, max_steps=200, train_embeddings=False, overrides={"learning_rate": given})


def test_a_best_at_the_default_needs_no_trial_of_its_own() -> None:
    given = rate_override([run_of(2.1e-4, 1e-4, 3e-4)], tables(), MODEL)
    space = space_for(
        model_size=8e9, max_steps=200, train_embeddings=False, overrides={"learning_rate": given}
    )
    assert "try" not in given
    assert space["learning_rate"].high == given["high"]


def test_several_runs_are_all_inside_and_few_are_tried() -> None:
    runs = [run_of(rate, rate / 2, rate * 2) for rate in (5e-5, 2.1e-4, 6e-4, 6.3e-4, 1.5e-3, 4e-3)]
    given = rate_override(runs, tables(), MODEL)
    assert given["low"] <= 5e-5 / 2
    assert given["high"] >= 8e-3
    assert given["try"] == [5e-5, 6e-4, 1.5e-3]  # not the default's neighbour, nor the same twice
    assert len(given["try"]) == MOST_TRIED
    assert given["why"].count("runs/old") == len(runs)


# --- the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", load_guidelines().scenarios())
def test_the_file_says_where_the_range_comes_from_and_keeps_the_rows(scenario: str) -> None:
    run = run_of(1.5e-3, 1e-3, 2e-3)
    text = text_for([run], scenario=scenario)
    assert "The learning rate follows earlier runs" in " ".join(text.replace("#", "").split())
    assert "also outside 1e-6 to 0.01, where ranges from the tables end" in " ".join(
        text.replace("#", "").split()
    )
    assert text.count(run.found) == 1
    assert max(len(line) for line in text.splitlines() if not line.startswith("  #   ")) <= 115
    Path("sweep.yaml").write_text(text)
    space = space_of(load_sweep("sweep.yaml", environ={}))
    without = space_of(_loaded(text_for([], scenario=scenario)))
    rate = space["learning_rate"]
    assert rate.high == pytest.approx(6e-3)
    assert run.found in rate.note
    assert space.first_trials[0] == without.first_trials[0]  # the guideline default
    assert space.first_trials[1].params["learning_rate"] == 1.5e-3
    assert space.first_trials[1].rows == tuple(
        row for row in space.first_trials[0].rows if load_guidelines()[row].parameter != "learning_rate"
    )
    assert [*space.first_trials[:1], *space.first_trials[2:]] == list(without.first_trials)
    assert not space.context["dropped"]


def _loaded(text: str) -> Any:
    Path("other.yaml").write_text(text)
    return load_sweep("other.yaml", environ={})


@pytest.mark.slow
def test_a_sweep_from_an_earlier_run_is_one_that_plan_accepts(
    folder: Path, tiny_model: Callable[..., Path]
) -> None:
    run = earlier_sweep(folder, valley(BEST))
    wanted = Wanted(model="base", train="data.jsonl", path=Path("sweep.yaml"), earlier_runs=(run,))
    made = new_sweep(wanted)
    assert load_sweep("sweep.yaml") == made.config
    said = made.summary()
    assert any(line.startswith(f"From    {run}: best learning rate") for line in said)
    assert any(line.startswith("Rates   ") for line in said)
    labels = [trial.label for trial in made.blueprint.study_spec.space.first_trials]
    assert labels[0] == "guideline default"
    assert labels[1].endswith(", named in the sweep file")


# --- bad input --------------------------------------------------------------------------------------


def test_problems_of_all_runs_come_at_once_and_nothing_is_written(folder: Path) -> None:
    restore("sqlite", folder)
    full = restore("confirm", folder)
    settings, _ = load_yaml(full / "sweep.yaml")
    (full / "sweep.yaml").write_text(dump_yaml({**settings, "method": "full"}))
    unstarted = folder / "runs" / "unstarted"
    unstarted.mkdir()
    settings.pop("storage", None)
    (unstarted / "sweep.yaml").write_text(dump_yaml({**settings, "name": "unstarted"}))
    before = sorted(folder.rglob("*"))
    wanted = Wanted(
        model="base",
        train="data.jsonl",
        path=Path("sweep.yaml"),
        earlier_runs=(folder / "runs" / "sqlit", full, unstarted, folder / "data.jsonl"),
    )
    with pytest.raises(ConfigError) as caught:
        new_sweep(wanted)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "--from takes the folder of a run" in lines[0]
    assert "Did you mean" in lines[0]
    assert "runs/sqlite" in lines[0]
    assert "must be qlora; got 'full'" in lines[1]
    assert "--from takes runs with trials" in lines[2]
    assert "data.jsonl" in lines[3]
    assert sorted(folder.rglob("*")) == before


def test_a_run_without_a_finished_trial_is_refused(folder: Path) -> None:
    run = restore("sqlite", folder)
    storage = optuna.storages.RDBStorage(f"sqlite:///{run / 'study.db'}")
    optuna.delete_study(study_name="sqlite", storage=storage)
    study = optuna.create_study(study_name="sqlite", storage=storage)
    study.ask()
    storage.engine.dispose()
    with pytest.raises(ConfigError, match=r"this run has 1 trial, none finished at its full budget"):
        read_earlier_runs([run])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"try": []}, "the try of learning_rate must not be empty"),
        ({"try": [3e-4, 3e-4]}, "0.0003 is given twice"),
        ({"low": 1e-4, "high": 1e-3, "try": [5e-3]}, "tries 0.005, which its range does not hold"),
        ({"try": ["linear"]}, "learning_rate"),
        ({"low": 1e-4, "why": 3}, "why"),
    ],
)
def test_wrong_values_to_try_are_refused(body: dict[str, Any], words: str) -> None:
    from files_and_text.problems import InputError

    with pytest.raises(InputError, match=words):
        space_for(model_size=8e9, max_steps=200, train_embeddings=False, overrides={"learning_rate": body})


def test_the_help_names_it() -> None:
    seen = in_terminal([sys.executable, "-m", "sweeps", "init", "--help"], rows=60)
    assert seen.code == 0
    assert "--from RUN" in seen.text
    assert all(len(line) <= 80 for line in seen.lines)
