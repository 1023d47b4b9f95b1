"""Clipping and AdamW of a whole pack, beside one optimizer per trial from torch and bitsandbytes.

All update the same matrices, views into one flat buffer, so that only the moments exist once per optimizer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.harness.budget import Budget
from benchmarks.harness.report import Report, arguments
from benchmarks.harness.timing import calls_at_once, copy_bandwidth, forget, seconds, this_device
from benchmarks.training_steps.random_llama import SHAPES, Shape
from lora_runner.optim.adamw import clip_and_step, squared_norms
from lora_runner.optim.flat_buffers import BLOCK, FlatBuffers
from lora_runner.optim.group_step import GroupStep

RANK = 16
MAX_GRAD_NORM = 1.0
FIXED = {"lr": 2e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
BYTES_PER_PARAMETER = 32
"""What the pack must move on CUDA: the gradient for the norm, then 4 buffers read and 3 written."""
BYTES_HELD = 8 + 4 * 8 + 2
"""Per parameter with all optimizers: itself, gradient, moments four times in fp32 and once in 8 bits."""
SECONDS_ON_CUDA = 22.0
"""So that the command ends in half a minute, imports included."""
FIGURES_OF = 8
"""Trials of the figures, where that many are measured."""
OURS, FUSED, FOREACH = "pack", "torch fused", "torch foreach"
RATIOS = {
    FUSED: "fused_adamw",
    FOREACH: "foreach_adamw",
    "bnb 32-bit": "bitsandbytes_32bit",
    "bnb 8-bit": "bitsandbytes_8bit",
}


SMALL = Shape(
    name="hidden 256 x 4",
    hidden=256,
    intermediate=688,
    layers=4,
    heads=2,
    key_value_heads=1,
    vocabulary=4096,
    tied=False,
)
LLAMA_1B, LLAMA_8B = SHAPES["llama-3.2-1b"], SHAPES["llama-3.1-8b"]
SUFFIXES = {SMALL.name: "_small", LLAMA_1B.name: "", LLAMA_8B.name: "_8b"}
"""Suffixes of a model's figures; none for the one compared across machines."""


def matrices(shape: Shape) -> Iterator[tuple[int, int]]:
    """Yield the sizes of the LoRA matrices of every linear layer."""
    for _ in range(shape.layers):
        for _, into, out in shape.linear_layers():
            yield RANK, into
            yield out, RANK


