"""Each operation, and each kernel of a GPU, is assigned to its part of the step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks.training_steps import kernel_parts, step_profile
from benchmarks.training_steps.case import PackTrials
from benchmarks.training_steps.kernel_parts import (
    ATTENTION,
    COPIES,
    DEQUANTIZATION,
    LORA,
    LOSS,
    OTHER,
    PARTS,
    PRODUCTS,
    UPDATE,
    own_kernels,
    part_of_kernel,
)
from benchmarks.training_steps.step_profile import part_of, profile_step, profiled
from lora_runner.layers.linear import PackedLinear
from tests.benchmarks.cases import CASE


@pytest.fixture
def trials() -> PackTrials:
    found = PackTrials(CASE, 2, CASE.new_pack())
    found.pack.train_step(found.batches())
    return found


@pytest.mark.slow
def test_all_parts_are_seen_and_nothing_counts_twice(trials: PackTrials) -> None:
    batches = trials.batches()
    shares = profile_step(lambda: trials.pack.train_step(batches), CASE.device)
    assert 0 < sum(shares.seconds.values()) <= shares.wall
    assert {part for part, spent in shares.seconds.items() if spent > 0} == {*PARTS} - {COPIES}


@pytest.mark.slow
@pytest.mark.parametrize("part", [DEQUANTIZATION, LORA, PRODUCTS, LOSS, UPDATE])
def test_an_operation_is_assigned_to_its_part(
    trials: PackTrials, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    owner, name = {
        DEQUANTIZATION: (PackedLinear, "base_weight"),
        LORA: (step_profile.packed_modules, "outer_by_block"),
        PRODUCTS: (step_profile.packed_modules, "matmul_shared"),
        LOSS: (step_profile.F, "cross_entropy"),
        UPDATE: (step_profile.Pack, "update"),
    }[part]
    function, burden = getattr(owner, name), torch.eye(2)

    def burdened(*given: Any, **named: Any) -> Any:
        torch.linalg.det(burden)
        return function(*given, **named)

    monkeypatch.setattr(owner, name, burdened)
    batches = trials.batches()
    events, _ = profiled(lambda: trials.pack.train_step(batches), CASE.device)
    assert {part_of(event) for event in events if event.name == "aten::_linalg_det"} == {part}


@pytest.mark.slow
def test_a_profiled_function_is_itself_again(trials: PackTrials) -> None:
    before = [getattr(owner, name) for owner, name, _ in step_profile.LABELLED]
    profile_step(lambda: trials.pack.train_step(trials.batches()), CASE.device)
    assert [getattr(owner, name) for owner, name, _ in step_profile.LABELLED] == before


def event_of(name: str, device: DeviceType = DeviceType.CPU, **also: Any) -> SimpleNamespace:
    """As torch's profiler tells of operations and kernels."""
    usual: dict[str, Any] = {"cpu_parent": None, "kernels": [], "is_user_annotation": False}
    return SimpleNamespace(name=name, device_type=device, **usual | also)


def kernel_of(
    name: str, microseconds: float, start: float, **also: Any
) -> tuple[SimpleNamespace, SimpleNamespace]:
    """A kernel as the operation that launched it has it, and as the device has it."""
    end = start + microseconds
    span = SimpleNamespace(elapsed_us=lambda: microseconds, start=start, end=end)
    on_device = event_of(name, DeviceType.CUDA, time_range=span, **also)
    return SimpleNamespace(name=name, duration=microseconds), on_device


def test_every_kernel_of_a_gpu_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what a profiler would say on CUDA."""
    gemm, gemm_there = kernel_of("gemm", 40.0, 0.0)
    copy, copy_there = kernel_of("Memcpy HtoD", 2.0, 50.0)
    softmax, softmax_there = kernel_of("softmax", 8.0, 60.0)
    _, lonely = kernel_of("lonely", 5.0, 70.0)
    echo, echo_there = kernel_of(step_profile.LABEL + PRODUCTS, 100.0, 0.0, is_user_annotation=True)
    label = event_of(step_profile.LABEL + PRODUCTS, kernels=[echo], is_user_annotation=True)
    events = [
        label,
        event_of("aten::mm", cpu_parent=label, kernels=[gemm]),
        event_of("aten::_to_copy", kernels=[copy]),
        event_of("aten::_log_softmax", cpu_parent=event_of("LogSoftmaxBackward0"), kernels=[softmax]),
        *(gemm_there, copy_there, softmax_there, lonely, echo_there),
    ]
    monkeypatch.setattr(step_profile, "profiled", lambda step, device: (events, 1e-4))
    shares = profile_step(lambda: None, torch.device("cuda"))
    assert shares.kernels == {PRODUCTS: 1, LOSS: 1, OTHER: 1, COPIES: 0}
    expected = {PRODUCTS: 40e-6, LOSS: 8e-6, OTHER: 5e-6, COPIES: 2e-6}
    assert dict(shares.seconds) == pytest.approx(expected)
    assert shares.gaps == pytest.approx(45e-6)


def test_kernels_of_a_replayed_graph_are_known_by_name_and_their_overlap_is_no_work_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("dense_matmul_kernel", "_rms_norm_forward_kernel", "fmha_cutlassB_bf16", "some_gemm")
    there = [kernel_of(name, 10.0, 8.0 * index)[1] for index, name in enumerate(names)]
    monkeypatch.setattr(step_profile, "profiled", lambda step, device: (there, 1e-4))
    monkeypatch.setattr(kernel_parts, "own_kernels", lambda: {"dense_matmul_kernel": PRODUCTS})
    shares = profile_step(lambda: None, torch.device("cuda"))
    assert shares.kernels == {PRODUCTS: 1, OTHER: 2, ATTENTION: 1}
    assert sum(shares.seconds.values()) == pytest.approx(40e-6)
    assert shares.busy == pytest.approx(34e-6)
    assert shares.gaps == pytest.approx(66e-6)


def test_a_product_of_the_output_layer_is_not_a_frozen_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kernel under another caller."""
    product, there = kernel_of("dense_matmul_kernel", 10.0, 0.0)
    label = event_of(step_profile.LABEL + LOSS)
    events = [event_of("launch", cpu_parent=label, kernels=[product]), there]
    monkeypatch.setattr(step_profile, "profiled", lambda step, device: (events, 1e-4))
    monkeypatch.setattr(kernel_parts, "own_kernels", lambda: {"dense_matmul_kernel": PRODUCTS})
    assert profile_step(lambda: None, torch.device("cuda")).kernels == {LOSS: 1}


def test_kernels_of_this_program_belong_to_the_part_that_their_file_is_about() -> None:
    assert own_kernels()["adamw_kernel"] == part_of_kernel("adamw_kernel") == UPDATE
    assert own_kernels()["keep_kernel"] == own_kernels()["lora_shrink_kernel"] == LORA
    assert part_of_kernel("void cutlass::device_kernel<GroupedGemm>") is None
    assert part_of_kernel("void kDequantizeBlockwise<__nv_bfloat16, 512>") == DEQUANTIZATION
