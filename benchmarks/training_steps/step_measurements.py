"""What is measured of one training step: time, peak memory, operations, padding; of a pack and of peft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from benchmarks.harness.memory import peak_live_bytes
from benchmarks.harness.operation_counter import OperationCounter
from benchmarks.harness.timing import seconds
from benchmarks.peers.peft_trial import PeftTrial
from benchmarks.training_steps.case import BATCH_SIZE, Case, PackTrials
from lora_runner.base.load_model import BaseSpec
from lora_runner.layers import linear as packed_modules
from lora_runner.layout.pack_layout import Block, plan_layouts
from lora_runner.memory.estimate import Workload, estimate
from lora_runner.pack.pack import Pack

COUNTED_TOKENS = 32
"""Length of the sequences whose operations are counted."""


@dataclass
class StepMeasurement:
    """Of one pack, or of one trial with peft."""

    peak: int = 0
    """Peak bytes of its live tensors in a step, including its base."""
    seconds: float = 0.0
    """Of a step of all its trials."""
    in_turn: float = 0.0
    """Seconds of a step of as many trials with peft, one after another."""
    operations: tuple[int, int, int] = (0, 0, 0)
    """Of a step; see `count_operations`."""
    launches: int = 0
    """Kernels of a step; on CUDA."""


def peft_alone(case: Case, peft: PeftTrial, repetitions: int) -> StepMeasurement:
    """Measure one trial with nothing else on the device."""
    batches = [peft.batch(case.sequences(i)) for i in range(repetitions)]
    longest = peft.batch(case.sequences(0, equal=True))
    peft.steps([longest])
    peft.steps(batches[:1])
    with peak_live_bytes(case.device) as memory:
        peft.steps(batches[:1])
    times = [seconds(partial(peft.steps, [batch]), case.device) for batch in batches]
    return StepMeasurement(memory.peak, mean(times))


def fill_seats(case: Case, pack: Pack, num_seats: int, foreign: int) -> tuple[PackTrials, int]:
    """Seat trials and train a step; return them and the peak, without the `foreign` bytes of peft's side."""
    with peak_live_bytes(case.device) as measured:
        trials = PackTrials(case, num_seats, pack)
        pack.train_step(trials.batches())
    return trials, measured.peak - foreign


def predicted_peaks(case: Case, seats: Sequence[int]) -> dict[int, int]:
    """The memory model's answer for the packs that `filled` fills, from the model's configuration alone."""
    found = {}
    with TemporaryDirectory() as folder:
        case.shape.config().save_pretrained(folder)
        dtype: Any = str(case.dtype).removeprefix("torch.")
        spec = BaseSpec(model=folder, compute_dtype=dtype)
        for num_seats in seats:
            work = Workload(
                train_embeddings=case.train_embeddings,
                lora_r=case.rank,
                lora_dropout=case.dropout,
                batch_size=BATCH_SIZE,
                length=round(case.num_real(num_seats) / (num_seats * BATCH_SIZE)),
                gradient_checkpointing=case.checkpointing,
                resident_weights=case.resident,
            )
            found[num_seats] = estimate(spec, work).total(num_seats)
    return found


def count_operations(trials: PackTrials, peft: PeftTrial) -> dict[str, tuple[int, int, int]]:
    """Return (all, computing, with the update) operations of a step, on short sequences of one length.

    The number does not depend on the length, and longer ones might not fit.
    """
    case, pack, seats = trials.case, trials.pack, range(len(trials.seats))
    sequences = [[row[:COUNTED_TOKENS] for row in case.sequences(i, equal=True)] for i in seats]
    batches = trials.batches(sequences)
    batch = peft.batch(sequences[0])
    runs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "pack": (lambda: pack.micro_step(batches), lambda: pack.update(trials.seats)),
        "peft": (lambda: peft.pass_(batch), peft.update),
    }
    found = {}
    for name, (passes, update) in runs.items():
        passes()  # the first call also allocates
        update()
        with OperationCounter() as counter:
            passes()
        of_passes = (counter.num_operations, counter.num_computing)
        with counter:
            update()
        found[name] = (*of_passes, counter.num_operations)
    return found


def step_times(trials: PackTrials, peft: PeftTrial, repetitions: int) -> tuple[float, float]:
    """Return the median seconds of a pack's step, and the seconds of its trials with peft in turn.

    The two are interleaved, so that a slower machine slows both; each trial is measured at least once.
    """
    case, pack, num_seats = trials.case, trials.pack, len(trials.seats)
    batches = trials.batches()
    alone = [peft.batch(case.sequences(i)) for i in range(num_seats)]
    in_turn: list[list[float]] = [[] for _ in alone]
    own = []
    pack.train_step(batches)
    peft.steps(alone[:1])
    for repetition in range(repetitions):
        own.append(seconds(partial(pack.train_step, batches), case.device))
        for i in {*range(repetition, num_seats, repetitions), repetition % num_seats}:
            in_turn[i].append(seconds(partial(peft.steps, alone[i : i + 1]), case.device))
    return median(own), sum(map(median, in_turn))


def one_product_gain(case: Case, pack: Pack, num_seats: int, repetitions: int) -> float:
    """Return the percent of a step's time that one inexact product over all blocks would save."""
    trials = PackTrials(case, num_seats, pack)
    step = partial(pack.train_step, trials.batches())

    def inexact() -> None:
        with patch.object(packed_modules, "matmul_shared", lambda x, weight, _: x @ weight):
            step()

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(2 * repetitions):
        for kept, run in zip(times, (step, inexact), strict=True):
            kept.append(seconds(run, case.device))
    exact, fast = map(median, times)
    return 100 * (1 - fast / exact)


def padded_shares(case: Case, pack: Pack, num_seats: int) -> tuple[float, float]:
    """Return the share of computed rows that are padding, in the pack and in peft's batches."""
    sequences = [case.sequences(i) for i in range(num_seats)]
    blocks = [Block.of([(row, row) for row in rows], case.device) for rows in sequences]
    layouts = [layout for _, layout in plan_layouts(blocks, pack.layout)]
    real = sum(len(row) for rows in sequences for row in rows)
    padded = sum(len(rows) * max(map(len, rows)) for rows in sequences)
    share = sum(layout.num_padded for layout in layouts) / sum(layout.num_rows for layout in layouts)
    return share, 1 - real / padded
