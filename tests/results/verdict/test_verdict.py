"""A verdict per guideline row: position, distance and cost, each checked by independent arithmetic."""

from __future__ import annotations

import json
import math

import pytest

from files_and_text.problems import InputError
from results.errors import NothingToSay
from results.render.json_data import row_data, verdict_data
from results.text.limitations import limitation_text
from results.text.rows import description, early_ends, evidence, reason_not_tested
from results.verdict.row_verdict import RowVerdict
from results.verdict.verdict import Verdict, verdict
from tests.results.conftest import answer_of

DEFAULT = "guideline default"


def limitations(result: Verdict) -> list[str]:
    return [limitation_text(found) for found in result.limitations]


def row_of(result: Verdict, row_id: str) -> RowVerdict:
    return next(row for row in result.rows if row.row.id == row_id)


def test_best_above_a_point_row_with_the_rows_own_trial(make_trial, make_study):
    study = make_study(
        make_trial(2.10, lr=2e-4, rows=("scenario.general",), label=DEFAULT),
        make_trial(2.00, lr=8e-4),
        make_trial(2.05, lr=4e-4),
    )
    row = row_of(verdict(study), "scenario.general")
    assert row.measurement.position == "above"
    assert row.measurement.best_value == 8e-4
    assert row.measurement.best_trial == 1
    assert row.measurement.distance_log10 == pytest.approx(math.log10(8e-4 / 2e-4))
    assert row.measurement.centre_offset_log10 == pytest.approx(math.log10(4))
    assert row.measurement.cost is not None
    assert row.measurement.cost.trial == 0
    assert row.measurement.cost.difference == pytest.approx(0.10)
    assert row.measurement.cost.percent == pytest.approx(100 * 0.10 / 2.00)
    assert row.measurement.cost.own_value
    assert evidence(row) == "measured by trial 0 (the row's own value)"


def test_best_below_a_range_row_measured_by_the_best_trial_inside(make_trial, make_study):
    study = make_study(
        make_trial(2.00, lr=5e-5, ratio=0.1, warmup=0.02),
        make_trial(2.30, lr=1.5e-4, ratio=1.0, warmup=0.2),
        make_trial(2.20, lr=1.5e-4, ratio=0.12, warmup=0.02),  # the row with better companions
        make_trial(2.10, lr=3e-4, ratio=0.1, warmup=0.02),  # outside the row
        context={"scenario": "instruction"},
    )
    row = row_of(verdict(study), "scenario.instruction")  # 1e-4 to 2e-4
    assert row.measurement.position == "below"
    assert row.measurement.distance_log10 == pytest.approx(math.log10(1e-4 / 5e-5))
    assert row.measurement.centre_offset_log10 == pytest.approx(math.log10(5e-5 / math.sqrt(1e-4 * 2e-4)))
    assert evidence(row) == "best full-budget trial inside the row: 2"
    assert row.measurement.cost is not None
    assert row.measurement.cost.difference == pytest.approx(0.20)
    assert row.measurement.cost.percent == pytest.approx(10.0)
    assert not row.measurement.cost.own_value
    assert row.measurement.cost.differs_in == ("embedding_lr_ratio",)


def test_the_best_trial_inside_the_row_measures_it_own_or_not(make_trial, make_study):
    """The charitable reading: the row's value with the best other settings that were tried."""
    study = make_study(
        make_trial(2.4, lr=1e-4, ratio=0.9, rows=("scenario.instruction",)),
        make_trial(2.1, lr=1.2e-4, ratio=0.1),
        make_trial(2.0, lr=1e-3, ratio=0.1),
        context={"scenario": "instruction"},
    )
    row = row_of(verdict(study), "scenario.instruction")
    assert row.measurement.cost is not None
    assert (row.measurement.cost.trial, row.measurement.cost.own_value) == (1, False)
    assert row.measurement.cost.difference == pytest.approx(0.1)
    assert evidence(row) == "best full-budget trial inside the row: 1"


def test_a_row_that_holds_the_best_costs_nothing(make_trial, make_study):
    study = make_study(
        make_trial(2.0, lr=1.5e-4),
        make_trial(2.5, lr=1e-4, rows=("scenario.instruction",)),
        context={"scenario": "instruction"},
    )
    row = row_of(verdict(study), "scenario.instruction")
    assert (row.measurement.position, row.measurement.distance_log10) == ("inside", 0.0)
    assert evidence(row) == "best full-budget trial inside the row: 0, the best itself"
    assert row.measurement.cost is not None
    assert row.measurement.cost.difference == 0.0


