"""How long the seats of a pack take to be filled, by their number: linear in it, since buffers grow once."""

from __future__ import annotations

import time

import torch

from benchmarks.harness.report import Report, arguments
from benchmarks.harness.timing import this_device
from benchmarks.training_steps.random_llama import SHAPES, Shape, random_base
from lora_runner.config import TrialConfig
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import Seat

RANK = 16
DEEP = Shape("32 layers of 64", 64, 192, 32, 4, 2, 512, False)
"""Deep and narrow: the number of matrices decides, not their size."""


def fill(pack: Pack, num_seats: int) -> float:
    """Return the seconds that all seats take together."""
    seats: list[Seat] = []
    started = time.perf_counter()
    for index in range(num_seats):
        config = TrialConfig(learning_rate=2e-4, max_steps=10, lora_r=RANK, seed=index)
        seats.append(pack.new_seat(config, seats_to_come=num_seats - index - 1))
    if pack.base.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(shape: Shape, counts: list[int], report: Report) -> None:
    """Add a table with a row for each number of seats; each fills an empty pack."""
    device, dtype = this_device()
    pack = Pack(random_base(shape, device, dtype), PackOptions(train_embeddings=False))
    fill(pack, 1)
    rows = []
    for count in counts:
        pack.release_memory()
        rows.append([count, fill(pack, count)])
        report.figure(f"seconds_{count}_seats", rows[-1][1])
    report.table(f"{shape.name}, r={RANK}, all linear layers", ["seats", "seconds"], rows)


def main() -> None:
    """Measure a deep and narrow model; on CUDA one of 8B parameters too."""
    options = arguments(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    report = Report("filling", "Seats of one pack, embeddings frozen, one CPU thread.")
    measure(DEEP, [2, 4] if options.quick else [8, 16, 32], report)
    if torch.cuda.is_available() and not options.quick:
        measure(SHAPES["llama-3.1-8b"], [8, 16, 32], report)
    report.finish(save=options.save)


if __name__ == "__main__":
    main()