class Adapters:
    """`num_trials` adapters in flat buffers, and every optimizer's update of them."""

    def __init__(self, shape: Shape, num_trials: int, device: torch.device) -> None:
        shapes = list(matrices(shape))
        used = sum(a * b for a, b in shapes)
        self.size = -(-used // BLOCK) * BLOCK
        total = num_trials * self.size
        parameters, gradients, *moments = (torch.zeros(total, device=device) for _ in range(4))
        parameters.normal_(std=0.02)
        self.gradients = gradients.normal_(std=1e-3)
        self.buffers = FlatBuffers(parameters, gradients, *moments)
        self.num_trials, self.step = num_trials, 0
        self.trials: list[list[nn.Parameter]] = []
        for trial in range(num_trials):
            start, mine = trial * self.size, []
            for a, b in shapes:
                here = slice(start, start + a * b)
                mine.append(nn.Parameter(parameters[here].view(a, b)))
                mine[-1].grad = gradients[here].view(a, b)
                start += a * b
            self.trials.append(mine)

    def update(self) -> None:
        self.step += 1
        groups = [
            GroupStep(
                trial=trial,
                start=trial * self.size,
                stop=(trial + 1) * self.size,
                learning_rate=2e-4,
                beta1=0.9,
                beta2=0.999,
                epsilon=1e-8,
                weight_decay=0.01,
                max_grad_norm=MAX_GRAD_NORM,
                step=self.step,
            )
            for trial in range(self.num_trials)
        ]
        norms = squared_norms(self.buffers, groups, self.num_trials).sqrt()
        clip_and_step(self.buffers, groups, norms)

    def one_by_one(
        self, optimizer: Callable[..., torch.optim.Optimizer], **options: Any
    ) -> Callable[[], None]:
        """One optimizer per trial, each after torch's clipping."""
        optimizers = [optimizer(parameters, **FIXED, **options) for parameters in self.trials]

        def update() -> None:
            for parameters, made in zip(self.trials, optimizers, strict=True):
                nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
                made.step()

        return update


def updates_by_name(pack: Adapters) -> dict[str, Callable[[], None]]:
    """Return the updates by name; bitsandbytes only if installed."""
    made = {OURS: pack.update}
    made[FUSED] = pack.one_by_one(torch.optim.AdamW, fused=True)
    made[FOREACH] = pack.one_by_one(torch.optim.AdamW, foreach=True)
    if find_spec("bitsandbytes") is not None:
        from bitsandbytes.optim import AdamW, AdamW8bit

        made["bnb 32-bit"] = pack.one_by_one(AdamW)
        made["bnb 8-bit"] = pack.one_by_one(AdamW8bit)
    return made


def medians(
    made: dict[str, Callable[[], None]], device: torch.device, repetitions: int, report: Report
) -> dict[str, float]:
    """Return the median seconds of each, interleaved; those that cannot run here are noted in the report."""
    updates: dict[str, int] = {}
    for name, update in made.items():
        try:
            update()
            updates[name] = calls_at_once(update, device)
        except (RuntimeError, NotImplementedError) as error:
            text = f"{name} does not run on {device.type}: {str(error).splitlines()[0]}"
            if text not in report.notes:
                report.note(text)
    times: dict[str, list[float]] = {name: [] for name in updates}
    for _ in range(repetitions):
        for name, calls in updates.items():
            times[name].append(seconds(made[name], device, calls))
    return {name: median(found) for name, found in times.items()}


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        forget(device)
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Updates:
    """The tables of all models, as they grow."""

    def __init__(self, report: Report, device: torch.device, budget: Budget) -> None:
        self.report, self.device, self.budget = report, device, budget
        self._rows: dict[str, dict[int, list[Any]]] = {}

    def measure(self, shape: Shape, num_trials: int, repetitions: int) -> None:
        """Add a row to the model's table, and the figures if it is of FIGURES_OF trials or the first."""
        names = [OURS, *RATIOS]
        total = num_trials * sum(a * b for a, b in matrices(shape))
        rows = self._rows.setdefault(shape.name, {})
        left_out = ""
        if not self.budget.allows():
            left_out = self.budget.left_out
        elif total * BYTES_HELD > 0.75 * free_bytes(self.device):
            left_out = f"left out, {free_bytes(self.device) / 2**30:.0f} GiB are free"
        row: list[Any] = [num_trials, total / 1e6, left_out or "-", *["-"] * (len(names) + len(RATIOS))]
        if not left_out:
            updates = updates_by_name(Adapters(shape, num_trials, self.device))
            found = medians(updates, self.device, repetitions, self.report)
            share = BYTES_PER_PARAMETER * total / found[OURS] / copy_bandwidth(self.device, total)
            times = [1e3 * found[name] if name in found else "-" for name in names]
            against = [found[name] / found[OURS] if name in found else "-" for name in RATIOS]
            row = [num_trials, total / 1e6, *times, *against, share]
            if num_trials == FIGURES_OF or not rows:
                self._figures(shape, found, share)
        rows[num_trials] = row
        columns = ["trials", "million parameters", *(f"{name}, ms" for name in names)]
        columns += [*(f"{name} / pack" for name in RATIOS), "share of copy bandwidth"]
        title = f"{shape.name}, r={RANK}, all linear layers"
        self.report.table(title, columns, [rows[number] for number in sorted(rows)])

    def _figures(self, shape: Shape, found: dict[str, float], share: float) -> None:
        for name, word in RATIOS.items():
            if name in found:
                ratio = found[name] / found[OURS]
                self.report.figure(f"update_time_ratio_{word}{SUFFIXES[shape.name]}", ratio)
        self.report.figure(f"update_copy_bandwidth_share{SUFFIXES[shape.name]}", share)


def plan(device: torch.device, *, quick: bool) -> Iterator[tuple[Shape, int, int]]:
    """Yield (model, trials, repetitions), the most telling first."""
    if quick:
        yield from ((SMALL, number, 3) for number in (1, 2))
    elif device.type == "cuda":
        yield from ((LLAMA_8B, number, 10) for number in (8, 1))
        yield from ((LLAMA_1B, number, 10) for number in (8, 1))
        yield from ((shape, number, 10) for number in (32, 16, 2, 4) for shape in (LLAMA_8B, LLAMA_1B))
    else:
        yield from ((SMALL, number, 15) for number in (1, 2, 4, 8, 16))
        yield from ((LLAMA_1B, number, 5) for number in (1, 2, 4, 8))


def main() -> None:
    """Measure the models that fit the device and the time."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"leave out what would not end within these; {SECONDS_ON_CUDA:g} on CUDA unless given",
    )
    options = parser.parse_args()
    device, _ = this_device()
    budget = Budget(options.seconds or (SECONDS_ON_CUDA if device.type == "cuda" else None))
    report = Report(
        "update",
        "The same LoRA matrices and gradients, fp32, clipping to 1.0 per trial and AdamW with decay on both "
        "sides; medians of interleaved repetitions. pack: this program's update of all trials at once. The "
        "others: one optimizer per trial after torch's clip_grad_norm_.",
    )
    if find_spec("bitsandbytes") is None:
        report.note("bitsandbytes is not installed.")
    report.note(
        f"Share of copy bandwidth: {BYTES_PER_PARAMETER} bytes per parameter over the pack's time, against "
        "torch's copy of a buffer as long as the parameters."
    )
    updates = Updates(report, device, budget)
    with report.finished(save=options.save):
        for shape, num_trials, repetitions in plan(device, quick=options.quick):
            updates.measure(shape, num_trials, repetitions)
            if options.save:
                report.save()


if __name__ == "__main__":
    main()
