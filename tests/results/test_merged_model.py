"""The measured loss of the best merged into its base: kept, and shown while it is the best's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from files_and_text.problems import InputError
from files_and_text.trial_paths import MERGED_FILE
from results.answer.answer import Answer
from results.answer.read_answer import read_answer
from results.best import best_config, read_best_config, write_best
from results.export.generated_text import provenance_lines
from results.merged_model import MergedModel, forget_merged_model, read_merged_model, write_merged_model
from results.render.json_data import verdict_data
from results.render.markdown import to_markdown
from results.report import write_report
from results.sweep_result import read_study
from results.text.answer import answer_lines
from results.text.limitations import notes
from results.verdict.verdict import verdict
from search_spaces import DEFAULT_LABEL
from tests.results.confirm_studies import ARMS, confirm
from tests.results.conftest import study, trial
from tests.results.test_best import write_adapter

KEPT = MergedModel(trial=1, dtype="bfloat16", loss=2.02, folder="best/merged", eval_digest="e1")


def made() -> optuna.Study:
    default = trial(2.5, label=DEFAULT_LABEL)
    best = trial(2.0, lr=4e-4, ratio=0.125, scheduler="cosine")
    return study(default, best, context={"eval_set_hash": "e1"})


def answer_in(folder: Path, of: optuna.Study, replicates: optuna.Study | None = None) -> Answer:
    found = verdict(of, replicates, run_folder=folder)
    return read_answer(read_study(of), found, run_folder="runs/mine")


def test_its_loss_stands_wherever_the_bases_losses_do(tmp_path: Path) -> None:
    sweep = made()
    write_merged_model(KEPT, tmp_path)
    found, answer = verdict(sweep, run_folder=tmp_path), answer_in(tmp_path, sweep)
    lines = answer_lines(answer, width=80)
    assert any("untouched base 3.000   merged in bfloat16 2.020" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert "| best merged in bfloat16 | 2.020 | +1.0% |" in to_markdown(found, answer)
    data = verdict_data(found, answer)
    assert data["merged_eval_loss"] == data["answer"]["merged"]["loss"] == 2.02
    page = write_report(sweep, found, tmp_path).read_text()
    tile = "The best merged in bfloat16</dt><dd><strong>2.020</strong><span>+1.0% against the best"
    assert tile in page
    write_adapter(tmp_path, 1)
    best = write_best(sweep, tmp_path, answer=answer)
    result = read_best_config(best)["result"]
    assert (result["merged_eval_loss"], result["merged_dtype"]) == (2.02, "bfloat16")
    assert any(
        line.endswith("untouched base: 3.000; merged in bfloat16 2.020.")
        for line in provenance_lines(read_best_config(best))
    )


def test_without_one_nothing_is_said_of_it(tmp_path: Path) -> None:
    sweep = made()
    found, answer = verdict(sweep, run_folder=tmp_path), answer_in(tmp_path, sweep)
    assert answer.merged is None
    texts = [*answer_lines(answer), to_markdown(found, answer), json.dumps(verdict_data(found, answer))]
    assert not any("merged" in text for text in texts)
    assert "merged_eval_loss" not in best_config(sweep, answer=answer)["result"]


@pytest.mark.parametrize("other", [{"trial": 0}, {"eval_digest": "e2"}])
def test_that_of_another_best_or_of_other_records_is_left_out_in_silence(
    tmp_path: Path, other: dict[str, object]
) -> None:
    write_merged_model(replace(KEPT, **other), tmp_path)  # type: ignore[arg-type]
    sweep = made()
    assert answer_in(tmp_path, sweep).merged is None
    assert "merged_not_read" not in [one.code for one in verdict(sweep, run_folder=tmp_path).limitations]


def test_beside_a_mean_over_seeds_it_has_no_cost(tmp_path: Path) -> None:
    write_merged_model(KEPT, tmp_path)
    merged = answer_in(tmp_path, made(), confirm(*ARMS)).merged
    assert merged is not None
    assert (merged.loss, merged.gap) == (2.02, None)


def test_the_last_one_is_kept(tmp_path: Path) -> None:
    write_merged_model(KEPT, tmp_path)
    other = replace(KEPT, dtype="float32", loss=2.01, folder="/elsewhere")
    write_merged_model(other, tmp_path)
    assert read_merged_model(tmp_path) == other
    assert forget_merged_model(tmp_path)
    assert not forget_merged_model(tmp_path)
    assert read_merged_model(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{\n", "best/merged.json:2: not JSON"),
        ("[1]", "best/merged.json: a merged model is kept as a mapping; got [1]"),
        ("\udcff", "best/merged.json: cannot be read"),
        (
            '{"trial": true, "dtype": "bfloat16", "loss": 2, "folder": "a", "eval_digest": "e1"}',
            "trial must be",
        ),
        (
            '{"trial": 1, "dtype": "bfloat16", "loss": NaN, "folder": "a", "eval_digest": "e1"}',
            "loss must be",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_breaks_nothing(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "best" / MERGED_FILE
    file.parent.mkdir()
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as error:
        read_merged_model(tmp_path)
    assert said in str(error.value)
    sweep = made()
    found, answer = verdict(sweep, run_folder=tmp_path), answer_in(tmp_path, sweep)
    assert answer.merged is None
    assert any(said in note for note in notes(found.limitations, most=20))
    assert said in to_markdown(found, answer)
    assert said in write_report(sweep, found, tmp_path).read_text().replace("<wbr>", "")


def test_more_known_of_the_same_best_keeps_the_merged_model_and_another_best_removes_it(
    tmp_path: Path,
) -> None:
    sweep = made()
    write_adapter(tmp_path, 1)
    merged = write_best(sweep, tmp_path) / "merged" / "model.safetensors"
    merged.parent.mkdir()
    merged.write_text("weights")
    write_merged_model(KEPT, tmp_path)
    best = write_best(sweep, tmp_path, answer=answer_in(tmp_path, sweep))
    assert read_best_config(best)["result"]["merged_eval_loss"] == 2.02
    assert merged.read_text() == "weights"
    sweep.add_trial(trial(1.9, lr=6e-4))
    write_adapter(tmp_path, 2, 2.0)
    write_best(sweep, tmp_path, answer=answer_in(tmp_path, sweep))
    assert not merged.exists()
    assert read_merged_model(tmp_path) is None
