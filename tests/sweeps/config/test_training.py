"""When a trial reports, and what the adapter's settings are called."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.config.sections.training import LoraSection, TrainingSection


def section(**values: Any) -> TrainingSection:
    return TrainingSection.model_validate({"max_steps": 1000, **values})


def test_evaluations_are_equally_spaced_and_end_at_the_full_budget() -> None:
    assert section().report_percents == (20, 40, 60, 80, 100)
    assert section(evaluations=1).report_percents == (100,)
    assert section(report_at=[0.05, 0.29, 1.0]).report_percents == (5, 29, 100)


@pytest.mark.parametrize("count", range(1, 101))
def test_no_two_evaluations_share_a_percent(count: int) -> None:
    percents = section(evaluations=count).report_percents
    assert len(set(percents)) == count
    assert percents[0] >= 1
    assert percents[-1] == 100


def test_the_adapter_is_read_in_the_words_of_a_trial_too() -> None:
    section = LoraSection.model_validate({"lora_r": 8, "lora_alpha": 32, "dropout": 0.1})
    assert section == LoraSection(r=8, alpha=32, dropout=0.1)
    assert section.trial_values == {
        "lora_r": 8,
        "lora_alpha": 32,
        "lora_dropout": 0.1,
        "use_rslora": False,
    }
    with pytest.raises(ValueError, match="lora_r"):
        LoraSection.model_validate({"lora_r": 8, "r": 8})
