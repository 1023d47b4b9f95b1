"""The disk that frozen trials take, in `sweeps plan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from files_and_text.trial_paths import TENSORS_FILE
from lora_runner.base.load_model import BaseSpec, load_base, meta_model
from lora_runner.checkpoint import save_checkpoint
from lora_runner.config import TrialConfig
from lora_runner.memory.sizes import Workload
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import Pack
from search_spaces import space_for
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.plan.frozen_disk import FrozenDisk, frozen_disk
from sweeps.plan.specs import CheckpointSize, StudySpec
from sweeps.plan.view.overview import disk_lines
from tests.sweeps.conftest import build_study_spec

GIB = 2**30


@pytest.mark.parametrize("rank", [4, 6])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bits", [None, 32, 8])
def test_the_size_is_that_of_a_checkpoint_on_disk(
    tiny_model: Callable[..., Path], tmp_path: Path, bits: Literal[32, 8] | None, tied: bool, rank: int
) -> None:
    spec = BaseSpec(model=str(tiny_model("llama", tie_word_embeddings=tied)))
    options: dict[str, Any] = {"train_embeddings": bits is not None, "embedding_optimizer_bits": bits or 32}
    size = CheckpointSize.of(meta_model(spec), Workload(**options, lora_r=64, batch_size=1, length=8))
    config = TrialConfig(
        learning_rate=1e-3, embedding_learning_rate=1e-4 if bits else None, max_steps=4, lora_r=rank
    )
    save_checkpoint(tmp_path / "c", Pack(load_base(spec), PackOptions(**options)).new_seat(config), {})
    written = (tmp_path / "c" / TENSORS_FILE).stat().st_size
    header = int.from_bytes((tmp_path / "c" / TENSORS_FILE).read_bytes()[:8], "little") + 8
    # Moments in 8 bits cover whole blocks.
    assert size.gib(rank) * GIB == pytest.approx(written - header, rel=0 if bits != 8 else 0.25)


def spec_of(folder: Path, gib: float = 20.0, **changed: Any) -> StudySpec:
    size = CheckpointSize(per_rank=GIB // 16, embeddings=0)
    spec = build_study_spec(
        folder,
        trials=11,
        sampler="curve_gp",
        checkpoint_size=size,
        reliability=ReliabilitySection(frozen_gib=gib, **changed),
    )
    space = space_for(
        model_size=8.03e9, max_steps=100, train_embeddings=True, overrides={"lora_r": {"choices": [8, 64]}}
    )
    return replace(spec, space=space)


def test_the_plan_names_what_frozen_trials_may_take(tmp_path: Path) -> None:
    [line, *_] = disk_lines(spec_of(tmp_path))
    assert str(line) == (
        "at most 20 GiB for 5 frozen trials or more, 0.5 to 4 GiB each (reliability.frozen_gib: 20)"
    )
    # The guideline default is never frozen, so that ten trials of 4 GiB are all.
    [line, *_] = disk_lines(spec_of(tmp_path, 50.0))
    assert str(line) == "at most 40 GiB for frozen trials, 0.5 to 4 GiB each (reliability.frozen_gib: 50)"
    stored = frozen_disk(spec_of(tmp_path, checkpoints="memory://there"))
    assert stored is not None
    assert (stored.each_gib, stored.free_gib) == ((1.0, 8.0), None)


def test_a_sweep_that_freezes_nothing_takes_none(tmp_path: Path) -> None:
    assert frozen_disk(build_study_spec(tmp_path)) is None
    assert disk_lines(build_study_spec(tmp_path)) == []


def test_the_plan_warns_where_nothing_can_be_kept_or_the_disk_is_too_small() -> None:
    one = FrozenDisk(most_gib=3, each_gib=(0.5, 4.0), trials=9, free_gib=100)
    assert one.warning is not None
    assert one.warning.startswith("no trial can be frozen: its checkpoint takes 4 GiB")
    small = FrozenDisk(most_gib=20, each_gib=(0.5, 4.0), trials=9, free_gib=12)
    assert small.warning is not None
    assert "may take 20 GiB, and 12 GiB are free" in small.warning
    for fine in (replace(small, free_gib=None), replace(small, free_gib=21), replace(one, trials=1)):
        assert fine.warning is None