@pytest.mark.parametrize("rate", [1.1e-5, 9.9e-5, 1e-4, 1.3e-4, 2e-4, 2.1e-4, 1.9e-3])
def test_position_and_distance_follow_the_best_rate(make_trial, make_study, rate):
    study = make_study(make_trial(2.0, lr=rate), context={"scenario": "instruction"})
    row = row_of(verdict(study), "scenario.instruction")
    expected = "below" if rate < 1e-4 else "above" if rate > 2e-4 else "inside"
    assert row.measurement.position == expected
    distance = max(0.0, math.log10(1e-4 / rate), math.log10(rate / 2e-4))
    assert row.measurement.distance_log10 == pytest.approx(distance, abs=1e-12)


def test_a_stopped_trial_is_evidence_but_never_a_cost_nor_the_best(make_trial, make_study):
    study = make_study(
        make_trial(
            outcome="pruned",
            lr=2e-4,
            rows=("scenario.general",),
            label=DEFAULT,
            reports={20: 1.7, 40: 1.5},
            reason="behind the others at 40%",
        ),
        make_trial(2.0, lr=8e-4),
    )
    result = verdict(study)
    assert result.best is not None
    assert result.best.number == 1
    row = row_of(result, "scenario.general")
    assert row.measurement.cost is None
    assert evidence(row) == "not measured"
    expected = "trial 0 (the row's own value) was stopped at 40%: behind the others at 40%"
    assert early_ends(row) == [expected]
    assert "1.5" not in json.dumps(description(row))
    assert any("guideline default, trial 0, did not finish (pruned)" in text for text in limitations(result))


def test_only_full_budget_finite_complete_trials_count(make_trial, make_study):
    study = make_study(
        make_trial(1.0, lr=3e-4, attrs={"num_steps": 10}),  # stored as complete with a truncated value
        make_trial(1.1, lr=3e-4, attrs={"outcome": "pruned"}),  # complete in name only
        make_trial(math.inf, lr=3e-4, reports={50: 2.0}),
        make_trial(2.0, lr=8e-4),
        make_trial(outcome="failed", lr=1e-4, reason="worker died"),
        make_trial(outcome="running", lr=1e-4, reports={20: 1.2}),
        make_trial(outcome="diverged", lr=1e-3, reports={20: math.nan}, signs=("nan_or_inf",)),
    )
    result = verdict(study)
    assert result.best is not None
    assert result.best.number == 3
    assert result.outcomes == {"complete": 3, "diverged": 1, "failed": 1, "pruned": 1, "running": 1}
    assert any("2 trials left out" in text and text.endswith(": 0, 2.") for text in limitations(result))
    assert any("1 trial not finished" in text for text in limitations(result))


@pytest.mark.parametrize(
    ("context", "row_id", "words"),
    [
        ({}, "scenario.complex", "this sweep's scenario is 'general'"),
        ({}, "size.70b", "this base has 8.03B parameters"),
        ({}, "batch.13b", "this base has 8.03B parameters"),
        ({}, "scheduler.medium", "this sweep trains for 200 steps"),
        ({}, "method.full", "this sweep's method is qlora"),
        ({"train_embeddings": False}, "embedding.ratio", "does not train embeddings"),
        ({"model_size": None}, "size.7-8b", "did not record its model's size"),
        ({}, "scheduler.plateau", "names no value"),
        ({}, "batch.7-8b", "per_device_train_batch_size was not searched: every trial held it at 4"),
        (
            {"max_steps": 200},
            "scenario.short",
            "this sweep's scenario is 'general' and it trains for 200 steps",
        ),
    ],
)
def test_rows_about_other_runs_or_unsearched_parameters_are_not_tested(
    make_trial, make_study, context, row_id, words
):
    row = row_of(verdict(make_study(make_trial(2.0), context=context)), row_id)
    assert row.measurement.position == "not_tested"
    assert words in reason_not_tested(row)
    assert row.measurement.cost is None
    assert row.measurement.distance_log10 is None


