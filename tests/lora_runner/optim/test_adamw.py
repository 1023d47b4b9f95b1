"""The update of a pack: one contract for torch's CPU kernels, Triton's interpreter, and CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lora_runner.optim import adamw as update
from lora_runner.optim import adamw_kernels as kernels
from lora_runner.optim.flat_buffers import BLOCK, FlatBuffers
from lora_runner.optim.group_step import GroupStep
from tests.lora_runner.devices import no_cuda

NAMES = ("parameters", "gradients", "exp_avg", "exp_avg_sq")
NUM_BLOCKS = 14
# Of (trial, group): first block, last block + 1, elements before the padding. Blocks 3, 8, 12, 13 are free.
SEGMENTS = {
    (0, 0): (0, 2, 2 * BLOCK),
    (0, 1): (9, 10, 700),
    (1, 0): (4, 7, 2 * BLOCK + 1),
    (1, 1): (2, 3, 5),
    (2, 0): (10, 12, BLOCK + 300),
    (2, 1): (7, 8, BLOCK),
}
RATES = {0: (1e-3, 2e-4), 1: (5e-2, 1e-2), 2: (1e-2, 0.0)}
FIXED: dict[int, dict[str, float]] = {
    0: {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.1, "max_grad_norm": 1.0},
    1: {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-2, "weight_decay": 0.0, "max_grad_norm": 0.0},
    2: {"beta1": 0.95, "beta2": 0.99, "epsilon": 1e-7, "weight_decay": 0.01, "max_grad_norm": 1e4},
}
"""Trial 0 is clipped, trial 1 never, trial 2 by a norm it does not reach."""


class Update(NamedTuple):
    squared_norms: Callable[[FlatBuffers, Sequence[GroupStep], int], Tensor]
    clip_and_step: Callable[[FlatBuffers, Sequence[GroupStep], Tensor], None]
    device: str = "cpu"

    def __call__(self, buffers: FlatBuffers, groups: Sequence[GroupStep], num_trials: int = 3) -> Tensor:
        squares = self.squared_norms(buffers, groups, num_trials)
        self.clip_and_step(buffers, groups, squares.sqrt())
        return squares


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Update]:
    """The kernels in Triton's interpreter, in a separate process, since it must be chosen before import."""
    os.environ["TRITON_INTERPRET"] = "1"
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    # Tensors are shared memory, so that the other process writes where this one reads.
    calls = (
        lambda *arguments, call=call: pool.submit(call, *arguments).result()
        for call in (kernels.squared_norms, kernels.clip_and_step)
    )
    try:
        yield Update(*calls)
    finally:
        del os.environ["TRITON_INTERPRET"]
        pool.shutdown()


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("interpreter", marks=pytest.mark.slow),
        pytest.param("cuda", marks=[pytest.mark.gpu, no_cuda]),
    ]
)
def updater(request: pytest.FixtureRequest) -> Update:
    if request.param == "interpreter":
        made: Update = request.getfixturevalue("interpreter")
        return made
    return Update(update.squared_norms, update.clip_and_step, request.param)


def group(trial: int, kind: int, step: int, *, shift: int = 0, number: int | None = None) -> GroupStep:
    """The groups of `trial`, moved by `shift` blocks, with index `number` in the launch."""
    first, stop, _ = SEGMENTS[trial, kind]
    return GroupStep(
        trial=trial if number is None else number,
        start=(first + shift) * BLOCK,
        stop=(stop + shift) * BLOCK,
        learning_rate=RATES[trial][kind],
        step=step,
        **FIXED[trial],
    )


def all_groups(step: int = 1) -> list[GroupStep]:
    return [group(trial, kind, step) for trial, kind in SEGMENTS]


def here(groups: Sequence[GroupStep]) -> Tensor:
    """Which elements belong to a group."""
    mask = torch.zeros(NUM_BLOCKS * BLOCK, dtype=torch.bool)
    for one in groups:
        mask[one.start : one.stop] = True
    return mask


def make_buffers(device: str) -> FlatBuffers:
    """Random everywhere, also in free blocks, except padding; moments as after some updates."""
    torch.manual_seed(0)
    parameters, gradients, exp_avg = torch.randn(3, NUM_BLOCKS * BLOCK) * 0.1
    exp_avg_sq = torch.rand(NUM_BLOCKS * BLOCK) * 0.01
    for first, stop, used in SEGMENTS.values():
        for flat in (parameters, gradients, exp_avg, exp_avg_sq):
            flat[first * BLOCK + used : stop * BLOCK] = 0.0
    return FlatBuffers(*(flat.to(device).clone() for flat in (parameters, gradients, exp_avg, exp_avg_sq)))


