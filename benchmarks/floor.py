"""Where the time of a pack's training step goes, and the least time that the hardware allows."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.harness.report import Report, arguments
from benchmarks.harness.timing import forget, seconds, this_device, what_fits
from benchmarks.training_steps.case import Case, PackTrials
from benchmarks.training_steps.kernel_parts import GAPS, PARTS
from benchmarks.training_steps.lower_bound import Ceilings, LowerBound
from benchmarks.training_steps.random_llama import SHAPES
from benchmarks.training_steps.step_profile import profile_step


def report_pack(report: Report, case: Case, num_seats: int, ceilings: Ceilings, repetitions: int) -> None:
    """Add the tables and figures of one pack."""
    pack = case.new_pack()
    trials = PackTrials(case, num_seats, pack)
    batches = trials.batches()

    def step() -> None:
        pack.train_step(batches)

    for _ in range(2):
        step()
    times = [seconds(step, case.device) for _ in range(repetitions)]
    plain = median(times)
    floor = LowerBound.of(case, num_seats)
    least = floor.seconds(ceilings)
    profile_step(step, case.device)  # the profiler's own first time
    shares = profile_step(step, case.device)
    suffix = "_resident" if case.resident else ""
    kept = ", dequantised once" if case.resident else ""
    title = f"{case.title}, {num_seats} seats{kept}"
    _report_floor(report, title, floor, ceilings, plain)
    rows: list[list[Any]] = [
        [part, 1e3 * shares.seconds[part], 100 * shares.seconds[part] / shares.wall, shares.kernels[part]]
        for part in PARTS
    ]
    rows.append([GAPS, 1e3 * shares.gaps, 100 * shares.gaps / shares.wall, ""])
    rows.append(["in all, watched", 1e3 * shares.wall, 100.0, shares.kernels.total()])
    report.table(f"Where the time goes: {title}", ["part", "ms", "% of the step", "kernels"], rows)
    report.figure(f"step_ms{suffix}", 1e3 * plain)
    report.figure(f"floor_ms{suffix}", 1e3 * least)
    report.figure(f"floor_share{suffix}", least / plain)
    report.figure(f"gaps_share{suffix}", shares.gaps / shares.wall)
    if case.device.type == "cuda":
        report.figure(f"kernels_per_trial{suffix}", shares.kernels.total() / num_seats)
    report.note(f"{title}: {plain * 1e3:.1f} ms unwatched, kernels of {pack.base.kernels}.")


def _report_floor(report: Report, title: str, floor: LowerBound, ceilings: Ceilings, step: float) -> None:
    products, copies = 1e3 / ceilings.products, 1e3 / ceilings.copies
    lines: Sequence[tuple[str, float, str, float]] = (
        ("frozen products", floor.frozen, "operations", products),
        ("LoRA", floor.lora, "operations", products),
        ("attention", floor.attention, "operations", products),
        ("output layer", floor.output, "operations", products),
        ("NF4 weights, twice (beside the products)", floor.weight_bytes, "bytes", copies),
        ("update", floor.update_bytes, "bytes", copies),
    )
    rows: list[list[Any]] = [
        [name, amount / 1e9, f"10^9 {unit}", amount * each] for name, amount, unit, each in lines
    ]
    rows.append(["the floor", "", "", 1e3 * floor.seconds(ceilings)])
    rows.append(["the step", "", "", 1e3 * step])
    report.table(f"The floor: {title}", ["", "at least", "", "ms"], rows)


def parse_options() -> Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--shape", choices=list(SHAPES), help="model; default by device")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a trial's micro-batch, at most")
    parser.add_argument("--seats", type=int, default=8, help="trials of the pack")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--train-embeddings", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure the pack with weights dequantized in every pass, and with a resident copy."""
    given = parse_options()
    device, dtype = this_device()
    name = given.shape or ("llama-3.1-8b" if device.type == "cuda" and not given.quick else "demo")
    tokens, repetitions = (64, 2) if given.quick else (given.tokens, 9)
    report = Report(
        "floor",
        f"One training step of a pack, {name} with random weights in NF4, computing in {dtype}, LoRA of "
        f"rank {given.rank} on all linear layers: its floor by operations and bytes at the rates of this "
        f"device, and where its time goes. Median of {repetitions} steps, shares of one more under torch's "
        "profiler.",
    )
    ceilings = Ceilings.measure(device, dtype)
    report.table(
        "Ceilings",
        ["", "rate"],
        [
            [f"large product in {dtype}, TFLOP/s", ceilings.products / 1e12],
            ["large copy, GB/s read and written", ceilings.copies / 1e9],
        ],
    )
    for resident in (False, True):
        case = Case(
            shape=SHAPES[name],
            num_tokens=tokens,
            device=device,
            dtype=dtype,
            rank=given.rank,
            train_embeddings=given.train_embeddings,
            resident=resident,
        )
        with what_fits(report, f"{case.title}, {given.seats} seats, resident {resident}"):
            report_pack(report, case, given.seats, ceilings, repetitions)
        if given.save:
            report.save()
        forget(device)
    report.note(
        "The floor: products of real tokens at the large product's rate, or the reading of the weights if "
        "that takes longer, then the update's 32 bytes a parameter at the copy's. Norms, activations, "
        "padding and the writing of dequantised weights are not in it: an ideal kernel would hide them."
    )
    report.note("On a CPU a part's time is that of its operations, and gaps are Python's own.")
    report.finish(save=given.save)


if __name__ == "__main__":
    main()