def test_scheduler_rows_by_names(make_trial, make_study):
    study = make_study(
        make_trial(2.00, scheduler="cosine"),
        make_trial(2.06, scheduler="linear", rows=("scheduler.short",)),
        make_trial(2.03, scheduler="constant"),
    )
    result = verdict(study)
    row = row_of(result, "scheduler.short")  # linear or constant below 500 steps
    assert row.measurement.position == "outside"
    assert row.measurement.best_value == "cosine"
    assert row.measurement.distance_log10 is None
    assert row.measurement.cost is not None
    assert (row.measurement.cost.trial, row.measurement.cost.difference) == (2, pytest.approx(0.03))
    assert row_of(result, "scheduler.lora_start").measurement.position == "inside"  # cosine


def test_warmup_rows_as_ratio_and_as_steps(make_trial, make_study):
    study = make_study(
        make_trial(2.0, warmup=0.025),  # 5 of 200 steps
        make_trial(2.2, warmup=0.08),  # 16 steps
    )
    result = verdict(study)
    steps = row_of(result, "warmup.min_steps")  # 10 to 100
    assert (steps.measurement.position, steps.measurement.best_value) == ("below", 5)
    assert steps.measurement.distance_log10 == pytest.approx(math.log10(10 / 5))
    assert steps.measurement.cost is not None
    assert (steps.measurement.cost.trial, steps.measurement.cost.difference) == (1, pytest.approx(0.2))
    ratio = row_of(result, "warmup.ratio")  # 0.03 to 0.1
    assert ratio.measurement.position == "below"
    assert ratio.measurement.distance_log10 == pytest.approx(math.log10(0.03 / 0.025))


def test_no_warmup_at_all_lies_below_without_a_distance(make_trial, make_study):
    row = row_of(verdict(make_study(make_trial(2.0, warmup=0.0))), "warmup.ratio")
    assert row.measurement.position == "below"
    assert row.measurement.distance_log10 is None


def test_a_warmup_that_the_best_does_not_use_is_not_called_the_best(make_trial, make_study):
    study = make_study(make_trial(2.0, scheduler="constant"), make_trial(2.3, warmup=0.05))
    row = row_of(verdict(study), "warmup.ratio")
    assert (row.measurement.position, row.measurement.best_trial) == ("unused", None)
    assert "The best trial, 0, has no warmup_ratio" in description(row)
    assert row.measurement.cost is not None
    assert row.measurement.cost.difference == pytest.approx(0.3)  # still against the best of the sweep


def test_embedding_rows_in_absolute_rate_ratio_and_times_lower(make_trial, make_study):
    study = make_study(
        make_trial(2.00, lr=4e-4, ratio=0.5),  # embeddings at 2e-4
        make_trial(2.10, lr=2e-4, ratio=0.25, rows=("embedding.default", "embedding.ratio")),
        make_trial(2.40, lr=2e-4, ratio=0.08, rows=("embedding.times_lower",)),
    )
    result = verdict(study)
    absolute = row_of(result, "embedding.default")  # 5e-5
    assert absolute.measurement.position == "above"
    assert absolute.measurement.distance_log10 == pytest.approx(math.log10(2e-4 / 5e-5))
    assert absolute.measurement.cost is not None
    assert (absolute.measurement.cost.trial, absolute.measurement.cost.difference) == (1, pytest.approx(0.1))
    ratio = row_of(result, "embedding.ratio")  # 0.25
    assert ratio.measurement.distance_log10 == pytest.approx(math.log10(0.5 / 0.25))
    times = row_of(result, "embedding.times_lower")  # 10-20x lower: 0.05 to 0.1
    assert times.measurement.distance_log10 == pytest.approx(math.log10(0.5 / 0.1))
    assert times.measurement.centre_offset_log10 == pytest.approx(math.log10(0.5 / math.sqrt(0.05 * 0.1)))
    assert times.measurement.cost is not None
    assert times.measurement.cost.difference == pytest.approx(0.4)


@pytest.mark.parametrize("rounding", [1 - 1e-12, 1.0, 1 + 1e-12])
def test_a_product_of_two_drawn_values_still_meets_a_point_row(make_trial, make_study, rounding):
    study = make_study(make_trial(2.0, lr=3e-4, ratio=5e-5 / 3e-4 * rounding, rows=("embedding.default",)))
    row = row_of(verdict(study), "embedding.default")
    assert (row.measurement.position, evidence(row)) == (
        "inside",
        "measured by trial 0 (the row's own value, the best itself)",
    )