def bits(buffers: FlatBuffers, mask: Tensor) -> Tensor:
    """All but the gradients, which an update may scale."""
    kept = [getattr(buffers, name).cpu()[mask] for name in NAMES if name != "gradients"]
    return torch.stack(kept).view(torch.int32)


def reference(buffers: FlatBuffers, trial: int) -> tuple[torch.optim.AdamW, list[Tensor]]:
    """torch's own optimizer over the trial's two parameters, padding left out; its moments start at zero."""
    groups, parameters = [], []
    for kind in (0, 1):
        first, _, used = SEGMENTS[trial, kind]
        parameter = buffers.parameters[first * BLOCK : first * BLOCK + used].clone().requires_grad_()
        groups.append({"params": [parameter], "lr": RATES[trial][kind]})
        parameters.append(parameter)
    fixed = FIXED[trial]
    options: dict[str, Any] = {"betas": (fixed["beta1"], fixed["beta2"]), "eps": fixed["epsilon"]}
    return torch.optim.AdamW(groups, weight_decay=fixed["weight_decay"], **options), parameters


def test_a_pack_is_updated_as_each_trial_alone_by_torch(updater: Update) -> None:
    buffers = make_buffers(updater.device)
    buffers.exp_avg.zero_()
    buffers.exp_avg_sq.zero_()
    references = {trial: reference(buffers, trial) for trial in FIXED}
    steps = dict.fromkeys(FIXED, 0)
    for turn in range(6):
        ready = [trial for trial in FIXED if turn % (trial + 1) == 0]  # their accumulation windows differ
        buffers.gradients.copy_(torch.randn(NUM_BLOCKS * BLOCK, device=updater.device) * 0.02 * (turn + 1))
        for first, stop, used in SEGMENTS.values():
            buffers.gradients[first * BLOCK + used : stop * BLOCK] = 0.0
        for trial in ready:
            optimizer, parameters = references[trial]
            steps[trial] += 1
            for kind, parameter in enumerate(parameters):
                start = SEGMENTS[trial, kind][0] * BLOCK
                parameter.grad = buffers.gradients[start : start + parameter.numel()].clone()
            if FIXED[trial]["max_grad_norm"] > 0:
                torch.nn.utils.clip_grad_norm_(parameters, FIXED[trial]["max_grad_norm"])
            optimizer.step()
        updater(buffers, [group(trial, kind, steps[trial]) for kind in (0, 1) for trial in ready])
    assert steps == {0: 6, 1: 3, 2: 2}
    for (trial, kind), (first, stop, used) in SEGMENTS.items():
        optimizer, parameters = references[trial]
        state = optimizer.state[parameters[kind]]
        for name, expected in {
            "parameters": parameters[kind],
            "exp_avg": state["exp_avg"],
            "exp_avg_sq": state["exp_avg_sq"],
        }.items():
            found = getattr(buffers, name)[first * BLOCK : stop * BLOCK]
            assert (found[:used] - expected).abs().max() < 1e-6, (trial, kind, name)
            assert not found[used:].any(), "padding"


def test_elements_of_no_group_keep_every_bit(updater: Update) -> None:
    buffers = make_buffers(updater.device)
    groups = [one for one in all_groups() if one.trial != 1]
    before = bits(buffers, ~here(groups)).clone()
    inside = bits(buffers, here(groups)).clone()
    updater(buffers, groups)
    assert torch.equal(bits(buffers, ~here(groups)), before)
    assert not torch.equal(bits(buffers, here(groups)), inside)


def test_a_nan_stays_in_its_trial(updater: Update) -> None:
    clean, ill = make_buffers(updater.device), make_buffers(updater.device)
    ill.gradients[SEGMENTS[0, 1][0] * BLOCK + 3] = float("nan")
    updater(clean, all_groups(4))
    squares = updater(ill, all_groups(4))
    assert squares.isnan().tolist() == [True, False, False]
    own = here([group(0, 0, 4), group(0, 1, 4)])
    assert torch.equal(bits(clean, ~own), bits(ill, ~own))
    # As with clip_grad_norm_, whose factor is NaN then: the whole trial becomes NaN.
    assert ill.parameters.cpu()[own].isnan().all()


@pytest.mark.parametrize("trial", FIXED)
def test_a_trial_is_bit_equal_alone_and_in_company(updater: Update, trial: int) -> None:
    company, alone = make_buffers(updater.device), make_buffers(updater.device)
    own = here([group(trial, 0, 1), group(trial, 1, 1)])
    together = updater(company, all_groups(3))
    on_its_own = updater(alone, [group(trial, 0, 3), group(trial, 1, 3)])
    assert torch.equal(bits(company, own), bits(alone, own))
    assert torch.equal(together[trial], on_its_own[trial])
    assert [float(on_its_own[other]) for other in FIXED if other != trial] == [0.0, 0.0]


