"""The answer of studies built by hand: one number for each thing, and the one that is known best."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest

from results.answer.answer import Answer
from results.answer.read_answer import read_answer
from results.answer.run_facts import busy_seconds
from results.render.rows_page import rows_page
from results.sweep_result import read_study
from results.text.answer import answer_lines, headline, next_text, sure_text, use_text
from results.text.limitations import notes
from results.verdict.verdict import verdict
from search_spaces import DEFAULT_LABEL
from tests.results.confirm_studies import ARMS, arm, confirm
from tests.results.conftest import study, trial
from tests.results.golden.cases import CASES


def answer(of: optuna.Study, replicates: optuna.Study | None = None) -> Answer:
    sweep = read_study(of)
    return read_answer(sweep, verdict(sweep, replicates), run_folder="runs/mine", target=2)


def study_of(best: float = 4e-4) -> optuna.Study:
    return study(
        trial(2.2, lr=2e-4, ratio=0.25, label=DEFAULT_LABEL, rows=("scenario.general", "size.7-8b")),
        trial(2.0, lr=best, ratio=0.125, scheduler="cosine", warmup=0.05),
    )


def test_a_gap_is_what_the_default_costs_in_percent_of_the_best() -> None:
    found = answer(study_of())
    assert found.best is not None
    assert found.default.gap is not None
    assert (found.best.trial, found.best.loss.value, found.best.loss.seeds) == (1, 2.0, 0)
    assert found.default.gap.nats == pytest.approx(0.2)
    assert found.default.gap.percent == pytest.approx(10)
    assert found.sure == "one_run"
    assert found.next[0].command == "sweeps confirm runs/mine --no-rows --trials 6"


def test_after_a_confirmation_the_losses_are_those_of_the_seeds() -> None:
    found = answer(study_of(), confirm(*ARMS))
    assert found.best is not None
    assert found.default.gap is not None
    assert found.best.loss.value == pytest.approx(
        2.1, abs=0.001
    )  # mean over five seeds that lie 0 to 0.2 above
    assert found.best.loss.seeds == 5
    assert found.best.loss.low is not None
    assert found.best.loss.low < found.best.loss.value
    assert found.default.gap.nats == pytest.approx(0.1, abs=0.001)
    assert found.default.gap.low is not None
    assert found.default.gap.low < found.default.gap.nats
    assert found.sure == "default_costs"


def test_replicates_of_another_best_are_not_joined_to_the_present_one() -> None:
    found = answer(study_of(best=7e-4), confirm(*ARMS))
    assert found.best is not None
    assert (found.sure, found.seeds, found.best.loss.value) == ("best_changed", 0, 2.0)
    assert found.default.gap is not None
    assert found.default.gap.percent == pytest.approx(10)


def test_words_and_costs_of_an_earlier_best_are_not_joined_to_the_present_one() -> None:
    found = answer(study_of(best=7e-4), confirm(*ARMS))
    tables = [table for parameter in found.parameters for table in parameter.tables]
    assert {table.word for table in tables} <= {"undecided", "not_tested"}
    assert all(table.cost is None or table.cost.seeds == 0 for table in tables)
    assert found.next[0].command == "sweeps confirm runs/mine --anew --no-rows --trials 6"
    assert "older_best" in codes(study_of(best=7e-4))


def test_the_best_by_the_metric_is_another_arm_than_the_best_by_loss() -> None:
    made, _ = CASES["by-metric"]()
    arms = ARMS[0], (arm("by metric", "best", learning_rate=3e-4), 2.02), ARMS[1]
    found = answer(made, confirm(*arms, metrics=(0.45, 0.52, 0.3)))
    assert found.best is not None
    assert found.default.gap is not None
    assert (found.sure, found.seeds, found.best.loss.seeds) == ("not_by_metric", 5, 5)
    assert found.best.loss.value == pytest.approx(2.12, abs=0.001)
    assert found.default.gap.nats == pytest.approx(0.08, abs=0.001)
    assert (found.default.gap.seeds, found.default.gap.low is None) == (5, False)
    # Means over the seeds, not the sweep's 0.525 and 0.3.
    assert found.best.metric == pytest.approx(0.528)
    assert found.default.metric == pytest.approx(0.316)


def test_a_default_that_is_better_on_the_seeds_is_said() -> None:
    better = (
        (arm("best", "best"), 2.1),
        (arm("default", "guideline_default", learning_rate=2e-4, embedding_lr_ratio=0.25), 2.0),
    )
    assert answer(study_of(), confirm(*better)).sure == "default_better"


def default_trial(**changes: Any) -> Any:
    return trial(**{"lr": 2e-4, "ratio": 0.25, "label": DEFAULT_LABEL} | changes)


def best_trial() -> Any:
    return trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine", warmup=0.05)


@pytest.mark.parametrize("outcome", ["pruned", "failed"])
def test_a_default_without_a_loss_in_the_sweep_has_that_of_its_seeds(outcome: str) -> None:
    found = answer(study(default_trial(outcome=outcome), best_trial()), confirm(*ARMS))
    assert found.default.loss is not None
    assert found.default.gap is not None
    assert (found.default.loss.seeds, found.default.outcome, found.sure) == (5, "complete", "default_costs")
    assert found.default.gap.nats == pytest.approx(0.1, abs=0.001)
    assert "default_unfinished" not in codes(study(default_trial(outcome=outcome), best_trial()))


def codes(of: optuna.Study) -> list[str]:
    return [limitation.code for limitation in verdict(of, confirm(*ARMS)).limitations]


def test_a_default_that_never_finishes_on_new_seeds_has_no_loss_left() -> None:
    found = answer(study_of(), confirm(ARMS[0], (ARMS[1][0], None)))
    assert found.sure == "default_loses_runs"
    assert (found.default.loss, found.default.gap, found.default.lost_runs) == (None, None, 5)
    assert "guideline default finished on 0 of 5 new seeds" in "\n".join(answer_lines(found))
    assert sure_text(found).startswith("Yes: 5 of 5 runs of the guideline default ended early")
    assert "%" not in headline(found).partition(": loss")[2]


@pytest.mark.parametrize(
    ("arms", "options"),
    [
        (ARMS[:2], "--anew --trials 60"),  # other configurations: nothing to continue
        (ARMS, f"--trials {max(60, 5 * len(ARMS) + 3 * len(ARMS))}"),  # the same goes on
    ],
)
def test_the_command_for_single_rows_starts_anew_only_beside_other_configurations(
    arms: Any, options: str
) -> None:
    found = answer(study_of(), confirm(*arms)).rows_alone
    assert found is not None
    assert found.command == f"sweeps confirm runs/mine {options}"
    assert found.seconds is not None
    assert answer(study_of()).rows_alone is None


@pytest.mark.parametrize(("loss", "code"), [(1.985, "maybe_better"), (1.998, ""), (1.9, "better_arms")])
def test_an_arm_with_a_lower_mean_is_named_and_a_confirmed_best_has_no_luck_left(
    loss: float, code: str
) -> None:
    rival = arm("rival", "row", learning_rate=5e-4)
    seeds = 3 if code == "maybe_better" else 5  # too few to be sure
    again = confirm(ARMS[0], ARMS[1], (rival, loss), seeds=seeds)
    found = {limitation.code: limitation for limitation in verdict(study_of(), again).limitations}
    assert "lowest_of_several" not in found
    assert {"maybe_better", "better_arms"} & set(found) == ({code} if code else set())
    assert "lowest_of_several" in [limitation.code for limitation in verdict(study_of()).limitations]
    if code:
        assert found[code].facts["arms"] == ["rival"]
        assert "rival" in notes(list(found.values()))[0]
        assert found["replicated"].facts["arms"] == 3


def test_a_best_that_never_finishes_on_new_seeds_is_not_recommended() -> None:
    found = answer(study_of(), confirm((ARMS[0][0], None), ARMS[1]))
    assert found.sure == "best_loses_runs"
    assert sure_text(found) == "No: 0 of 5 runs of the best on new seeds finished."
    assert found.default.gap is None
    assert headline(found).startswith("Use the guideline default: learning_rate 2e-4, ")
    assert headline(found).endswith("; the sweep's best finished on 0 of 5 new seeds.")
    assert found.next == []


def test_a_default_that_is_better_on_the_seeds_is_what_to_use() -> None:
    found = answer(study_of(), confirm(ARMS[0], (ARMS[1][0], 1.9)))
    assert found.uses_default
    assert use_text(found).startswith("the guideline default: learning_rate 2e-4, ")
    assert headline(found).endswith("; it is 4.8% better than the sweep's best.")
    assert any(line.startswith("Loss  guideline default 2.000, -4.8%") for line in answer_lines(found))
    assert not any("export" in command.command for command in found.next)


def test_without_a_guideline_default_the_two_best_are_run_again() -> None:
    second = trial(2.05, lr=3e-4, ratio=0.125, scheduler="cosine")
    two, one = answer(study(best_trial(), second)), answer(study(best_trial()))
    assert two.next[0].command == "sweeps confirm runs/mine --best 2 --no-rows --trials 6"
    assert next_text(two.next[0]).startswith("run the two best again on new seeds")
    assert [command.why for command in one.next if command.why.startswith("confirm")] == []


def test_no_difference_has_no_cost_of_nothing_in_the_headline() -> None:
    found = answer(study_of(), confirm(ARMS[0], (ARMS[1][0], 2.0001)))
    assert headline(found).endswith("; the guideline default is as good on 5 seeds.")


def test_rows_that_say_the_same_are_one_line_the_defaults_first() -> None:
    found = answer(study_of())
    rates = next(parameter for parameter in found.parameters if parameter.parameter == "learning_rate")
    own = rates.tables[0]
    assert own.is_default
    assert own.text == "2e-4"
    assert {"scenario.general", "size.7-8b"} <= set(own.rows)
    assert own.ratio == pytest.approx(2)
    texts = [table.text for table in rates.tables]
    assert len(texts) == len(set(texts))


def test_warmup_is_not_called_best_beside_a_constant_schedule() -> None:
    found = answer(
        study(
            trial(2.2, lr=2e-4, ratio=0.25, warmup=0.05, label=DEFAULT_LABEL),
            trial(2.0, lr=4e-4, ratio=0.125, scheduler="constant"),
        )
    )
    assert found.best is not None
    assert found.best.has_no_warmup
    assert "warmup_ratio" not in found.best.settings
    warmup = [parameter for parameter in found.parameters if parameter.parameter.startswith("warmup")]
    assert warmup
    assert all(parameter.best is None and parameter.unused_beside == "constant" for parameter in warmup)
    assert all(table.position == "not_tested" for parameter in warmup for table in parameter.tables)


def test_a_sweep_without_a_finished_trial_has_no_best() -> None:
    found = answer(study(trial(outcome="diverged", lr=1e-3)))
    assert found.best is None
    assert found.sure == "no_best"
    assert found.default.outcome == "not_tried"


def test_time_without_a_trial_does_not_count() -> None:
    start = datetime(2026, 1, 1)

    def at(minute: float) -> datetime:
        return start + timedelta(minutes=minute)

    spans = [(at(0), at(2)), (at(1), at(3)), (at(60), at(61)), (at(70), None)]
    assert busy_seconds(spans) == 4 * 60
    assert busy_seconds([]) is None


def test_a_headline_after_trials_were_added_says_whose_its_percentage_is() -> None:
    found = answer(study_of(best=7e-4), confirm(*ARMS))
    assert headline(found).endswith(
        "costs 10.0% more in one run of each, since what was run again is an earlier best."
    )
    assert sure_text(found).startswith("Not yet: one run per configuration. What was run again is an earlier")
    page = rows_page(verdict(study_of(best=7e-4), confirm(*ARMS)))
    assert "The best here is an earlier one" in page
    assert "The stopping rule is met" not in page
    assert "The best here is an earlier one" not in rows_page(verdict(study_of(), confirm(*ARMS)))
