"""Verdicts of a sweep with a confirm study: words, effects, bands, edges and conditions, up to the files."""

from __future__ import annotations

import json
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from results.errors import DamagedReplicates
from results.render.files import write_verdict
from results.render.rows_page import rows_page
from results.render.terminal import parameter_table, render, render_rows
from results.text.comparisons import verdict_sentence
from results.text.conditions import conditions_statement, shown_conditions
from results.text.limitations import limitation_text
from results.verdict.replicates import read_replicates
from results.verdict.row_verdict import RowVerdict
from results.verdict.verdict import Verdict, verdict
from tests.results.confirm_studies import ARMS, arm, confirm
from tests.results.conftest import SPACE, answer_of


@pytest.fixture
def sweep(make_trial, make_study):
    """A sweep whose best lies at 4e-4, cosine, embeddings at an eighth of it."""
    return make_study(
        make_trial(2.10, lr=2e-4, rows=("scenario.general",), label="guideline default"),
        make_trial(2.00, lr=4e-4, ratio=0.125, scheduler="cosine"),
        make_trial(2.005, lr=3e-4, ratio=0.125, scheduler="cosine"),
        make_trial(2.40, lr=1.5e-3, scheduler="cosine"),
    )


def limitations(result: Verdict) -> list[str]:
    return [limitation_text(found) for found in result.limitations]


def row_of(result: Verdict, row_id: str) -> RowVerdict:
    return next(row for row in result.rows if row.row.id == row_id)


def test_words_follow_from_the_arms(sweep):
    result = verdict(sweep, confirm(*ARMS))
    words = {row.row.id: row.word for row in result.rows}
    assert words["scenario.general"] == "too_low"
    assert words["size.7-8b"] == "too_low"
    assert words["method.qlora"] == "too_low"  # 2e-4 as well, with everything else at the best
    assert words["boundary.too_high"] == "supported"  # five of five runs at 1e-3 diverged
    assert words["scheduler.short"] == "no_difference"  # linear is as good, cosine is not in the row
    assert words["scheduler.lora_start"] == "no_difference"  # cosine; linear does as well
    assert words["scheduler.decay"] == "supported"  # cosine or linear; constant is worse
    assert words["boundary.same_rate"] == "supported"
    assert words["embedding.when_unfrozen"] == "supported"
    assert words["stability.spike"] == "not_tested"
    assert words["size.70b"] == "not_tested"
    row = row_of(result, "scenario.general")
    assert row.comparison is not None
    assert row.comparison.effect == pytest.approx(0.05, abs=1e-3)
    assert row.comparison.percent(row.comparison.effect) == pytest.approx(
        100 * row.comparison.effect / row.comparison.other_loss
    )
    assert row.comparison.pairs == 5


def test_a_row_that_holds_the_best_is_supported_by_what_lies_outside(sweep):
    """warmup.ratio is 0.03 to 0.1, the best has 0.05; without an arm outside nothing contradicts it."""
    outside = (arm("warmup 0", "row", ("x",), warmup_ratio=0.0), 2.2)
    words = {row.row.id: row.word for row in verdict(sweep, confirm(ARMS[0], outside)).rows}
    assert words["warmup.ratio"] == "supported"
    assert words["warmup.min_steps"] == "supported"  # 10 of 200 steps
    alone = {row.row.id: row.word for row in verdict(sweep, confirm(ARMS[0], ARMS[2])).rows}
    assert alone["warmup.ratio"] == "undecided"


def test_a_scheduler_that_is_worse_is_not_supported(sweep):
    result = verdict(sweep, confirm(ARMS[0], (ARMS[4][0], 2.2), ARMS[5]))
    assert row_of(result, "scheduler.short").word == "not_supported"
    assert row_of(result, "scheduler.lora_start").word == "supported"  # cosine, as the best


def test_a_scheduler_that_another_rate_may_save_is_not_refuted(sweep):
    """Alone it has to cost more than 2.5 margins, and beside a retuned arm more than 2."""
    own, other = ARMS[4][0], ARMS[5]
    words = {
        loss: row_of(verdict(sweep, confirm(ARMS[0], (own, loss), other)), "scheduler.short").word
        for loss in (2.022, 2.03)
    }
    assert words == {2.022: "undecided", 2.03: "not_supported"}


def test_the_more_is_searched_the_more_a_refuted_row_has_to_cost(make_trial, make_study):
    """2e-4 costs 1.1%, above 2 margins of 0.5%: enough where three are searched, not beside a fourth."""
    runs = (
        make_trial(2.10, lr=2e-4, rows=("scenario.general",), label="guideline default"),
        make_trial(2.00, lr=4e-4, ratio=0.125, scheduler="cosine"),
    )
    three = replace(SPACE, dimensions=tuple(d for d in SPACE.dimensions if d.name != "warmup_ratio"))
    row = (ARMS[2][0], 2.022)
    words = {
        len(space.dimensions): row_of(
            verdict(make_study(*runs, space=space), confirm(ARMS[0], row)), "scenario.general"
        ).word
        for space in (three, SPACE)
    }
    assert words == {3: "too_low", 4: "undecided"}


