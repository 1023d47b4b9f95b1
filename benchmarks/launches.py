"""Kernels of a decoder layer in a pack's step by either path, counted on tensors without memory."""

from __future__ import annotations

from argparse import Namespace

import torch

from benchmarks.harness.report import Report, arguments
from benchmarks.training_steps.case import Case
from benchmarks.training_steps.meta_pack import FUSED, GENERAL, layer_kernels
from benchmarks.training_steps.random_llama import SHAPES
from lora_runner.memory.meta_device import META

PATHS = {"general": GENERAL, "fused": FUSED}


def report_layer(report: Report, case: Case, num_seats: int) -> None:
    """Add the table of one decoder layer, forward and backward, and the figures."""
    of_layer, of_step = {}, {}
    for path, machine in PATHS.items():
        of_layer[path], of_step[path] = layer_kernels(case, num_seats, machine)
    names = sorted(
        {name for kernels in of_layer.values() for name in kernels},
        key=lambda name: ([-kernels[name] for kernels in of_layer.values()], name),
    )
    rows = [[name, *(kernels[name] for kernels in of_layer.values())] for name in names]
    rows.append(["in all", *(kernels.total() for kernels in of_layer.values())])
    title = f"A decoder layer: {case.title}, {num_seats} seats"
    report.table(title, ["operation or kernel", *(f"{path} path" for path in PATHS)], rows)
    for path in PATHS:
        report.figure(f"kernels_per_layer_{path}", float(of_layer[path].total()))
        report.figure(f"kernels_per_step_{path}", float(of_step[path]))


def parse_options() -> Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--shape", choices=list(SHAPES), default="llama-3.1-8b", help="model")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a trial's micro-batch, at most")
    parser.add_argument("--seats", type=int, default=8, help="trials of the pack")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--resident", action="store_true", help="the pack keeps the dequantized base")
    return parser.parse_args()


def main() -> None:
    """Count one layer as the difference of models of three and of two layers."""
    given = parse_options()
    case = Case(
        shape=SHAPES[given.shape],
        num_tokens=64 if given.quick else given.tokens,
        device=META,
        dtype=torch.bfloat16,
        dropout=given.dropout,
        resident=given.resident,
    )
    report = Report(
        "launches",
        "Forward and backward pass of a pack on the meta device in bfloat16, as on CUDA, random NF4 weights, "
        "LoRA of rank 16 on all linear layers: operations that compute, and launches of Triton kernels.",
    )
    report_layer(report, case, given.seats)
    report.note("Views, allocations and copies to the device are no kernels; the update is not included.")
    report.finish(save=given.save)


if __name__ == "__main__":
    main()