def test_boundary_row_counts_the_outcomes_of_trials_beyond_it(make_trial, make_study):
    study = make_study(
        make_trial(2.00, lr=4e-4),
        make_trial(2.30, lr=1e-3),
        make_trial(2.20, lr=1.5e-3, signs=("loss_spike",)),
        make_trial(outcome="diverged", lr=1.8e-3, signs=("nan_or_inf",), reports={20: 9.0}),
    )
    row = row_of(verdict(study), "boundary.too_high")  # 1e-3
    assert row.measurement.position == "below"
    assert row_data(row)["details"]["trials"] == [1, 2, 3]
    assert row_data(row)["details"]["outcomes"] == {"complete": 2, "diverged": 1}
    assert row_data(row)["details"]["signs"] == {"loss_spike": 1, "nan_or_inf": 1}
    assert row.measurement.cost is not None
    assert (row.measurement.cost.trial, row.measurement.cost.difference) == (2, pytest.approx(0.20))


def test_boundary_row_nobody_reached_and_one_the_best_lies_beyond(make_trial, make_study):
    result = verdict(make_study(make_trial(2.0, lr=1.5e-3)))
    low = row_of(result, "boundary.too_low")  # 1e-6; the search ends at 1e-5
    assert low.measurement.position == "not_tested"
    assert "no trial at 1e-6 or below" in reason_not_tested(low)
    assert "1e-5 to 2e-3" in reason_not_tested(low).replace("0.002", "2e-3")
    assert row_of(result, "boundary.too_high").measurement.position == "above"


def test_boundary_row_about_another_model_still_says_what_happened(make_trial, make_study):
    study = make_study(make_trial(2.0, lr=4e-4), make_trial(2.5, lr=1.2e-3), context={"model_size": 5e6})
    row = row_of(verdict(study), "boundary.too_high")
    assert row.measurement.position == "not_tested"
    assert "this base has 5M parameters" in reason_not_tested(row)
    assert row_data(row)["details"]["trials"] == [1]
    assert "1 trial at 1e-3 or above" in evidence(row)


def test_stability_row_compares_the_rates_of_trials_with_and_without_the_sign(make_trial, make_study):
    study = make_study(
        make_trial(2.0, lr=1e-4),
        make_trial(2.1, lr=2e-4),
        make_trial(2.2, lr=4e-4),
        make_trial(outcome="pruned", lr=9e-4, signs=("loss_spike",), reports={20: 3.0}),
        make_trial(2.6, lr=1.1e-3, signs=("loss_spike", "eval_rises")),
        make_trial(outcome="failed", lr=1.9e-3, signs=("loss_spike",)),  # a failure does not count
    )
    result = verdict(study)
    row = row_of(result, "stability.spike")
    assert row.measurement.position == "above"
    assert row_data(row)["details"]["trials"] == [3, 4]
    assert row_data(row)["details"]["median_with_sign"] == pytest.approx((9e-4 + 1.1e-3) / 2)
    assert row_data(row)["details"]["median_without_sign"] == pytest.approx(2e-4)
    assert row_data(row)["details"]["num_on_said_side_of_best"] == 2  # both above the best, 1e-4
    assert row.word == "undecided"
    assert "too high" in description(row)
    silent = row_of(result, "stability.unchanged")
    assert silent.measurement.position == "not_tested"
    assert "none of 5 trials showed barely_changed" in reason_not_tested(silent)
    assert row_of(result, "stability.many_epochs").measurement.position == "not_tested"


def test_a_sign_on_the_wrong_side_is_reported_as_it_is(make_trial, make_study):
    study = make_study(make_trial(2.0, lr=1e-3), make_trial(2.5, lr=2e-5, signs=("loss_spike",)))
    row = row_of(verdict(study), "stability.spike")
    assert (row.measurement.position, row_data(row)["details"]["num_on_said_side_of_best"]) == ("below", 0)


def test_best_at_an_end_of_the_search_is_flagged_but_zero_is_no_edge(make_trial, make_study):
    result = verdict(make_study(make_trial(2.0, lr=1.9e-3, ratio=0.1, warmup=0.0)))
    assert [(edge.dimension, edge.side) for edge in result.edges] == [("learning_rate", "high")]
    assert any("widen the range" in text for text in limitations(result))
    assert verdict(make_study(make_trial(2.0, lr=2e-4, ratio=0.1))).edges == []
    low = verdict(make_study(make_trial(2.0, lr=1e-5, ratio=0.1)))
    assert [(edge.dimension, edge.side) for edge in low.edges] == [("learning_rate", "low")]


