"""A trial trained again alone gives its record bit by bit, and the first value that differs is named."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

from sweeps.errors import ConfigError, ReplayError, StudyMismatch
from sweeps.replay.replay_text import summary
from sweeps.storage.open_storage import open_storage
from sweeps.storage.optuna_private import trial_id_of
from sweeps.study.study import find_study
from sweeps.sweep import Sweep
from tests.sweeps.cli.calling import Call, listing

pytestmark = pytest.mark.slow


def copy_of(sweep: Sweep, into: Path) -> Sweep:
    """The run folder of `sweep` copied, with its study."""
    return Sweep.load(shutil.copytree(sweep.run_folder, into / sweep.config.name))


def test_a_pruned_trial_is_equal_up_to_where_it_was_pruned(
    ended: Sweep, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # it cannot be imported, and is not needed
    pruned = next(t for t in ended.study().trials if t.state == TrialState.PRUNED)
    before, threads = listing(ended.run_folder), torch.get_num_threads()
    answer = call("replay", ended.run_folder, pruned.number)
    assert answer.code == 0, answer.err
    percent = max(pruned.intermediate_values)
    lines = [line.split() for line in answer.out.splitlines()]
    loss = repr(pruned.intermediate_values[percent])
    assert [f"{percent}%", "eval_loss", loss, loss, "equal"] in lines
    digest = f"{pruned.user_attrs['adapter_sha256'][:12]}..."
    assert [f"{percent}%", "adapter_sha256", digest, digest, "equal"] in lines
    assert f"up to {percent}% of the budget are equal, bit by bit" in answer.out
    assert listing(ended.run_folder) == before
    assert torch.get_num_threads() == threads
    # In a pack of three, on as many threads as now.
    assert pruned.user_attrs["num_threads"] == 1
    assert pruned.user_attrs["device"].startswith("CPU with ")
    assert pruned.user_attrs["compute_path"].startswith("general: ")


def test_a_loss_that_was_altered_is_found_in_the_study_and_in_the_files(
    ended: Sweep, tmp_path: Path, call: Call
) -> None:
    sweep = copy_of(ended, tmp_path)
    trial = sweep.study().trials[0]
    assert list(trial.intermediate_values) == [20, 40, 70, 100]
    true, altered = trial.intermediate_values[40], trial.intermediate_values[40] * (1 + 2**-52)
    assert true != altered
    storage = open_storage(sweep.storage_url)
    with storage.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql(
            "UPDATE trial_intermediate_values SET intermediate_value = ? WHERE trial_id = ? AND step = 40",
            (altered, trial_id_of(trial)),
        )
    storage.close()
    answer = call("replay", sweep.run_folder, 0, "--json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert found["first_difference"] == {
        **{"percent": 40, "name": "eval_loss", "recorded": altered, "found": true, "source": "study"}
    }
    # The file beside it still has the true value, so that one is equal.
    at_40 = [value for value in found["values"] if (value["percent"], value["name"]) == (40, "eval_loss")]
    assert [(value["source"], value["recorded"]) for value in at_40] == [
        ("study", altered),
        ("reports.jsonl", true),
    ]


def test_the_first_report_that_differs_is_named(ended: Sweep, tmp_path: Path, call: Call) -> None:
    sweep = copy_of(ended, tmp_path)
    file = sweep.run_folder / "trials" / "0000" / "reports.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["grad_norm"] *= 1.5
    lines[2]["adapter_sha256"] = "0" * 64
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = call("replay", sweep.run_folder, 0)
    assert answer.code == 1
    last = answer.out.splitlines()[-1]
    assert last.startswith("trial 0 differs first at 40% of the budget: grad_norm was recorded as ")
    assert f"{lines[1]['grad_norm']!r} ({lines[1]['grad_norm'].hex()}) (reports.jsonl), found " in last
    assert answer.out.count("different") == 2


def test_a_trial_goes_on_from_a_checkpoint_that_is_kept(interrupted: Sweep, call: Call) -> None:
    answer = call("replay", interrupted.run_folder, 0, "--from", 40, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert {value["percent"] for value in found["values"]} == {0, 70}
    assert found["outcome"] is None
    assert "the trial has not ended; compared up to its last report" in found["notes"]
    answer = call("replay", interrupted.run_folder, 0, "--from", 50)
    assert answer.code == 2
    assert "trial 0 has no checkpoint at 50% of its budget; kept: 40% (step 4). Without --from" in answer.err
    for percent in (70, 150):
        answer = call("replay", interrupted.run_folder, 0, "--from", percent)
        assert answer.code == 2
        said = f"--from must be below 70, the percent of the budget at trial 0's last report; got {percent}"
        assert said in answer.err


def test_bad_input_names_what_is_wrong(ended: Sweep, interrupted: Sweep, call: Call) -> None:
    for sweep, arguments, said in (
        (ended, (7,), "'small' has trials 0 to 4, got 7; the nearest trial with a record is 4"),
        (ended, (-1,), "sweeps replay has no option '-1'"),
        (ended, (0, "--from", 40), "kept: none, since checkpoints are removed when a trial ends"),
        (ended, (0, "--confirmation"), "sweep 'small' has no confirmation; `sweeps confirm` makes one"),
    ):
        answer = call("replay", sweep.run_folder, *arguments)
        assert (answer.code, said in answer.err) == (2, True), answer


def test_a_trial_without_a_report_is_refused(ended: Sweep, tmp_path: Path) -> None:
    sweep = copy_of(ended, tmp_path)
    storage = open_storage(sweep.storage_url)
    study = find_study(storage, "small")
    assert study is not None
    study.enqueue_trial({"learning_rate": 1e-3})
    storage.close()
    said = (
        r"trial 5 of 'small' has no recorded report \(it is waiting\); the nearest trial with a record is 4"
    )
    with pytest.raises(ReplayError, match=said):
        sweep.replay(5)


@pytest.mark.parametrize("what", ["train.jsonl", "model"])
def test_changed_data_or_weights_are_refused(ended: Sweep, tmp_path: Path, what: str) -> None:
    home = Path(ended.config.data.train).parent
    shutil.copytree(home, tmp_path / "home")
    kept = tmp_path / "home" / "runs" / "small" / "sweep.yaml"
    kept.write_text(kept.read_text().replace(str(home), str(tmp_path / "home")))
    if what == "model":
        from safetensors.torch import load_file, save_file

        file = tmp_path / "home" / "model" / "model.safetensors"
        weights = load_file(file)
        next(iter(weights.values()))[0] += 1.0
        save_file(weights, file, metadata={"format": "pt"})
        said = "digests of the base's weights"
    else:
        file = tmp_path / "home" / what
        file.write_text(file.read_text().replace("a", "b"))
        said = "digests of the training records as tokens"
    with pytest.raises(StudyMismatch, match=said):
        Sweep.load(kept.parent).replay(0)
    if what != "model":
        file.unlink()
        with pytest.raises(ConfigError, match=what):
            Sweep.load(kept.parent)


def test_another_machine_and_old_records_are_said(ended: Sweep, tmp_path: Path) -> None:
    sweep = copy_of(ended, tmp_path)
    pruned = next(t for t in ended.study().trials if t.state == TrialState.PRUNED)
    storage = open_storage(sweep.storage_url)
    study = find_study(storage, "small")
    assert study is not None
    study.set_user_attr("versions", study.user_attrs["versions"] | {"torch": "1.0"})
    with storage.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql(
            "DELETE FROM trial_user_attributes WHERE key IN ('adapter_sha256', 'grad_norm', 'num_threads')"
        )
        connection.exec_driver_sql(
            "UPDATE trial_user_attributes SET value_json = '\"NVIDIA H200\"' WHERE key = 'device'"
        )
        connection.exec_driver_sql(
            "UPDATE trial_user_attributes SET value_json = '\"fused: a reason; norms: one kernel\"'"
            " WHERE key = 'compute_path'"
        )
    storage.close()
    for file in sweep.run_folder.glob("trials/*/re*.json*"):
        lines = [json.loads(line) for line in file.read_text().splitlines() if file.suffix == ".jsonl"]
        file.write_text("".join(json.dumps(_of_old(line)) + "\n" for line in lines))
    answer = sweep.replay(pruned.number)
    assert answer.is_equal
    assert summary(answer).endswith(
        "of the budget are equal, bit by bit; not in the record, so not compared: grad_norm, adapter_sha256"
    )
    (differing,) = answer.notes
    assert differing.startswith(
        "equal bits are only promised on the same kind of device with the same library"
    )
    assert "NVIDIA H200 then, CPU with " in differing
    assert "computed as fused (norms: one kernel) then, as general (" in differing
    assert f"torch 1.0 then, {torch.__version__} now" in differing


def _of_old(line: dict[str, Any]) -> dict[str, Any]:
    newer = ("adapter_sha256", "grad_norm", "num_threads", "device")
    return {key: value for key, value in line.items() if key not in newer}
