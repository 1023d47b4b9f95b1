"""After `confirm --no-rows` the guideline default alone decides rows: which ones, and how often wrongly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest

from results.text.comparisons import verdict_sentence
from results.text.parameters import together
from results.verdict.verdict import Verdict, verdict
from search_spaces import DEFAULT_LABEL, load_guidelines
from tests.results.confirm_studies import arm, confirm
from tests.results.conftest import answer_of, study, trial

DEFAULT = {"learning_rate": 2e-4, "embedding_lr_ratio": 0.25, "lr_scheduler_type": "linear"}
ROWS = [row.to_dict() for row in load_guidelines().values() if row.id == "scenario.general"]
RATES = ("scenario.general", "method.qlora", "method.unsloth")


def sweep(*others: tuple[float, float]) -> optuna.Study:
    """The best at 4e-4, the default at 2e-4, and trials at (rate, loss) with a scheduler of their own."""
    return study(
        trial(2.10, lr=2e-4, label=DEFAULT_LABEL, rows=("scenario.general",)),
        trial(2.00, lr=4e-4, ratio=0.125, scheduler="cosine"),
        *(trial(loss, lr=rate, ratio=0.2, scheduler="constant") for rate, loss in others),
    )


def confirmed(default: float, *others: tuple[float, float]) -> Verdict:
    arms = (arm("best", "best"), 2.0), (arm("default", "guideline_default", **DEFAULT), default)
    return verdict(sweep(*others), confirm(*arms))


def words(found: Verdict) -> dict[str, str]:
    return {row.row.id: row.word for row in found.rows}


def test_a_default_that_is_as_good_decides_every_row_whose_value_it_holds() -> None:
    said = words(confirmed(2.0005))
    assert {said[name] for name in RATES} == {"no_difference"}
    assert said["scheduler.short"] == said["embedding.ratio"] == "no_difference"
    assert said["warmup.share_of_steps"] == "no_worse"  # it holds the best: nothing outside was tried
    assert said["boundary.too_high"] != "no_difference"  # not the default's value
    assert said["embedding.times_lower"] == "undecided"  # 0.05 to 0.1: the default has 0.25
    assert said["size.70b"] == "not_tested"


def test_a_default_that_is_better_supports_them() -> None:
    said = words(confirmed(1.9))
    assert {said[name] for name in RATES} == {"supported"}


def test_a_default_that_is_worse_refutes_no_row_by_itself() -> None:
    """It differs from the best in the rate, the embedding rate and the scheduler."""
    found = confirmed(2.1)
    said = words(found)
    assert {said[name] for name in (*RATES, "scheduler.short", "embedding.ratio")} == {"undecided"}
    row = next(row for row in found.rows if row.row.id == RATES[0])
    assert row.by_default
    said = "undecided; what was run again differs from the best in other values too."
    assert said in verdict_sentence(row, found.margin)


def test_a_rate_is_refuted_where_other_settings_did_not_help_it_either() -> None:
    said = words(confirmed(2.1, (2e-4, 2.09)))
    assert {said[name] for name in RATES} == {"too_low"}
    assert said["scheduler.short"] == "undecided"
    assert words(confirmed(2.1, (2e-4, 2.008)))[RATES[0]] == "undecided"  # retuned it is within the margin


def test_a_range_is_not_refuted_by_the_default_inside_it() -> None:
    """method.common_range is 1e-5 to 1e-3; the default's 2e-4 is not its end."""
    said = words(confirmed(2.1, (2e-4, 2.09)))
    assert said["method.common_range"] != "too_low"


def test_a_default_that_differs_in_the_rate_alone_tests_the_rate() -> None:
    alone = arm("default", "guideline_default", learning_rate=2e-4)
    made = verdict(sweep(), confirm((arm("best", "best"), 2.0), (alone, 2.1)))
    assert words(made)[RATES[0]] == "too_low"
    assert not any(row.by_default and row.word == "too_low" for row in made.rows)


def test_before_three_seeds_it_decides_nothing() -> None:
    arms = (arm("best", "best"), 2.0), (arm("default", "guideline_default", **DEFAULT), 2.0)
    assert set(words(verdict(sweep(), confirm(*arms, seeds=2))).values()) <= {"undecided", "not_tested"}


