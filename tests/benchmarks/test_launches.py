"""Kernels are counted without a GPU as a profiler counted them on one."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.operation_counter import OperationCounter
from benchmarks.harness.report import Report
from benchmarks.launches import report_layer
from benchmarks.training_steps.case import Case
from benchmarks.training_steps.meta_pack import FUSED, layer_kernels
from benchmarks.training_steps.random_llama import SHAPES
from lora_runner.kernels.launch import launch

META = torch.device("meta")
MOST_OF_A_LAYER = 60
"""Kernels of a decoder layer on the fused path, forward and backward."""
OF_UPDATE = 26
"""Kernels of clipping and AdamW in the profile, which are no part of the passes counted here."""


@pytest.mark.parametrize(("resident", "profiled"), [(False, 13_138), (True, 11_803)])
def test_a_step_has_the_kernels_of_a_profile_and_far_fewer_on_the_fused_path(
    resident: bool, profiled: int
) -> None:
    """The profile: `benchmarks.floor` at commit 66ea19e on an H200, torch 2.11, 8 trials on the 8B shape."""
    pytest.importorskip("liger_kernel")
    case = Case(
        shape=SHAPES["llama-3.1-8b"], num_tokens=512, device=META, dtype=torch.bfloat16, resident=resident
    )
    report = Report(name="nothing", fixed="", command="")
    report_layer(report, case, 8)
    ((_, _, rows),) = report.tables
    for column, path in enumerate(("general", "fused"), start=1):
        of_layer = sum(int(row[column]) for row in rows[:-1])
        assert report.figures[f"kernels_per_layer_{path}"] == of_layer == int(rows[-1][column])
    fused, general = (report.figures[f"kernels_per_layer_{path}"] for path in ("fused", "general"))
    assert fused <= MOST_OF_A_LAYER < general / 5
    assert report.figures["kernels_per_step_general"] == pytest.approx(profiled - OF_UPDATE, rel=1e-3)


@pytest.mark.parametrize("resident", [True, False])
def test_a_layer_of_eight_trials_takes_few_kernels_on_the_fused_path(resident: bool) -> None:
    """Forward and backward; where the base is not kept in bf16, siblings are dequantized by one kernel."""
    case = Case(
        shape=SHAPES["llama-3.1-8b"], num_tokens=512, device=META, dtype=torch.bfloat16, resident=resident
    )
    found = {num_seats: layer_kernels(case, num_seats, FUSED)[0] for num_seats in (1, 8)}
    assert found[8].total() <= MOST_OF_A_LAYER, found[8]
    assert found[8] == found[1], "the number of launches does not depend on the number of trials"


def test_only_what_computes_on_the_device_is_a_kernel() -> None:
    host, there = torch.ones(4, 4), torch.ones(4, 4, device=META)
    with OperationCounter("meta") as counter:
        there.detach().view(16).expand(2, 16)
        torch.empty_like(there).as_strided((2, 2), (4, 1))
        host + host
        host.to(META)
        there.copy_(host)
        assert counter.kernels.total() == 0
        there + there
        there.add_(torch.tensor(2.0))
        there.copy_(there.t())
    assert counter.kernels == {"aten.add.Tensor": 1, "aten.add_.Tensor": 1, "aten.copy_.default": 1}


def test_backward_passes_count() -> None:
    x = torch.ones(3, device=META, requires_grad=True)
    with OperationCounter("meta") as counter:
        x.sin().backward(torch.ones(3, device=META))
    assert counter.kernels["aten.cos.default"] == counter.kernels["aten.mul.Tensor"] == 1


def test_a_launch_counts_once_however_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    jit = pytest.importorskip("triton.runtime.jit")
    monkeypatch.setattr(jit.JITFunction, "run", lambda *_, **__: None)

    @jit.jit
    def some_kernel(x):  # type: ignore[no-untyped-def]
        pass

    with OperationCounter("meta") as counter:
        launch(some_kernel, (1,), torch.empty(2, device=META))
        launch(some_kernel, (1,), torch.empty(2, device=META))
    assert counter.kernels == {"some_kernel": 2}
    assert counter.num_computing == 2
    with OperationCounter() as counter:
        some_kernel[(1,)](None)
    assert counter.kernels == {"some_kernel": 1}
    x = torch.empty(2)
    with OperationCounter() as counter:
        launch(some_kernel, (1,), x)  # which reaches Triton, as on CUDA
    assert counter.kernels == {"some_kernel": 1}


def test_operations_of_the_host_count_where_no_device_is_named() -> None:
    with OperationCounter() as counter:
        torch.ones(2) + 1
    assert counter.kernels == {"aten.ones.default": 1, "aten.add.Tensor": 1}
