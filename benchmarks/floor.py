"""Where the time of a pack's training step goes, and how far it is from what the hardware allows."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.case import Case, PackTrials
from benchmarks.launches import is_copy, is_kernel
from benchmarks.measuring import forget, seconds, this_device, what_fits
from benchmarks.random_base import SHAPES
from benchmarks.report import Report, arguments
from benchmarks.update import BYTES_PER_PARAMETER, copy_bandwidth
from lora_runner.layers import embeddings as packed_embeddings
from lora_runner.layers import linear as packed_modules
from lora_runner.layers.adapter_bank import AdapterBank
from lora_runner.layers.linear import PackedLinear
from lora_runner.memory.sizes import NF4_BYTES
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import RANK_MULTIPLE

LABEL = "part of a step: "
PRODUCTS, DEQUANTISATION, LORA = "frozen products", "dequantisation", "LoRA"
ATTENTION, LOSS, UPDATE = "attention", "output layer and loss", "update"
COPIES, OTHER, GAPS = "copies and fills", "norms, activations and the rest", "gaps"
PARTS = (PRODUCTS, DEQUANTISATION, LORA, ATTENTION, OTHER, LOSS, UPDATE, COPIES)
LABELLED: tuple[tuple[Any, str, str], ...] = (
    (packed_modules, "matmul_shared", PRODUCTS),
    (packed_modules, "matmul_by_block", LORA),
    (packed_modules, "outer_by_block", LORA),
    (AdapterBank, "__init__", LORA),
    (PackedLinear, "base_weight", DEQUANTISATION),
    (PackedLinear, "masks", LORA),
    (packed_embeddings, "matmul_shared", LOSS),
    (F, "cross_entropy", LOSS),
    (Pack, "head_logits", LOSS),
    (Pack, "update", UPDATE),
)
"""Functions, by the part of a step that they do."""
NAMED = (
    ("attention", ATTENTION),
    ("_tobuckets", ATTENTION),
    ("_frombuckets", ATTENTION),
    ("_packedheadfunction", LOSS),
    ("logsoftmax", LOSS),
    ("nllloss", LOSS),
    ("_packedlinearfunction", LORA),  # what is none of its products: scales, sums, gradients that are added
)
"""Parts of names of operations and of autograd's nodes, in small letters."""


# --- what the hardware allows -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ceilings:
    """Measured in the same run."""

    copies: float
    """Bytes per second, read and written, of a large copy."""
    products: float
    """Operations per second of a large product in the dtype of the step."""

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype) -> Ceilings:
        side, elements = (8192, 1 << 28) if device.type == "cuda" else (1024, 1 << 24)
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        a @ b
        times = [seconds(lambda: a @ b, device) for _ in range(9)]
        return cls(copy_bandwidth(device, elements), 2 * side**3 / median(times))


