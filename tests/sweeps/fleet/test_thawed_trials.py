"""A sweep that freezes trials and takes them up again, equal to one in which none was ever frozen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.data import DataBundle, TokenizedExample, TokenizedSet
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import Pack
from lora_runner.protocol import SessionOptions
from lora_runner.session import Session
from sweeps.artifacts.worker_files import SharedFiles
from sweeps.fleet.progress_reports import ProgressReports
from sweeps.fleet.worker import Worker
from sweeps.keeper.keeper import Keeper
from sweeps.study.curve_gp.curves import Curve
from sweeps.study.curve_gp.pruner import FreezeThaw
from tests.sweeps.conftest import build_study_spec

PERCENTS = (20, 40, 60, 80, 100)
FROZEN_AT = {1: 40, 2: 60, 4: 40}
"""Trial -> percent."""


def example(start: int, stride: int) -> TokenizedExample:
    ids = [2 + (start + stride * i) % 60 for i in range(12)]
    return TokenizedExample(input_ids=ids, labels=[-100] * 3 + ids[3:])


@pytest.fixture
def new_session(tiny_model: Callable[..., Path]) -> Callable[[], Session]:
    data = DataBundle(
        train=TokenizedSet.of([example(7 * i, 1 + i % 3) for i in range(16)], source="train"),
        eval=TokenizedSet.of([example(5 * i + 3, 1 + i % 3) for i in range(6)], source="eval"),
        sample_prompts=(),
        sample_answers=(),
        format="text",
    )
    pack = Pack(load_base(BaseSpec(model=str(tiny_model("llama")))), PackOptions(train_embeddings=True))
    options = SessionOptions(report_at=PERCENTS, checkpoint_seconds=1e9)
    return lambda: Session(pack, data, options, num_seats=2)


def sweep(folder: Path, url: str, session: Session, **search: Any) -> list[FrozenTrial]:
    """A whole sweep of real training, on one worker and without Ray; its trials at the end."""
    study_spec = build_study_spec(folder, trials=6, sampler="curve_gp", startup_trials=50, **search)
    constants = {**study_spec.constants, "max_steps": 10, "per_device_train_batch_size": 2}
    keeper = Keeper(replace(study_spec, constants=constants), url)
    worker: Any = Worker.__new__(Worker)
    worker.index, worker.session = 0, session
    worker._stopped = worker._fleet_done = False
    worker._last_reported, worker._notes = frozenset(), []
    worker._reported_at, worker._reported_tokens, worker._busy_seat_seconds = 0.0, 0, 0.0
    worker._watchdog, worker._files = contextlib.nullcontext(), SharedFiles()
    worker._progress = ProgressReports(send=lambda _: None, is_taken=lambda _: True)
    worker.keeper = SimpleNamespace(prefetch=SimpleNamespace(remote=keeper.prefetch))
    worker._call_keeper = lambda method, *said: getattr(keeper, method)(0, *said)
    worker._apply(keeper.ask(0, session.free_seats))
    while not worker.step()["done"]:
        pass
    trials = keeper.study.get_trials()
    keeper.leave()
    return trials


def adapter(folder: Path, trial: FrozenTrial) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes() for file in (folder / trial.user_attrs["folder"] / "adapter").iterdir()
    }


@pytest.mark.slow
def test_a_thawed_trial_is_equal_to_one_that_was_never_frozen(
    new_session: Callable[[], Session],
    new_database: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = [new_session(), new_session()]
    never = sweep(tmp_path / "never", new_database("never"), sessions[0], pruner="none")

    def behind(_: FreezeThaw, study: Any, trial: FrozenTrial) -> bool:
        return FROZEN_AT.get(trial.number) == trial.last_step

    def all_at_the_end(_: Any, curves: Sequence[Curve], *, has_new: bool) -> list[int]:
        return [] if has_new else [curve.number for curve in curves if curve.state == "frozen"]

    monkeypatch.setattr(FreezeThaw, "prune", behind)
    monkeypatch.setattr("sweeps.study.curve_gp.decisions.thaw", all_at_the_end)
    thawed = sweep(tmp_path / "thawed", new_database("thawed"), sessions[1])

    assert [t.user_attrs["attempt"] for t in thawed] == [2 if n in FROZEN_AT else 1 for n in range(6)]
    assert [t.user_attrs["attempt"] for t in never] == [1] * 6
    for one, other in zip(never, thawed, strict=True):
        assert one.state == other.state == TrialState.COMPLETE
        assert one.params == other.params
        assert list(other.intermediate_values) == list(PERCENTS)
        assert one.intermediate_values == other.intermediate_values
        for name in ("eval_loss", "train_loss", "adapter_sha256", "num_tokens", "num_steps", "outcome"):
            assert one.user_attrs[name] == other.user_attrs[name]
        assert adapter(tmp_path / "never", one) == adapter(tmp_path / "thawed", other)
    assert sessions[0].num_tokens == sessions[1].num_tokens, "no step was trained twice"
    assert not list((tmp_path / "thawed").glob("trials/*/checkpoint*"))
