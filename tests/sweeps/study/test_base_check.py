"""A base with the study's name and other weights is refused, with both values."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from results.sweep_result import read_study
from sweeps.errors import StudyMismatch
from sweeps.keeper.keeper import Keeper
from sweeps.plan.specs import StudySpec
from sweeps.study.base_check import base_difference
from sweeps.study.study import peek
from sweeps.sweep import Sweep

Make = Callable[..., Any]
SWEEP = """\
name: swapped
model: {{name: {model}}}
data: {{train: data.jsonl, eval_fraction: 0.2, max_length: 32}}
training: {{max_steps: 4, per_device_train_batch_size: 4}}
search: {{sampler: random, pruner: none}}
trials: 2
seats: 2
"""


@pytest.fixture
def sweep(tmp_path: Path, tiny_model: Callable[..., Path]) -> Sweep:
    shutil.copytree(tiny_model("llama"), tmp_path / "base")
    records = [{"prompt": f"w{i}:", "completion": f"word{i}"[::-1]} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (tmp_path / "s.yaml").write_text(SWEEP.format(model=tmp_path / "base"))
    return Sweep.load(tmp_path / "s.yaml")


def open_keeper(study_spec: StudySpec, url: str) -> Keeper:
    keeper = Keeper(study_spec, url)
    keeper.close()
    return keeper


def test_weights_changed_between_two_runs_are_refused_before_anything_starts(
    sweep: Sweep, tmp_path: Path
) -> None:
    first = sweep.plan().study_spec
    assert len(first.identity["weights"]) == 16
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_keeper(first, url)
    assert peek(url, first.name, sweep.plan().study_spec.identity) is not None
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] += 0.01
    model.save_pretrained(tmp_path / "base")
    other = sweep.plan().study_spec
    old, new = first.identity["weights"], other.identity["weights"]
    for refuse in (lambda: peek(url, other.name, other.identity), lambda: Keeper(other, url)):
        with pytest.raises(StudyMismatch, match=f"weights: the study has '{old}', this sweep '{new}'"):
            refuse()


def test_a_study_without_a_digest_goes_on_and_gets_one(make_keeper: Make, tmp_path: Path) -> None:
    """It is older than digests; its identity, which trackers and hashes read, stays the same."""
    keeper = make_keeper()
    identity = dict(keeper.study.user_attrs["identity"])
    keeper.close()
    study_spec = replace(keeper.study_spec, identity=identity | {"weights": "0123456789abcdef"})
    assert peek(keeper._storage.url, study_spec.name, study_spec.identity) is not None
    again = Keeper(study_spec, keeper._storage.url)
    assert again.study.user_attrs["base_weights"] == "0123456789abcdef"
    assert again.study.user_attrs["identity"] == identity
    assert read_study(again.study).identity == study_spec.identity
    again.close()
    with pytest.raises(StudyMismatch, match="'0123456789abcdef', this sweep 'other'"):
        Keeper(replace(study_spec, identity=identity | {"weights": "other"}), keeper._storage.url)


def test_weights_of_a_hub_id_are_known_once_a_worker_has_read_them(make_keeper: Make) -> None:
    keeper = make_keeper()
    keeper.study_spec = replace(keeper.study_spec, identity=keeper.study_spec.identity | {"weights": None})
    assert not keeper.register(0, 3.25, "aa").stop
    assert keeper.study.user_attrs["base_weights"] == "aa"
    assert not keeper.register(1, 3.25, "aa").stop
    assert keeper.register(2, 3.25, "bb").stop
    assert keeper.errors == [
        "worker 2 has a base with the same name but other weights: the weights have digest bb, "
        "the study's base has aa"
    ]
    keeper.close()
    unread = replace(keeper.study_spec, identity=keeper.study_spec.identity | {"weights": None})
    again = Keeper(unread, keeper._storage.url)  # on a machine that has not downloaded them
    assert again.study.user_attrs["base_weights"] == "aa"


def test_another_loss_of_the_untouched_base_is_refused_and_not_stored(make_keeper: Make) -> None:
    keeper = make_keeper()
    keeper.register(0, 3.25)
    assert not keeper.register(1, 3.2501).stop
    assert keeper.register(2, 3.5).stop
    (trouble,) = keeper.errors
    assert "evaluation loss 3.500000, the study's 3.250000" in trouble
    assert keeper.study.user_attrs["base_eval_loss"] == 3.25
    assert any(
        "worker 2 has a base with the same name but other weights" in event
        for event in keeper.status().events
    )


@pytest.mark.parametrize(("dtype", "noise"), [("float32", 1e-3), ("bfloat16", 1e-2)])
def test_losses_may_differ_by_the_noise_of_their_dtype(dtype: str, noise: float) -> None:
    def compare(loss: float) -> str | None:
        study = {"base_eval_loss": 2.0}
        return base_difference(study, weights=None, base_eval_loss=loss, compute_dtype=dtype)

    assert compare(2.0 * (1 + 0.9 * noise)) is None
    assert compare(2.0 * (1 - 1.1 * noise)) is not None
    assert compare(2.0 * (1 + 1.1 * noise)) is not None
