"""GPUs that are named instead of found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from lora_runner.base.load_model import BaseSpec
from lora_runner.errors import DeviceError
from lora_runner.memory import planned_device
from lora_runner.memory.estimate import Workload, choose_seats
from lora_runner.memory.planned_device import GIB, GPUS, PlannedDevice, unused_gpu

WORK = Workload(lora_r=8, batch_size=2, length=32, eval_batch_size=2, eval_length=32)


@pytest.mark.parametrize(
    ("text", "name", "gib"),
    [
        ("24GiB", "a GPU with 24 GiB", 24),
        ("80 gb", "a GPU with 80 GiB", 80),
        ("11.5", "a GPU with 11.5 GiB", 11.5),
        ("H200", "H200", 141),
        ("a100-40gb", "A100-40GB", 40),
        ("RTX 4090", "RTX 4090", 24),
        ("NVIDIA GeForce RTX-4090", "RTX 4090", 24),
    ],
)
def test_a_gpu_is_named_by_its_memory_or_its_name(text: str, name: str, gib: float) -> None:
    found = PlannedDevice.named(text, 2)
    assert (found.name, found.memory, found.count, found.is_here) == (name, gib * GIB, 2, False)
    assert found.dtype("auto") == torch.bfloat16


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a100", "Is it A100-40GB or A100-80GB?"),
        ("RTX 4091", "Did you mean 'RTX 4090'?"),
        ("toaster", "Known: H100"),
        ("", "such as 24GiB"),
        ("0GiB", "1 to 1024 GiB"),
        ("-5GiB", "1 to 1024 GiB of memory, such as 24GiB; got '-5GiB'"),
        ("5000", "1 to 1024 GiB"),
        ("-3", "such as 24GiB"),
    ],
)
def test_nonsense_is_told_what_is_accepted(text: str, word: str) -> None:
    with pytest.raises(DeviceError, match=r"--gpu must") as caught:
        PlannedDevice.named(text)
    assert word in str(caught.value)
    assert repr(text) in str(caught.value)
    with pytest.raises(DeviceError, match="--gpus must be at least 1; got 0"):
        PlannedDevice.named("H100", 0)


def test_every_known_gpu_is_found_by_its_own_name() -> None:
    assert all(PlannedDevice.named(name).name == name for name in GPUS)


@pytest.mark.slow
def test_memory_is_counted_as_on_that_gpu(tiny_model: Callable[..., Path]) -> None:
    spec = BaseSpec(model=str(tiny_model("llama")))

    def seats(text: str) -> tuple[int, str]:
        chosen = choose_seats(spec, WORK, most=32, on=PlannedDevice.named(text))
        path = chosen.estimate.path
        assert path is not None
        assert "peak from a dry run" in chosen.reason
        assert chosen.estimate.libraries == 0  # on CUDA only tensors count
        return chosen.seats, "fused" if path.is_fused else "general"

    assert seats("H100") == (32, "fused")
    assert seats("RTX 4090") == (32, "general")
    with_little = PlannedDevice(
        kind="cuda", name="small", memory=2 * choose_seats(spec, WORK, most=1).estimate.base, count=1,
        is_here=False,
    )  # fmt: skip
    assert choose_seats(spec, WORK, most=32, on=with_little).seats < 32


def test_planning_for_a_gpu_leaves_the_models_own_code_alone(tiny_model: Callable[..., Path]) -> None:
    """Liger would patch the Python module of the model for every later model of this process."""
    from transformers.models.llama import modeling_llama

    before = (modeling_llama.LlamaRMSNorm, modeling_llama.apply_rotary_pos_emb)
    spec = BaseSpec(model=str(tiny_model("llama")))
    choose_seats(spec, WORK, most=2, on=PlannedDevice.named("24GiB"))
    assert (modeling_llama.LlamaRMSNorm, modeling_llama.apply_rotary_pos_emb) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_what_is_here_without_a_gpu() -> None:
    here = PlannedDevice.here()
    assert (here.kind, here.count, here.is_here) == ("cpu", 1, True)
    assert here.name.endswith(("CPU core", "CPU cores"))
    assert 2**26 < here.memory <= psutil.virtual_memory().total


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(planned_device, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(planned_device.shutil, "which", lambda name: None)
    assert unused_gpu() is None
    (tmp_path / "version").write_text("NVRM version")
    monkeypatch.setattr(torch.version, "cuda", None)
    said = unused_gpu()
    assert said is not None
    assert said.startswith("this machine has an NVIDIA GPU that is not used: torch ")
    assert "built without CUDA" in said
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES is empty" in str(unused_gpu())
