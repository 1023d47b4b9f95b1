"""The cost of the guideline default over other evaluation records, from the files of the trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from results.answer.answer import Answer
from results.answer.read_answer import read_answer
from results.record_losses import read_record_losses
from results.render.json_data import verdict_data
from results.render.rows_page import rows_page
from results.sweep_result import read_study
from results.text.answer import answer_lines, untried_text
from results.text.answer import sure_text as whole_text
from results.verdict.verdict import Verdict, verdict
from search_spaces import DEFAULT_LABEL
from tests.results.confirm_studies import ARMS, confirm
from tests.results.conftest import study, trial

TOKENS = np.random.default_rng(1).integers(5, 60, 48)
SPREAD = np.random.default_rng(2).normal(0, 0.05, 48)


def sure_text(answer: Answer) -> str:
    """Without the advice to try a higher rate: these sweeps have none above their best."""
    advice = untried_text(answer)

    return whole_text(answer).removesuffix(f" {advice}")


def keep(folder: Path, loss: float, spread: np.ndarray) -> None:
    """Records whose mean is `loss`; `spread` is what each differs from it, in nats per token."""
    nats = TOKENS * (loss + spread - (spread * TOKENS).sum() / TOKENS.sum())
    folder.mkdir(parents=True)
    (folder / "record_losses.json").write_text(json.dumps({"nats": nats.tolist(), "tokens": TOKENS.tolist()}))


@pytest.fixture
def sweep(tmp_path: Path) -> optuna.Study:
    found = study(
        trial(2.2, label=DEFAULT_LABEL, attrs={"folder": "trials/0000"}),
        trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine", attrs={"folder": "trials/0001"}),
    )
    keep(tmp_path / "trials" / "0000", 2.2, 2 * SPREAD)
    keep(tmp_path / "trials" / "0001", 2.0, SPREAD)
    return found


def found_in(
    folder: Path, of: optuna.Study, replicates: optuna.Study | None = None
) -> tuple[Verdict, Answer]:
    found = verdict(of, replicates, run_folder=folder)
    return found, read_answer(read_study(of), found, run_folder="runs/mine")


def test_single_runs_say_what_the_default_costs_over_other_records(
    sweep: optuna.Study, tmp_path: Path
) -> None:
    found, answer = found_in(tmp_path, sweep)
    over = answer.over_records
    assert over is not None
    assert over.percent == pytest.approx(10.0, abs=1e-3)
    assert 0 < over.low_percent < 10 < over.high_percent < 15
    assert (over.records, over.seeds) == (48, 0)
    shown = (
        f"Over other evaluation records the default costs {over.low_percent:.1f} to {over.high_percent:.1f}%."
    )
    assert sure_text(answer) == f"Not yet: one run per configuration. {shown}"
    assert shown in " ".join(" ".join(answer_lines(answer)).split())
    written = verdict_data(found, answer)["answer"]
    assert written["over_records"]["low_percent"] == over.low_percent
    assert shown in written["text"]["sure"]


def test_nothing_is_said_without_the_files_or_with_those_of_other_runs(
    sweep: optuna.Study, tmp_path: Path
) -> None:
    kept = tmp_path / "trials" / "0001" / "record_losses.json"
    whole = kept.read_text()
    values = json.loads(whole)
    for damaged in (
        whole[:-9],
        "[]",
        json.dumps(values | {"tokens": values["tokens"][1:]}),
        json.dumps(values | {"nats": [1.01 * nats for nats in values["nats"]]}),
        json.dumps(values | {"nats": [float("nan"), *values["nats"][1:]]}),
    ):
        kept.write_text(damaged)
        assert read_record_losses(kept.parent, 2.0) is None
        assert found_in(tmp_path, sweep)[1].over_records is None
    kept.unlink()
    assert sure_text(found_in(tmp_path, sweep)[1]) == "Not yet: one run per configuration."
    kept.write_text(whole)
    assert found_in(tmp_path, sweep)[1].over_records is not None
    assert read_answer(read_study(sweep), verdict(sweep), run_folder="").over_records is None


def test_a_confirmation_averages_its_seeds_for_every_arm(sweep: optuna.Study, tmp_path: Path) -> None:
    replicates = confirm(*ARMS[:3])
    moved: Any = optuna.create_study(study_name="with folders")
    moved.set_user_attr("arms", replicates.user_attrs["arms"])
    for number, one in enumerate(replicates.trials):
        folder = f"trials/{number:04d}"
        one.set_user_attr("folder", folder)
        moved.add_trial(one)
        assert one.state == TrialState.COMPLETE
        keep(tmp_path / "confirm" / folder, one.value, SPREAD * (1 + number % 3))
    found, answer = found_in(tmp_path, sweep, moved)
    arms = found.over_records.arms
    assert set(arms) == {"default", "rate 2e-4"}
    over = answer.over_records
    assert over == arms["default"]
    assert over is not None
    assert over.seeds == 5
    assert answer.default.gap is not None
    assert over.percent == pytest.approx(answer.default.gap.percent, rel=1e-6)
    assert "Over other evaluation records the default costs" in sure_text(answer)
    assert verdict_data(found, answer)["replicates"]["over_records"]["rate 2e-4"]["seeds"] == 5
    page = rows_page(found)
    assert "over other evaluation records" in page
    assert f"{over.low_percent:.1f} to {over.high_percent:.1f}%" in page
    (tmp_path / "confirm" / "trials" / "0004" / "record_losses.json").unlink()
    assert "default" not in found_in(tmp_path, sweep, moved)[0].over_records.arms


def test_a_difference_that_other_records_may_not_show_says_so(tmp_path: Path) -> None:
    sweep = study(
        trial(2.04, label=DEFAULT_LABEL, attrs={"folder": "trials/0000"}),
        trial(2.0, lr=4e-4, attrs={"folder": "trials/0001"}),
    )
    odd = np.zeros(48)
    odd[7] = 3.0
    keep(tmp_path / "trials" / "0000", 2.04, odd)
    keep(tmp_path / "trials" / "0001", 2.0, np.zeros(48))
    _, answer = found_in(tmp_path, sweep)
    over = answer.over_records
    assert over is not None
    assert over.rests_on == 1
    assert over.high_percent < 40
    assert sure_text(answer).endswith("%, so on others it may not matter. It rests on 1 record of 48.")