def test_a_range_is_refuted_by_its_end_towards_the_best_alone(sweep):
    """1e-4 being too low says nothing about 1e-4 to 2e-4."""
    sweep.set_user_attr("context", sweep.user_attrs["context"] | {"scenario": "instruction"})
    far = (arm("far end", "row", ("scenario.instruction",), learning_rate=1e-4), 2.3)
    assert row_of(verdict(sweep, confirm(ARMS[0], far)), "scenario.instruction").word == "undecided"
    near = (arm("near end", "row", ("scenario.instruction",), learning_rate=2e-4), 2.3)
    assert row_of(verdict(sweep, confirm(ARMS[0], near)), "scenario.instruction").word == "too_low"
    both = verdict(sweep, confirm(ARMS[0], far, near))
    assert row_of(both, "scenario.instruction").word == "too_low"
    good = (arm("inside", "row", ("x",), learning_rate=1.5e-4), 2.0001)
    assert row_of(verdict(sweep, confirm(ARMS[0], near, good)), "scenario.instruction").word != "too_low"


def test_an_arm_that_differs_in_more_is_no_test_of_a_row_it_was_not_made_for(sweep):
    """The default has another scheduler here; in ARMS it keeps the best's, and its embedding rate."""
    changed = {"learning_rate": 2e-4, "embedding_lr_ratio": 0.25, "lr_scheduler_type": "linear"}
    other = arm("default", "guideline_default", **changed)
    result = verdict(sweep, confirm(ARMS[0], (other, 2.1)))
    assert row_of(result, "scenario.general").word == "undecided"
    assert row_of(verdict(sweep, confirm(*ARMS[:2])), "scenario.general").word == "too_low"
    assert result.replicates is not None
    assert result.replicates.comparisons["default"].effect == pytest.approx(0.1, abs=1e-3)


RETUNED = {"learning_rate": 2e-4, "embedding_lr_ratio": 0.25, "lr_scheduler_type": "linear"}


@pytest.mark.parametrize(
    ("retuned", "word", "rests_on"),
    [(2.06, "too_low", "rate 2e-4"), (2.0005, "no_difference", "trial 0"), (1.9, "supported", "trial 0")],
)
def test_a_row_is_refuted_only_when_its_best_trial_run_again_is_worse_too(sweep, retuned, word, rests_on):
    arms = (ARMS[0], ARMS[2], (arm("trial 0", "retuned", ("scenario.general",), **RETUNED), retuned))
    row = row_of(verdict(sweep, confirm(*arms)), "scenario.general")
    assert row.word == word
    assert row.comparison is not None
    assert row.comparison.arm == rests_on
    assert not row.by_default
    is_trial = rests_on == "trial 0"
    assert (row.by_trial, set(row.differs_in)) == (
        (0, {"embedding_lr_ratio", "lr_scheduler_type"}) if is_trial else (None, set())
    )
    rate = next(p for p in answer_of(sweep, confirm(*arms)).parameters if p.parameter == "learning_rate")
    cost = next(value.cost for value in rate.tables if value.text == "2e-4")
    assert cost is not None
    assert (cost.trial, bool(cost.differs_in)) == (row.by_trial, is_trial)
    assert ("That trial also has its own" in verdict_sentence(row, 0.005)) == is_trial


def test_a_trial_inside_the_row_that_was_not_run_again_leaves_it_open_unless_it_lies_far_behind(
    make_trial, make_study
):
    def word(loss: float) -> str:
        trials = make_trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine"), make_trial(loss, lr=2e-4)
        return row_of(verdict(make_study(*trials), confirm(ARMS[0], ARMS[2])), "scenario.general").word

    assert word(2.005) == "undecided"
    assert word(2.1) == "too_low"


def test_a_default_that_does_as_well_saves_a_row_whose_value_costs_beside_the_best(sweep):
    default = arm("default", "guideline_default", **RETUNED)
    row = row_of(verdict(sweep, confirm(ARMS[0], ARMS[2], (default, 2.0005))), "scenario.general")
    assert (row.word, row.by_default) == ("no_difference", True)


@pytest.mark.parametrize(("below", "word"), [(2.1, "too_low"), (2.0003, "too_low"), (1.9, "supported")])
def test_a_boundary_at_which_the_best_lies_is_tested_on_its_good_side(make_trial, make_study, below, word):
    at_boundary = make_study(make_trial(2.0, lr=1e-3, scheduler="cosine"), make_trial(2.1, lr=2e-4))
    best = arm("best", "best", learning_rate=1e-3, embedding_lr_ratio=0.25)
    lower = arm("lower", "contrast", learning_rate=5e-4, embedding_lr_ratio=0.5)
    row = row_of(verdict(at_boundary, confirm((best, 2.0), (lower, below))), "boundary.too_high")
    assert row.word == word
    assert row.comparison is not None
    assert row.comparison.arm == "lower"


def test_an_arm_of_another_hyperparameter_says_nothing_of_a_row_that_holds_the_best(sweep):
    """It shares the best's embedding rate, as every arm does that does not change it."""
    row = row_of(verdict(sweep, confirm(ARMS[0], ARMS[4])), "embedding.default")
    assert (row.word, row.comparison) == ("undecided", None)


