"""The answer in words: the same numbers everywhere, within 15 lines of 80 columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from results.answer.answer import (
    Answer,
    BestConfig,
    Compared,
    Gap,
    Loss,
    NextCommand,
    ParameterAnswer,
    RunFacts,
    TableValue,
)
from results.render.trials_table import seeds_note
from results.text.answer import (
    about,
    answer_lines,
    base_text,
    default_sentence,
    done_text,
    gap_text,
    headline,
    loss_text,
    next_text,
    parameter_sentence,
    parameter_title,
    settings_text,
    sure_text,
    table_lines,
    use_text,
)
from results.text.parameters import best_text, shared_cost

RUN = RunFacts(
    run_folder="runs/mine",
    finished=14,
    target=14,
    outcomes={"complete": 6, "pruned": 8},
    is_unfinished=False,
    seconds=131.2,
    devices=("2 CPU cores",),
    tokens_per_second=2000.0,
    trial_seconds=9.0,
    seats=4,
)
CONFIRM = NextCommand(command="sweeps confirm runs/mine --no-rows --trials 6", why="confirm", seconds=58.0)
EXPORT = NextCommand(command="sweeps export runs/mine --to trl", why="export")
CONSTANT = {"learning_rate": 5.98e-3, "lr_scheduler_type": "constant"}


def made(**changes: Any) -> Answer:
    answer = Answer(
        sweep="mine",
        run=RUN,
        best=BestConfig(
            trial=7, values=CONSTANT, settings=CONSTANT, has_no_warmup=True, loss=Loss(value=5.4321)
        ),
        default=Compared(trial=0, values={}, loss=Loss(value=6.828), gap=Gap(nats=1.3959, percent=25.697)),
        base=Compared(values={}, loss=Loss(value=6.9344)),
        sure="one_run",
        seeds=0,
        margin=0.005,
        metric=None,
        is_by_metric=False,
        parameters=[],
        next=[CONFIRM, EXPORT],
    )
    return replace(answer, **changes)


def confirmed() -> Answer:
    answer = made()
    assert answer.best is not None
    loss = Loss(value=5.4321, low=5.412, high=5.4522, seeds=3)
    gap = Gap(nats=1.3959, percent=25.697, low=1.09, high=1.68, low_percent=20.06, high_percent=31.0, seeds=3)
    return made(
        best=replace(answer.best, loss=loss),
        default=replace(answer.default, loss=Loss(value=6.828, low=6.6, high=7.0, seeds=3), gap=gap),
        sure="default_costs",
        seeds=3,
        next=[EXPORT],
    )


def table(**changes: Any) -> TableValue:
    values: dict[str, Any] = {
        "parameter": "learning_rate",
        "text": "2e-4",
        "low": 2e-4,
        "high": 2e-4,
        "choices": (),
        "is_warning": False,
        "is_default": True,
        "rows": tuple("abcdef"),
        "position": "above",
        "ratio": 21.19,
        "cost": Gap(nats=0.53, percent=8.78),
        "word": "undecided",
    }
    return TableValue(**values | changes)


def of(*tables: TableValue, best: Any = 4.24e-3, **changes: Any) -> ParameterAnswer:
    values: dict[str, Any] = {
        "parameter": "learning_rate",
        "best": best,
        "unused_beside": "",
        "tables": tables,
        "edge": "",
    }
    return ParameterAnswer(**values | changes)


def test_the_end_of_a_run_is_seven_lines_of_80_columns() -> None:
    assert answer_lines(made(), report="runs/mine/report.html") == [
        "Done: 14 of 14 trials (6 complete, 8 pruned) in 2 min 11 s on 2 CPU cores.",
        "Use   learning_rate 5.98e-3, scheduler constant, no warmup",
        "Loss  5.432   guideline default 6.828 (+25.7%)   untouched base 6.934",
        "Sure? Not yet: one run per configuration.",
        "Next  sweeps confirm runs/mine --no-rows --trials 6     about 1 min",
        "      sweeps export runs/mine --to trl",
        "      runs/mine/report.html",
    ]


def test_a_time_that_does_not_fit_beside_its_command_is_left_out() -> None:
    lines = answer_lines(made(), width=55)
    assert "Next  sweeps confirm runs/mine --no-rows --trials 6" in lines


def test_after_a_confirmation_the_trials_table_says_what_the_seeds_show() -> None:
    assert seeds_note(made()) == ""
    assert seeds_note(confirmed()) == (
        "Each loss is of one run. On new seeds trial 7 has 5.432 (5.41 to 5.45, 3 seeds), the guideline "
        "default 6.828 (6.60 to 7.00, 3 seeds)."
    )


def test_after_a_confirmation_the_seeds_mean_and_its_interval_are_shown() -> None:
    lines = answer_lines(confirmed())
    assert "5.432 (5.41 to 5.45, 3 seeds)" in lines[2]
    assert "guideline default 6.828, +25.7% (20.1 to 31.0%, 3 seeds)" in "\n".join(lines)
    said = "Yes: better than the guideline default, which costs 20.1 to 31.0% on 3 seeds. Other trials may be"
    assert sure_text(confirmed()).startswith(said)
    assert "as good." in "\n".join(lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("sure", ["default_costs", "open", "default_better"])
def test_the_seeds_are_those_of_the_comparison_and_not_of_the_best(sure: Any) -> None:
    """The best goes on where the default is decided."""
    text = sure_text(replace(confirmed(), sure=sure, seeds=8))
    assert "on 3 seeds" in text
    assert "8 seeds" not in text


def test_many_settings_wrap_beside_their_label() -> None:
    settings = {f"key_number_{n}": n for n in range(9)} | CONSTANT
    answer = made()
    assert answer.best is not None
    lines = answer_lines(replace(answer, best=replace(answer.best, settings=settings)), width=60)
    assert max(len(line) for line in lines if "sweeps" not in line) <= 60
    last = next(line for line in lines if "key_number_8 8" in line)
    assert last.startswith("      key_number_")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"learning_rate": 4.24e-3, "embedding_learning_rate": 1.62e-3, "embedding_lr_ratio": 0.383}
            | {"warmup_ratio": 0.3668, "warmup_steps": 15, "lr_scheduler_type": "cosine", "lora_r": 16},
            "learning_rate 4.24e-3, embedding_learning_rate 1.62e-3, scheduler cosine, "
            "warmup 15 steps (37%), lora_r 16",
        ),
        ({"lora_dropout": 0.05}, "lora_dropout 0.05"),
        ({"warmup_steps": 0, "warmup_ratio": 0.0}, "no warmup"),
        ({"warmup_steps": 1, "warmup_ratio": 0.004}, "warmup 1 step"),
    ],
)
def test_settings_in_the_order_in_which_they_are_spoken_of(settings: Any, text: str) -> None:
    assert settings_text(settings) == text


def test_the_headline_says_what_the_default_costs() -> None:
    assert headline(made()) == (
        "Use learning_rate 5.98e-3, scheduler constant, no warmup: loss 5.432; "
        "the guideline default costs 25.7% more."
    )
    default = Compared(trial=0, outcome="diverged", values={})
    assert headline(made(default=default)).endswith("; the guideline default diverged.")
    assert headline(made(default=Compared(trial=7, values={}))).endswith("; it is the guideline default.")
    better = Compared(trial=0, values={}, loss=Loss(value=5.4), gap=Gap(nats=-0.03, percent=-0.55))
    assert headline(made(default=better)).endswith("the guideline default is 0.55% better.")


def test_without_a_best_nothing_is_recommended() -> None:
    answer = made(best=None, sure="no_best", next=[])
    assert use_text(answer) == ""
    assert answer_lines(answer)[1] == ("Use   nothing: no trial finished its full budget with a finite loss.")


def test_a_metric_has_its_own_line() -> None:
    answer = made()
    assert answer.best is not None
    by_metric = replace(
        answer,
        metric="exact_match",
        is_by_metric=True,
        best=replace(answer.best, metric=0.525),
        default=replace(answer.default, metric=0.3),
    )
    assert headline(by_metric).endswith(
        ": exact_match 0.525, loss 5.432; the guideline default has 0.3, loss 6.828."
    )
    lines = answer_lines(by_metric)
    assert lines[3] == "      exact_match 0.525 (searched by it)   guideline default 0.3"


def test_losses_and_gaps_have_one_form() -> None:
    assert loss_text(Loss(value=5.4)) == "5.400"
    assert loss_text(Loss(value=0.84312)) == "0.8431"
    assert loss_text(Loss(value=5.432, seeds=2)) == "5.432 (2 seeds)"
    assert (
        loss_text(Loss(value=1.2346, low=1.2331, high=1.2358, seeds=4)) == "1.235 (1.233 to 1.236, 4 seeds)"
    )
    narrow = Loss(value=1.23461, low=1.23452, high=1.23471, seeds=4)
    assert loss_text(narrow) == "1.2346 (1.2345 to 1.2347, 4 seeds)"
    small = Gap(nats=0.001, percent=0.051, low_percent=0.003, high_percent=0.122, seeds=3)
    assert gap_text(small) == "+0.05% (0.00 to 0.12%, 3 seeds)"
    assert gap_text(Gap(nats=0.01, percent=0.449)) == "+0.45%"
    assert gap_text(Gap(nats=-0.01, percent=-1.3, seeds=2)) == "-1.3% (2 seeds)"
    assert gap_text(Gap(nats=0.5, percent=None)) == "+0.5000 nats"


@pytest.mark.parametrize(
    ("sure", "text"),
    [
        ("too_few_seeds", "Not yet: 3 seeds, and an interval needs 3."),
        (
            "no_difference",
            "Yes: no difference: the guideline default costs 20.1 to 31.0%, and up to 0.5% does",
        ),
        ("open", "Not yet: on 3 seeds the guideline default costs 20.1 to 31.0%."),
        ("default_better", "No: on 3 seeds the guideline default is better"),
        ("not_by_metric", "Not by None: the guideline default was compared with the best by loss alone."),
        ("best_changed", "Not yet: one run per configuration. What was run again is an earlier best."),
    ],
)
def test_how_sure_in_one_sentence(sure: Any, text: str) -> None:
    assert sure_text(replace(confirmed(), sure=sure)).startswith(text)


def test_an_unfinished_sweep_is_not_judged_and_says_how_to_go_on() -> None:
    run = replace(RUN, finished=5, outcomes={"complete": 3, "pruned": 2, "running": 2}, is_unfinished=True)
    go_on = NextCommand(command="sweeps run runs/mine", why="continue")
    lines = answer_lines(made(run=run, next=[go_on]))
    assert lines[0].startswith("Ran:  5 of 14 trials (3 complete, 2 pruned, 2 unfinished)")
    assert lines[-2:] == [
        "Sure? Not yet: the sweep is not finished.",
        "Next  sweeps run runs/mine     continues it",
    ]


def test_what_stands_behind_done_can_be_another_sentence_or_nothing() -> None:
    assert answer_lines(made(), done=["4 runs on new seeds."])[0] == "Done: 4 runs on new seeds."
    assert answer_lines(made(), done=(), with_next=False)[0].startswith("Use   ")


def test_done_without_a_target_or_a_device() -> None:
    run = replace(RUN, finished=1, target=None, outcomes={"complete": 1}, seconds=None, devices=())
    assert done_text(run) == "1 trial (1 complete)"


def test_times_are_round() -> None:
    assert [about(s) for s in (3, 44, 58, 240, 9000, 7200)] == [
        "about 10 s",
        "about 40 s",
        "about 1 min",
        "about 4 min",
        "about 2.5 h",
        "about 2 h",
    ]
    assert next_text(CONFIRM).endswith("on new seeds, about 1 min")


def test_a_parameter_is_compared_before_it_is_judged() -> None:
    assert parameter_sentence(of(table()), made()) == (
        "Best here 4.24e-3, 21 times the tables' 2e-4 (6 rows). 2e-4 costs 8.8% in this sweep. Undecided."
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            of(table(position="below", ratio=0.05), best=1e-5),
            "Best here 1e-5, 20 times lower than the tables' 2e-4",
        ),
        (
            of(table(text="1e-5 to 1e-3", low=1e-5, high=1e-3, ratio=4.24)),
            "Best here 4.24e-3, 4.2 times the top of the tables' 1e-5 to 1e-3 (6 rows).",
        ),
        (
            of(table(position="inside", ratio=None, cost=Gap(nats=0.0, percent=0.0)), best=2e-4),
            "Best here 2e-4, the tables' own 2e-4 (6 rows). Undecided.",
        ),
        (
            of(
                table(
                    text="linear", choices=("linear",), low=None, high=None, position="outside", ratio=None
                ),
                best="cosine",
            ),
            "Best here cosine, not the tables' linear (6 rows). Linear costs 8.8% in this sweep.",
        ),
        (
            of(table(cost=None)),
            "Best here 4.24e-3, 21 times the tables' 2e-4 (6 rows). What 2e-4 costs was not measured.",
        ),
        (of(table(), edge="high"), "Undecided. It is at the high end of what was searched: widen the range."),
        (
            of(table(text="1e-3 too high", is_warning=True, rows=("a",))),
            "Best here 4.24e-3; the tables warn of 1e-3 as too high (1 row). Undecided.",
        ),
        (
            of(table(position="not_tested", ratio=None), best=None, unused_beside="constant"),
            "Not used here: the best scheduler, constant, has no warmup. 2e-4 costs 8.8% in this sweep.",
        ),
    ],
)
def test_a_parameter_in_plain_words(found: ParameterAnswer, text: str) -> None:
    assert text in parameter_sentence(found, made())


def test_the_tables_values_are_short_cells() -> None:
    line = table_lines(of(table()), made())[0]
    assert (line.value, line.rows, line.position, line.cost, line.word) == (
        "2e-4",
        "6 rows",
        "21 times higher",
        "+8.8%",
        "undecided",
    )
    assert parameter_title("lora_r") == "Rank"


@pytest.mark.parametrize(
    ("seeds", "cost", "cell", "sentence"),
    [
        (0, Gap(nats=0.5, percent=8.8, trial=4), "+8.8% (trial 4)", "costs 8.8% in this sweep (trial 4)."),
        (0, Gap(nats=0.5, percent=8.8, trial=0), "+8.8% (default)", "in this sweep (the guideline default)."),
        (
            3,
            Gap(nats=0.5, percent=8.8, trial=4),
            "+8.8% (trial 4)",
            "costs 8.8% in one run (trial 4).",
        ),
        (
            0,
            Gap(nats=0.5, percent=8.8, trial=4, differs_in=("warmup_ratio", "lora_r")),
            "not measured alone",
            "What 2e-4 costs alone is not known: trial 4 has another warmup and rank too.",
        ),
        (
            0,
            Gap(nats=0.01, percent=0.3, low_percent=-0.8, high_percent=1.4, low=0, high=1, in_model=10),
            "+0.30% (-0.8 to 1.4%, model)",
            "costs 0.30% (-0.8 to 1.4%) by itself, by a model of 10 finished trials.",
        ),
        (
            3,
            Gap(
                nats=0.5,
                percent=8.8,
                low=0.4,
                high=0.6,
                low_percent=8.0,
                high_percent=9.6,
                seeds=3,
                differs_in=("a",),
            ),
            "not measured alone",
            "It was run again only with the tables' other values; what it costs alone is not known.",
        ),
    ],
)
def test_a_cost_says_what_ran(seeds: int, cost: Gap, cell: str, sentence: str) -> None:
    found, answer = of(table(cost=cost)), made(seeds=seeds)
    assert table_lines(found, answer)[0].cost == cell
    assert sentence in parameter_sentence(found, answer)


def test_the_cost_of_all_values_stands_beside_a_word_that_it_decided() -> None:
    cost = Gap(nats=0.5, percent=8.8, low=0.4, high=0.6, low_percent=8.0, high_percent=9.6, seeds=3)
    found = of(table(cost=replace(cost, differs_in=("a",)), word="too_low"))
    assert table_lines(found, made(seeds=3))[0].cost == "+8.8% (8.0 to 9.6%, with all table values)"
    said = "costs 8.8% (8.0 to 9.6%, 3 seeds) together with the tables' other values."
    assert said in parameter_sentence(found, made(seeds=3))


def test_a_warmup_of_less_than_a_step_is_in_steps() -> None:
    assert settings_text({"warmup_steps": 1, "warmup_ratio": 0.00017}) == "warmup 1 step"
    assert settings_text({"warmup_steps": 6, "warmup_ratio": 0.15}) == "warmup 6 steps (15%)"
    assert settings_text({"warmup_ratio": 0.00017}) == "warmup <0.1%"
    best = made().best
    assert best is not None
    share = of(best=0.00017, parameter="warmup_ratio")
    answer = made(best=replace(best, values={"warmup_steps": 1, "warmup_ratio": 0.00017}))
    assert best_text(share, answer) == "1 step"
    assert parameter_sentence(share, answer) == "Best here 1 step."


def test_a_share_of_the_steps_is_in_percent() -> None:
    share = {"parameter": "warmup_ratio", "low": 0.05, "high": 0.1, "text": "0.05 to 0.1", "ratio": 3.668}
    found = of(table(**share), best=0.3668, parameter="warmup_ratio")
    assert best_text(found, made()) == "37%"
    assert table_lines(found, made())[0].value == "5 to 10%"
    assert parameter_sentence(found, made()).startswith(
        "Best here 37%, 3.7 times the top of the tables' 5 to"
    )
    warning = table(**share | {"high": 0.05, "text": "0.05 too high", "is_warning": True})
    assert table_lines(of(warning), made())[0].value == "5% too high"


def test_the_guideline_defaults_values_are_said() -> None:
    settings = {"learning_rate": 2e-4, "lr_scheduler_type": "linear", "warmup_steps": 10}
    default = Compared(trial=0, values=settings, settings=settings)
    said = "Guideline default: learning_rate 2e-4, scheduler linear, warmup 10 steps."
    assert default_sentence(made(default=default)) == said
    assert default_sentence(made(default=replace(default, trial=7))) == ""  # it is the best


@pytest.mark.parametrize(
    ("ratio", "position", "cell", "sentence"),
    [
        (1.02, "above", "2% higher", "2% above the tables' 2e-4"),
        (0.95, "below", "5% lower", "5% below the tables' 2e-4"),
        (1.001, "above", "about the same", "about the same as the tables' 2e-4"),
    ],
)
def test_near_values_differ_in_percent(ratio: float, position: str, cell: str, sentence: str) -> None:
    found = of(table(ratio=ratio, position=position))
    assert table_lines(found, made())[0].position == cell
    assert sentence in parameter_sentence(found, made())
    assert parameter_title("adam_beta1") == "Adam beta1"


def test_the_base_is_shown_with_and_without_quantization() -> None:
    answer = made(base=Compared(values={}, loss=Loss(value=3.8244)))
    assert base_text(answer) == "3.824"
    unquantized = Compared(values={}, loss=Loss(value=3.5608))
    both = replace(answer, unquantized_base=unquantized)
    assert base_text(both) == "3.824, not quantized 3.561"
    assert any("untouched base 3.824, not quantized 3.561" in line for line in answer_lines(both))
    skipped = Compared(values={}, outcome="not_measured", reason="it takes 300 GiB")
    assert base_text(replace(answer, unquantized_base=skipped)) == "3.824"
    assert base_text(made(base=Compared(values={}, outcome="not_measured"))) == ""


def test_a_sweep_by_its_metric_says_that_costs_are_of_the_loss() -> None:
    found = of(table())
    assert shared_cost(made(parameters=[found])) == ""
    by_metric = made(parameters=[found], metric="exact_match", is_by_metric=True)
    assert shared_cost(by_metric) == (
        "Costs and verdicts are of the loss, against its lowest; the best here is that by exact_match."
    )