def test_what_a_worse_default_leaves_open_is_told_with_the_command_that_tells() -> None:
    default = (arm("default", "guideline_default", **DEFAULT), 2.2)
    found = answer_of(sweep(), confirm((arm("best", "best"), 2.0), default))
    assert together(found) == (
        "The tables' values cost 9.5% together. Each of them alone (about 2 min):",
        "sweeps confirm runs/mine --anew --trials 60",
    )
    rate = (arm("rate", "row", ("scenario.general",), learning_rate=2e-4), 2.1)
    assert together(answer_of(sweep(), confirm((arm("best", "best"), 2.0), default, rate))) is None


def test_the_cost_beside_a_decided_word_is_that_of_the_comparison_that_decided_it() -> None:
    arms = (arm("best", "best"), 2.0), (arm("default", "guideline_default", **DEFAULT), 2.2)
    found = answer_of(sweep((2e-4, 2.09)), confirm(*arms))
    rate = next(p for p in found.parameters if p.parameter == "learning_rate").tables[0]
    assert (rate.text, rate.word) == ("2e-4", "too_low")
    assert rate.cost is not None
    assert found.default.gap is not None
    assert rate.cost.percent == found.default.gap.percent == pytest.approx(9.5, abs=0.1)
    assert rate.cost.differs_in == ("embedding_lr_ratio", "lr_scheduler_type")
    schedulers = next(p for p in found.parameters if p.parameter == "lr_scheduler_type").tables
    undecided = next(value for value in schedulers if value.text == "linear or constant")
    assert undecided.word == "undecided"
    assert undecided.cost is not None
    assert (undecided.cost.seeds, undecided.cost.trial) == (0, 2)
    assert undecided.cost.percent == pytest.approx(4.5)


def test_the_default_shows_no_cost_of_its_one_run_once_it_was_run_again() -> None:
    """Where no other trial holds the value, its trial alone would stand for it."""
    arms = (arm("best", "best"), 2.0), (arm("default", "guideline_default", **DEFAULT), 2.2)
    found = answer_of(sweep(), confirm(*arms))
    rate = next(p for p in found.parameters if p.parameter == "learning_rate").tables[0]
    assert (rate.word, rate.cost and rate.cost.seeds) == ("undecided", 5)
    assert rate.cost == replace(found.default.gap, differs_in=rate.cost.differs_in)


@pytest.mark.parametrize(("seeds", "near_best", "retuned"), [(3, 12, 1), (5, 30, 1)])
def test_wrong_words_stay_under_the_stated_rate(seeds: int, near_best: int, retuned: int) -> None:
    """At the worst: the rate costs exactly the margin, the default twice as much through another setting, the
    sweep has many trials as good as its best, of which it takes the luckiest, and few with the rate."""
    generator, sweeps, wrong = np.random.default_rng(11), 200, 0
    noise, margin = 0.004, 0.005 * 2.0
    for _ in range(sweeps):
        losses = 2.0 + generator.normal(0, noise, near_best)
        own = 2.0 + margin + generator.normal(0, noise, retuned)
        made = study(
            trial(2.0 + 2 * margin + float(generator.normal(0, noise)), lr=2e-4, label=DEFAULT_LABEL),
            *(trial(float(x), lr=4e-4, ratio=0.125, scheduler="cosine") for x in losses),
            *(trial(float(x), lr=2e-4, ratio=0.125, scheduler="cosine") for x in own),
            guidelines=ROWS,
        )
        again = noisy(2.0, 2.0 + 8 * margin, seeds, noise, generator)
        found = words(verdict(made, again, has_model=False))
        wrong += found["scenario.general"] not in ("undecided", "not_tested")
    assert wrong / sweeps <= 0.05


def noisy(
    best: float, default: float, seeds: int, noise: float, generator: np.random.Generator
) -> optuna.Study:
    """Both arms on the seeds, each run with its own noise; the default is clearly worse."""
    made = optuna.create_study(study_name=f"confirm-{generator.integers(1 << 60)}")
    arms = (arm("best", "best"), best), (arm("default", "guideline_default", **DEFAULT), default)
    made.set_user_attr("arms", [entry for entry, _ in arms])
    for seed in range(seeds):
        for entry, mean in arms:
            made.add_trial(
                optuna.trial.create_trial(
                    value=mean + float(generator.normal(0, noise)),
                    user_attrs={"arm": entry["name"], "seed": seed, "outcome": "complete"},
                )
            )
    return made