@pytest.mark.parametrize("seeds", [1, 2])
def test_without_enough_replicates_nothing_is_claimed(sweep, seeds):
    for result in (verdict(sweep), verdict(sweep, confirm(*ARMS, seeds=seeds))):
        assert {row.word for row in result.rows} <= {"undecided", "not_tested"}
        tested = [row for row in result.rows if row.measurement.position != "not_tested"]
        assert tested
        assert all(row.word == "undecided" for row in tested)


def test_a_confirmation_that_has_not_started_is_no_replicate(sweep):
    planned = optuna.create_study()
    assert verdict(sweep, planned).replicates is None


def test_the_margin_decides_what_matters(sweep):
    assert row_of(verdict(sweep, confirm(*ARMS), margin=0.05), "scenario.general").word == "no_difference"


def test_a_row_has_its_band_edge_and_conditions(make_trial, make_study, sweep):
    row = row_of(verdict(sweep), "scenario.general")
    assert row.band is not None
    # 1.5e-3 has another embedding ratio and another embedding rate too.
    assert (row.band.low, row.band.high, row.band.beyond_high) == (3e-4, 4e-4, None)
    assert not row.edge
    edge = make_study(make_trial(2.0, lr=1.95e-3), make_trial(2.2, lr=2e-4), context={"quantization": "bf16"})
    at_edge = row_of(verdict(edge), "scenario.general")
    assert at_edge.edge == "high"
    assert "the base is bf16 here and 4-bit in the row" in conditions_statement(
        at_edge.measurement.conditions
    )
    assert "batch (8)" in conditions_statement(at_edge.measurement.conditions)
    names = {condition.name for condition in shown_conditions(at_edge.measurement.conditions)}
    assert {"model size", "steps", "batch", "base", "alpha"} <= names


def test_files_and_terminal_show_the_words(sweep, tmp_path):
    result = verdict(sweep, confirm(*ARMS))
    answer = answer_of(sweep, confirm(*ARMS))
    data, page, rows = write_verdict(result, answer, tmp_path)
    read = json.loads(data.read_text(), parse_constant=lambda name: 1 / 0)
    assert read["format"] == 3
    row = next(row for row in read["rows"] if row["id"] == "scenario.general")
    assert row["verdict"] == "too_low"
    assert row["comparison"]["low"] < row["comparison"]["effect"] < row["comparison"]["high"]
    assert row["band"]["low"] == 3e-4
    assert read["replicates"]["arms"][0]["finished"] == 5
    assert "| Learning rate | 4e-4 | 2e-4 |" in page.read_text()
    text = rows.read_text()
    assert "## Replicates on common seeds" in text
    assert "Verdict: too low: rate 2e-4 ended 0.05" in text
    assert "5 runs of rate 1e-3 ended early where the other finished" in text
    assert "ran once" not in limitations(result)[0]
    for width in (64, 120):
        for lines in (render(result, answer, width=width), render_rows(result, width=width)):
            assert any("too low" in line.plain for line in lines)
        table = parameter_table(answer, width=width)
        assert max(len(line.plain) for line in table) <= width
    assert rows_page(verdict(sweep)).count("Verdict: undecided") > 5


def test_a_confirmation_takes_no_column_away(sweep):
    for columns in (render_rows(verdict(sweep)), render_rows(verdict(sweep, confirm(*ARMS)))):
        header = columns[0].plain
        named = ("says", "best", "position", "log10", "costs", "trial", "verdict")
        assert all(name in header for name in named)


def test_lost_runs_of_the_best_are_a_limitation(sweep):
    result = verdict(sweep, confirm((ARMS[0][0], None), ARMS[2]))
    assert any("The best did not finish on 5 of 5 new seeds" in text for text in limitations(result))
    assert row_of(result, "scenario.general").word == "undecided"


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ([], "have none of the role best"),
        ([{"name": "x", "role": "row", "values": {}}], "have none of the role best"),
        ([{"name": "x", "role": "bset", "values": {}}], "Did you mean 'best'"),
        ([{"name": "x"}], "a name, a role and values"),
        ([arm("x", "best"), arm("x", "row")], "need different names"),
        ([arm("y", "best")], "a known arm and a seed; got 'x'"),
    ],
)
def test_a_study_that_is_no_confirmation_is_refused(arms, words):
    study = optuna.create_study()
    study.set_user_attr("arms", arms)
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=1.0, user_attrs={"arm": "x", "seed": 1}))
    with pytest.raises(DamagedReplicates, match=words):
        read_replicates(study)


def test_runs_under_way_are_no_replicates_and_failures_are_not_divergence():
    study = confirm(ARMS[0], ARMS[3], seeds=2)
    study.enqueue_trial({}, user_attrs={"arm": "best", "seed": 999})
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"arm": "best", "seed": 998}))
    found = read_replicates(study)
    assert [run.seed for run in found.runs] == [100, 100, 101, 101, 998]
    assert [run.lost for run in found.runs] == [False, True, False, True, False]