def test_a_trial_is_bit_equal_in_another_place_under_another_number(updater: Update) -> None:
    buffers, moved = make_buffers(updater.device), make_buffers(updater.device)
    for name in NAMES:
        getattr(moved, name).copy_(getattr(buffers, name).roll(BLOCK))
    one = updater(buffers, [group(2, 0, 2), group(2, 1, 2)])
    other = updater(moved, [group(2, 0, 2, shift=1, number=0), group(2, 1, 2, shift=1, number=0)])
    assert torch.equal(one[2], other[0])
    first = here([group(2, 0, 1), group(2, 1, 1)])
    assert torch.equal(bits(buffers, first), bits(moved, first.roll(BLOCK)))


def test_squares_of_a_long_segment(updater: Update) -> None:
    """More blocks than the second stage adds at once."""
    num_blocks = kernels.SUM_CHUNK + 70
    torch.manual_seed(1)
    flat = torch.randn(num_blocks * BLOCK, device=updater.device)
    segment = {**FIXED[0], "learning_rate": 1e-3, "step": 1, "start": BLOCK, "stop": flat.numel()}
    squares = updater.squared_norms(FlatBuffers(flat, flat, flat, flat), [GroupStep(trial=1, **segment)], 2)
    assert squares.tolist() == pytest.approx([0.0, float(flat[BLOCK:].double().square().sum())], rel=1e-6)


def test_one_norm_over_all_devices_clips(updater: Update) -> None:
    """A base spread over two devices: the squares of both are added before anything is scaled."""
    whole, parts = make_buffers(updater.device), make_buffers(updater.device)
    both = [group(0, 0, 1), group(0, 1, 1)]
    updater(whole, both, 1)
    norms = sum(updater.squared_norms(parts, [one], 1) for one in both).sqrt()
    for one in both:
        updater.clip_and_step(parts, [one], norms)
    for name in NAMES[:1] + NAMES[2:]:
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), rtol=1e-6, atol=1e-7)


def test_nothing_to_update(updater: Update) -> None:
    buffers = make_buffers(updater.device)
    before = bits(buffers, here([]).logical_not()).clone()
    if updater.squared_norms is update.squared_norms:
        update.clip_and_step(buffers, [], torch.zeros(2, device=updater.device))
    assert updater.squared_norms(buffers, [], 2).tolist() == [0.0, 0.0]
    assert torch.equal(bits(buffers, here([]).logical_not()), before)


class _NoReading(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def test_the_host_reads_no_tensor() -> None:
    buffers = make_buffers("cpu")
    with _NoReading():
        Update(update.squared_norms, update.clip_and_step)(buffers, all_groups())


@pytest.mark.gpu
@no_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # it warns that it does not see everything
def test_the_host_does_not_wait_for_the_device() -> None:
    buffers = make_buffers("cuda")
    both = Update(update.squared_norms, update.clip_and_step)
    both(buffers, all_groups())  # compiles, makes the tables
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        both(buffers, all_groups(2))
        both(buffers, all_groups(3)[:3])  # tables not made yet
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"start": 1}, "multiples of 1024, got 1 to 2048"),
        ({"stop": 0}, "multiples of 1024, got 0 to 0"),
        ({"step": 0}, "counted from 1, got step 0"),
    ],
)
def test_a_segment_that_breaks_a_rule(change: dict[str, int], rule: str) -> None:
    fields = {**FIXED[0], "trial": 0, "start": 0, "stop": 2 * BLOCK, "learning_rate": 0.1, "step": 1}
    with pytest.raises(ValueError, match=rule):
        GroupStep(**fields | change)


@pytest.mark.parametrize(
    ("groups", "rule"),
    [
        ([group(0, 0, 1), group(0, 0, 1)], "must not overlap, got 0 to 2048 and 0 to 2048"),
        ([group(0, 0, 1, shift=13)], "inside the buffers of 14336 elements, got 15360"),
        ([group(0, 0, 1, number=3)], "numbered 0 to 2, got 3"),
    ],
)
def test_groups_that_do_not_fit(groups: list[GroupStep], rule: str) -> None:
    buffers = make_buffers("cpu")
    with pytest.raises(ValueError, match=rule):
        update.squared_norms(buffers, groups, 3)
    with pytest.raises(ValueError, match=rule):
        update.clip_and_step(buffers, groups, torch.ones(3))


@pytest.mark.slow
def test_without_cuda_triton_is_not_imported() -> None:
    code = "import sys, lora_runner.optim.adamw; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