@dataclass(frozen=True)
class Floor:
    """What a step must do at least, whoever does it; operations are multiplications and additions."""

    frozen: float
    """Operations of the frozen layers' products: outputs, and gradients of inputs."""
    lora: float
    attention: float
    """Of real tokens, causal; the scores are computed again in the backward pass."""
    output: float
    """Of the output layer, at predicting positions alone."""
    weight_bytes: float
    """The quantised weights, read once in either direction."""
    update_bytes: float

    @classmethod
    def of(cls, case: Case, seats: int) -> Floor:
        shape = case.shape
        lengths = [len(row) for trial in range(seats) for row in case.sequences(trial)]
        tokens, predicting = sum(lengths), sum(lengths) - len(lengths)
        rank = -(-case.rank // RANK_MULTIPLE) * RANK_MULTIPLE
        frozen = lora = parameters = adapter = 0
        for _, into, out in shape.linear_layers():
            parameters += shape.layers * into * out
            adapter += shape.layers * rank * (into + out)
            frozen += shape.layers * 4 * tokens * into * out
            lora += shape.layers * 6 * tokens * rank * (into + out)
        if not case.train_embeddings:  # then nothing wants the gradient of the first layer's input
            for name, into, out in shape.linear_layers():
                if name in ("q", "k", "v"):
                    frozen -= 2 * tokens * into * out
                    lora -= 2 * tokens * rank * into
        matrix = shape.vocabulary * shape.hidden
        trained = matrix * (1 if shape.tied else 2) if case.train_embeddings else 0
        return cls(
            frozen=frozen,
            lora=lora,
            attention=7 * shape.layers * shape.hidden * sum(length**2 for length in lengths),
            output=(6 if case.train_embeddings else 4) * predicting * matrix,
            weight_bytes=2 * NF4_BYTES * parameters,
            update_bytes=BYTES_PER_PARAMETER * seats * (adapter + trained),
        )

    @property
    def operations(self) -> float:
        return self.frozen + self.lora + self.attention + self.output

    def seconds(self, ceilings: Ceilings) -> float:
        """No step is faster: products, beside which weights can be read, and then the update."""
        passes = max(self.operations / ceilings.products, self.weight_bytes / ceilings.copies)
        return passes + self.update_bytes / ceilings.copies


# --- where the time goes ------------------------------------------------------------------------------------


@dataclass
class Shares:
    """Seconds and kernels of a step, by part."""

    seconds: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0
    """Seconds of the step while it was watched."""

    @property
    def gaps(self) -> float:
        """Seconds in which the device did nothing."""
        return self.wall - sum(self.seconds.values())


@contextmanager
def labelled() -> Iterator[None]:
    """Inside, the functions of LABELLED tell the profiler which part of a step they do."""

    def telling(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def told(*given: Any, **named: Any) -> Any:
            with record_function(LABEL + part):
                return function(*given, **named)

        return told

    with ExitStack() as stack:
        for owner, name, part in LABELLED:
            stack.enter_context(patch.object(owner, name, telling(getattr(owner, name), part)))
        yield


def part_of(event: Any) -> str:
    """The part of a step that an operation belongs to: what the nearest of it and its callers says."""
    while event is not None:
        if event.name.startswith(LABEL):
            return str(event.name.removeprefix(LABEL))
        small = event.name.lower()
        for word, part in NAMED:
            if word in small:
                return part
        event = event.cpu_parent
    return OTHER


def watched(step: Callable[[], Any], device: torch.device) -> tuple[list[Any], float]:
    """Run `step` once under the profiler: its events, and the seconds it took."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with labelled(), profile(activities=activities, acc_events=True) as profiler:
        taken = seconds(step, device)
    return list(profiler.events() or ()), taken


def watch(step: Callable[[], Any], device: torch.device) -> Shares:
    """What one `step` spends on its parts: of its kernels on CUDA, of its operations on a CPU."""
    events, wall = watched(step, device)
    shares = Shares(wall=wall)
    if device.type != "cuda":
        for event in events:
            shares.seconds[part_of(event)] += event.self_cpu_time_total / 1e6
        return shares
    launches = [
        (kernel.name, part_of(event), kernel.duration)
        for event in events
        for kernel in event.kernels
        if kernel.name != event.name  # an annotation's own echo on the device
    ]
    known = Counter(name for name, _, _ in launches)
    for event in events:
        if is_kernel(event):
            known[event.name] -= 1
            if known[event.name] < 0:  # nobody's on the host
                launches.append((event.name, OTHER, event.time_range.elapsed_us()))
    for name, part, microseconds in launches:
        place = COPIES if is_copy(name) else part
        shares.seconds[place] += microseconds / 1e6
        shares.kernels[place] += not is_copy(name)
    return shares


# --- what is said about it ----------------------------------------------------------------------------------


def tell(report: Report, case: Case, num_seats: int, ceilings: Ceilings, repetitions: int) -> None:
    """The tables and figures of one pack."""
    pack = case.new_pack()
    trials = PackTrials(case, num_seats, pack)
    batches = trials.batches()

    def step() -> None:
        pack.train_step(batches)

    for _ in range(2):
        step()
    times = [seconds(step, case.device) for _ in range(repetitions)]
    plain = median(times)
    floor = Floor.of(case, num_seats)
    least = floor.seconds(ceilings)
    watch(step, case.device)  # the profiler's own first time
    shares = watch(step, case.device)
    suffix = "_resident" if case.resident else ""
    kept = ", dequantised once" if case.resident else ""
    title = f"{case.title}, {num_seats} seats{kept}"
    _tell_floor(report, title, floor, ceilings, plain)
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


def _tell_floor(report: Report, title: str, floor: Floor, ceilings: Ceilings, step: float) -> None:
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


def options() -> Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--shape", choices=list(SHAPES), help="model; default by device")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a trial's micro-batch, at most")
    parser.add_argument("--seats", type=int, default=8, help="trials of the pack")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--train-embeddings", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure the pack with its weights dequantised in every pass, and with the copy kept."""
    given = options()
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
            tell(report, case, given.seats, ceilings, repetitions)
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
