"""Moved runs are replayed, what cannot be read ends with 2, errors of the program with 70, never with 1."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.cli.main import INTERNAL_ERROR
from sweeps.errors import StudyMismatch
from sweeps.replay.comparison import ComparedValue, Replay
from sweeps.storage.open_storage import open_storage
from sweeps.study.base_check import BASE_WEIGHTS
from sweeps.study.study import find_study
from sweeps.sweep import Sweep
from tests.sweeps.cli.calling import Call
from tests.sweeps.replay.conftest import train

pytestmark = pytest.mark.slow


def test_a_run_model_and_data_that_moved_are_replayed(ended: Sweep, tmp_path: Path, call: Call) -> None:
    home, gone = Path(ended.config.data.train).parent, tmp_path / "gone"
    shutil.copytree(home, tmp_path / "new")
    run_folder = tmp_path / "new" / "runs" / "small"
    kept = run_folder / "sweep.yaml"
    kept.write_text(kept.read_text().replace(str(home), str(gone)))
    answer = call("replay", run_folder, 0)
    assert answer.code == 2
    assert f"{gone}/model" in answer.err
    assert "a replay is told by --set model.name=PATH, data.train, data.eval" in answer.err
    moved = {
        "model.name": tmp_path / "new" / "model",
        "data.train": tmp_path / "new" / "train.jsonl",
        "data.eval": tmp_path / "new" / "eval.jsonl",
    }
    settings = [word for key, path in moved.items() for word in ("--set", f"{key}={path}")]
    answer = call("replay", run_folder, 0, *settings)
    assert answer.code == 0, answer.err
    # Without a digest there is only the name to go by.
    sweep = Sweep.load(run_folder, {key: str(path) for key, path in moved.items()})
    storage = open_storage(sweep.storage_url)
    study = find_study(storage, "small")
    assert study is not None
    study.set_user_attr(BASE_WEIGHTS, None)
    storage.close()
    with pytest.raises(
        StudyMismatch, match=r"no digest of its base's weights, so its model must have"
    ) as raised:
        sweep.replay(0)
    assert f"model.name: the study has '{home}/model', this sweep '{tmp_path}/new/model'" in str(raised.value)
    assert "belongs to another sweep" not in str(raised.value)


def test_a_checkpoint_that_cannot_be_used_is_named(interrupted: Sweep, tmp_path: Path, call: Call) -> None:
    run_folder = shutil.copytree(interrupted.run_folder, tmp_path / "small")
    checkpoint = run_folder / "trials" / "0000" / "checkpoint"
    state = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "link").symlink_to("nowhere")
    answer = call("replay", run_folder, 0, "--from", 40)
    assert answer.code == 2
    assert f"the checkpoint of trial 0 in {checkpoint} cannot be copied ([Errno 2] No such file" in answer.err
    (checkpoint / "link").unlink()
    (checkpoint / "state.json").write_text(json.dumps(state | {"sha256": "0" * 64}))
    answer = call("replay", run_folder, 0, "--from", 40)
    assert answer.code == 2
    said = f"trial 0 cannot go on from its checkpoint at 40% of its budget (step 4, in {checkpoint})"
    assert said in answer.err
    assert "does not match its checksum" in answer.err
    assert "starts over" not in answer.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device"), 2, "so nothing was compared: [Errno 28] No space left"),
        (ZeroDivisionError("a bug"), INTERNAL_ERROR, "Traceback (most recent call last)"),
    ],
)
def test_an_error_never_ends_with_the_code_of_a_difference(
    ended: Sweep, call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Sweep, "replay", fail)
    answer = call("replay", ended.run_folder, 0)
    assert (answer.code, said in answer.err) == (code, True), answer


def test_json_has_null_for_a_value_that_is_not_finite(
    ended: Sweep, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged = ComparedValue(40, "eval_loss", float("nan"), float("inf"), "study")
    replay = Replay(number=0, values=(diverged,), last_percent=40, outcome="diverged")
    monkeypatch.setattr(Sweep, "replay", lambda *_, **__: replay)
    answer = call("replay", ended.run_folder, 0, "--json")
    assert answer.code == 1

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(answer.out, parse_constant=refuse)
    assert found["first_difference"] == {
        **{"percent": 40, "name": "eval_loss", "recorded": None, "found": None, "source": "study"}
    }


def test_a_renamed_run_goes_on_to_the_same_losses(
    new_sweep: Callable[..., Sweep], ended: Sweep, call: Call
) -> None:
    stopped = new_sweep(most_turns=4)
    assert stopped.status().finished < 5
    renamed = stopped.run_folder.rename(stopped.run_folder.with_name("called otherwise"))
    sweep = Sweep.load(renamed)
    train(sweep.plan(), sweep.storage_url)
    columns = ["number", "outcome", "eval_loss", "last_eval_loss", "learning_rate"]
    assert sweep.results[columns].equals(ended.results[columns])
    assert sweep.reports.equals(ended.reports)
    assert not stopped.run_folder.exists()
    assert call("replay", renamed, 0).code == 0