def test_a_best_no_better_than_the_base_is_a_limitation(make_trial, make_study):
    worse = verdict(make_study(make_trial(4.0), base=3.25))
    assert any("no better than the untouched base" in text for text in limitations(worse))


def test_the_first_limitation_says_that_noise_is_unknown(make_trial, make_study):
    result = verdict(make_study(make_trial(2.0)))
    assert limitations(result)[0].startswith("Every configuration ran once")


def test_layers_without_an_adapter_are_a_limitation(make_trial, make_study):
    """A model whose linear layers all have adapters needs no such sentence."""
    told = ["on 14 linear layers of the language model", "none on 2 linear layers, such as a, which b"]
    seen = verdict(make_study(make_trial(2.0), context={"adapters": told}))
    assert f"Adapters were trained {told[0]}; {told[1]}." in limitations(seen)
    plain = verdict(make_study(make_trial(2.0), context={"adapters": ["on 14 linear layers of the model"]}))
    assert not any("dapter" in caveat for caveat in limitations(plain))


def test_a_study_without_a_finished_trial_answers_without_a_best(make_trial, make_study):
    study = make_study(
        make_trial(outcome="diverged", lr=1.5e-3, signs=("nan_or_inf",), reports={20: math.inf}),
        make_trial(outcome="pruned", lr=2e-4, rows=("scenario.general",), label=DEFAULT, reports={40: 2.0}),
    )
    result = verdict(study)
    assert result.best is None
    row = row_of(result, "scenario.general")
    assert row.measurement.position == "not_tested"
    assert reason_not_tested(row) == "no trial finished its full budget with a finite loss"
    assert early_ends(row) == ["trial 1 (the row's own value) was stopped at 40%"]
    assert row_of(result, "stability.nan").measurement.position == "above"
    json.dumps(verdict_data(result, answer_of(study)), allow_nan=False)


def test_an_empty_study_is_an_error_that_says_so(make_study):
    with pytest.raises(NothingToSay, match="has no trial yet"):
        verdict(make_study())


def test_a_study_without_attributes_is_judged_as_far_as_it_goes(make_trial, make_study):
    result = verdict(make_study(make_trial(2.0), space=None, guidelines=[], base=None))
    assert result.best is not None
    assert result.rows == []
    assert any("names no guideline rows" in text for text in limitations(result))


def test_invalid_rows_are_refused(make_trial, make_study):
    with pytest.raises(InputError, match="topic"):
        verdict(make_study(make_trial(2.0), guidelines=[{"id": "x", "topic": "weather", "source": "me"}]))


def test_the_guideline_default_that_was_run_again_counts(make_trial, make_study):
    study = make_study(
        make_trial(outcome="failed", label=DEFAULT, reason="worker died"),
        make_trial(2.2, label=DEFAULT),
        make_trial(2.0, lr=4e-4),
    )
    default = verdict(study).guideline_default
    assert default is not None
    assert (default.number, default.eval_loss) == (1, 2.2)


def test_proposed_trials_that_wait_are_no_results(make_trial, make_study):
    study = make_study()
    study.enqueue_trial({"learning_rate": 1e-4}, user_attrs={"label": DEFAULT, "rows": ["scenario.general"]})
    with pytest.raises(NothingToSay):
        verdict(study)
    study.add_trial(make_trial(2.0))
    result = verdict(study)
    assert result.outcomes == {"complete": 1, "waiting": 1}
    assert any("1 trial not finished" in text for text in limitations(result))


def test_own_trials_that_were_stopped_are_left_out_once_one_has_measured(make_trial, make_study):
    stopped = make_trial(outcome="pruned", lr=2e-4, ratio=0.5, rows=("scenario.general",), reports={20: 2.9})
    only_stopped = make_study(stopped, make_trial(2.0, lr=8e-4))
    assert len(early_ends(row_of(verdict(only_stopped), "scenario.general"))) == 1
    measured = make_study(stopped, make_trial(2.1, rows=("scenario.general",)), make_trial(2.0, lr=8e-4))
    assert early_ends(row_of(verdict(measured), "scenario.general")) == []
