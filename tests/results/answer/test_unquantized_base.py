"""The untouched base without quantization, wherever the base is shown."""

from __future__ import annotations

import optuna

from results.best import best_config
from results.export.generated_text import base_loss_text
from results.render.json_data import verdict_data
from results.render.markdown import to_markdown
from results.sweep_result import read_study
from results.text.limitations import limitation_text
from results.verdict.verdict import verdict
from search_spaces import DEFAULT_LABEL
from tests.results.conftest import answer_of, study, trial


def made(**found: object) -> optuna.Study:
    sweep = study(trial(3.59, label=DEFAULT_LABEL), trial(3.35, lr=4e-4), base=3.8244)
    if found:
        sweep.set_user_attr("base_unquantized", found)
    return sweep


def said(sweep: optuna.Study) -> list[str]:
    return [limitation_text(limitation) for limitation in verdict(sweep).limitations]


def test_both_losses_stand_in_every_place() -> None:
    sweep = made(eval_loss=3.5608, reason="")
    answer = answer_of(sweep)
    unquantized = answer.unquantized_base
    assert unquantized is not None
    assert unquantized.gap is not None
    assert unquantized.gap.percent is not None
    assert round(unquantized.gap.percent, 1) == 6.3
    page = to_markdown(verdict(sweep), answer)
    assert "| untouched base | 3.824 | +14.2% |" in page
    assert "| untouched base, not quantized | 3.561 | +6.3% |" in page
    written = verdict_data(verdict(sweep), answer)
    assert (written["base_eval_loss"], written["base_unquantized_eval_loss"]) == (3.8244, 3.5608)
    assert written["answer"]["unquantized_base"]["loss"]["value"] == 3.5608
    config = best_config(sweep)
    assert config["result"]["base_unquantized_eval_loss"] == 3.5608
    assert base_loss_text(config) == "3.824, not quantized 3.561"
    assert not any("quantiz" in text for text in said(sweep))


def test_a_best_that_does_not_beat_it_is_a_limitation() -> None:
    text = "The best (3.350) is no better than the untouched base without quantization (3.300)."
    assert text in said(made(eval_loss=3.3, reason=""))


def test_a_base_that_was_not_measured_without_quantization_says_why() -> None:
    sweep = made(eval_loss=None, reason="it takes 300 GiB in bfloat16, and 80 are free")
    why = "it takes 300 GiB in bfloat16, and 80 are free"
    assert f"The untouched base was not measured without quantization: {why}." in said(sweep)
    assert "not quantized" not in to_markdown(verdict(sweep), answer_of(sweep))
    assert "base_unquantized_eval_loss" not in best_config(sweep)["result"]


def test_a_sweep_without_it_shows_one_loss() -> None:
    sweep = made()
    assert answer_of(sweep).unquantized_base is None
    assert read_study(sweep).base_unquantized is None
    assert "quantized" not in to_markdown(verdict(sweep), answer_of(sweep))
