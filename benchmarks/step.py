"""A training step of a pack beside the same trials through transformers, peft and bitsandbytes in turn."""

from __future__ import annotations

import gc
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from benchmarks.counting import OperationCounter
from benchmarks.memory import PeakMemory, peak_live_bytes
from benchmarks.random_base import PAD, SHAPES, Shape, random_base, random_model
from benchmarks.report import Report, arguments
from lora_runner import packed_modules
from lora_runner.config import TrialConfig
from lora_runner.layout import Block, lay_out
from lora_runner.memory import Workload, estimate
from lora_runner.models import BaseSpec
from lora_runner.pack import MicroBatch, Pack, PackOptions
from lora_runner.seats import Seat

BATCH_SIZE = 4
COUNTED_TOKENS = 32
"""Of a sequence whose operations are counted."""
MAX_GRAD_NORM = 1.0
LORA_ALPHA = 16
MEDIAN_SHARE = 0.45
"""Median length of a sequence over the longest allowed; texts cut at a length are spread about like this."""
Sequences = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one table holds fixed."""

    shape: Shape
    num_tokens: int
    """Of a trial's micro-batch if all its sequences had the longest length."""
    rank: int
    dropout: float
    checkpointing: bool
    device: torch.device
    dtype: torch.dtype

    @property
    def longest(self) -> int:
        return self.num_tokens // BATCH_SIZE

    def sequences(self, trial: int, *, equal: bool = False) -> Sequences:
        """A trial's micro-batch: lengths spread as in text, lognormal and cut, or all of them the longest."""
        generator = torch.Generator().manual_seed(trial)
        spread = torch.randn(BATCH_SIZE, generator=generator).mul(0.7).exp() * MEDIAN_SHARE * self.longest
        lengths = [self.longest if equal else min(self.longest, max(2, int(n))) for n in spread]
        top = self.shape.vocabulary
        return [torch.randint(1, top, (n,), generator=generator).tolist() for n in lengths]


class PeftTrial:
    """A trial as transformers, peft and bitsandbytes train it; all trials of a size cost the same."""

    def __init__(self, case: Case) -> None:
        self.case = case
        model = random_model(case.shape, case.device, case.dtype)
        if case.checkpointing:
            # The old name warns in new versions of transformers, the new one is absent in old ones.
            enable: Any = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
            model.enable_input_require_grads()
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=case.rank,
            lora_alpha=LORA_ALPHA,
            lora_dropout=case.dropout,
            target_modules="all-linear",
        )
        self.model = get_peft_model(model, config)
        self.model.train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=2e-4, fused=True)

    def batch(self, sequences: Sequences) -> dict[str, Tensor]:
        """Padded to the longest, as a collator does."""
        width = max(map(len, sequences))
        ids = torch.tensor([row + [PAD] * (width - len(row)) for row in sequences])
        real = torch.tensor([[int(i < len(row)) for i in range(width)] for row in sequences])
        batch = {"input_ids": ids, "labels": ids.masked_fill(real == 0, -100), "attention_mask": real}
        return {name: tensor.to(self.case.device) for name, tensor in batch.items()}

    def pass_(self, batch: dict[str, Tensor]) -> None:
        narrow = self.case.dtype != torch.float32
        # As Trainer does with bf16=True: LoRA's products in bf16 on fp32 masters, as in the pack.
        with torch.autocast(self.case.device.type, self.case.dtype, enabled=narrow):
            loss = self.model(**batch).loss
        loss.backward()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.trained, MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def steps(self, batches: Sequence[dict[str, Tensor]]) -> None:
        """One step of as many trials, one after another."""
        for batch in batches:
            self.pass_(batch)
            self.update()


class PackTrials:
    """The same trials on the seats of one pack."""

    def __init__(self, case: Case, num_seats: int, pack: Pack | None = None) -> None:
        self.case = case
        options = PackOptions(gradient_checkpointing=case.checkpointing)
        self.pack = pack or Pack(random_base(case.shape, case.device, case.dtype), options)
        self.seats: list[Seat] = [self.pack.new_seat(self.trial(i)) for i in range(num_seats)]

    def trial(self, index: int) -> TrialConfig:
        return TrialConfig(
            learning_rate=2e-4,
            lr_scheduler_type="constant",
            max_steps=10**6,
            per_device_train_batch_size=BATCH_SIZE,
            weight_decay=0.01,
            max_grad_norm=MAX_GRAD_NORM,
            lora_r=self.case.rank,
            lora_alpha=LORA_ALPHA,
            lora_dropout=self.case.dropout,
            seed=index,
        )

    def batches(self, batches: Sequence[Sequences]) -> dict[Seat, MicroBatch]:
        blocks = [Block.of([(row, row) for row in rows], self.case.device) for rows in batches]
        return {
            seat: MicroBatch(block, block.num_tokens, block.num_targets)
            for seat, block in zip(self.seats, blocks, strict=True)
        }


# --- measuring ----------------------------------------------------------------------------------------------


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peft_memory(case: Case) -> PeakMemory:
    """Peak of one trial's step; the base is alive, nothing else is."""
    trial = PeftTrial(case)
    batch = trial.batch(case.sequences(0))
    trial.steps([batch])
    with peak_live_bytes(case.device) as measured:
        trial.steps([batch])
    return measured


def pack_memory(case: Case, num_seats: int) -> PeakMemory:
    trials = PackTrials(case, num_seats)
    batches = trials.batches([case.sequences(i) for i in range(num_seats)])
    trials.pack.train_step(batches)
    with peak_live_bytes(case.device) as measured:
        trials.pack.train_step(batches)
    return measured


def predicted_peaks(case: Case, seats: Sequence[int]) -> dict[int, int]:
    """The memory model's answer for the packs of `pack_memory`, from the model's configuration alone."""
    found = {}
    with TemporaryDirectory() as folder:
        case.shape.config().save_pretrained(folder)
        dtype: Any = str(case.dtype).removeprefix("torch.")
        spec = BaseSpec(model=folder, compute_dtype=dtype)
        for num_seats in seats:
            lengths = [len(row) for i in range(num_seats) for row in case.sequences(i)]
            work = Workload(
                lora_r=case.rank,
                lora_dropout=case.dropout,
                batch_size=BATCH_SIZE,
                length=round(mean(lengths)),
                gradient_checkpointing=case.checkpointing,
            )
            found[num_seats] = estimate(spec, work).total(num_seats)
    return found


def count(case: Case, pack: Pack, peft: PeftTrial, num_seats: int) -> dict[str, tuple[int, int, int]]:
    """(all, computing, with the update) operations of a whole step, on sequences of one length.

    A short one: the number does not depend on it, and a pack that just fits the device with sequences that
    are cut may not with whole ones.
    """
    sequences = [[row[:COUNTED_TOKENS] for row in case.sequences(i, equal=True)] for i in range(num_seats)]
    trials = PackTrials(case, num_seats, pack)
    batches = trials.batches(sequences)
    batch = peft.batch(sequences[0])
    runs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "pack": (lambda: pack.micro_step(batches), lambda: pack.update(trials.seats)),
        "peft": (lambda: peft.pass_(batch), peft.update),
    }
    found = {}
    for name, (passes, update) in runs.items():
        passes()  # the first one also makes what is kept
        update()
        with OperationCounter() as counter:
            passes()
        of_passes = (counter.num_operations, counter.num_computing)
        with counter:
            update()
        found[name] = (*of_passes, counter.num_operations)
    return found


def step_times(
    case: Case, pack: Pack, peft: PeftTrial, num_seats: int, repetitions: int
) -> tuple[float, float]:
    """Median seconds of a pack's step, and of as many peft steps in turn.

    The two take turns, so that a machine that slows down slows both. One size after another: the seats of
    several would need room beside each other that none of them needs alone.
    """
    sequences = [case.sequences(i) for i in range(num_seats)]
    batches = PackTrials(case, num_seats, pack).batches(sequences)
    alone = [peft.batch(rows) for rows in sequences]
    contenders = (partial(pack.train_step, batches), partial(peft.steps, alone))
    times: tuple[list[float], list[float]] = ([], [])
    for repetition in range(repetitions + 1):
        for kept, run in zip(times, contenders, strict=True):
            taken = seconds(run, case.device)
            if repetition:  # the first one warms up
                kept.append(taken)
    return median(times[0]), median(times[1])


def one_product_gain(case: Case, pack: Pack, num_seats: int, repetitions: int) -> float:
    """Percent of a step's time that one inexact product over all blocks would save on the frozen weights."""
    batches = PackTrials(case, num_seats, pack).batches([case.sequences(i) for i in range(num_seats)])
    step = partial(pack.train_step, batches)

    def inexact() -> None:
        with patch.object(packed_modules, "with_shared", lambda x, weight, _: x @ weight):
            step()

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(2 * repetitions):
        for kept, run in zip(times, (step, inexact), strict=True):
            kept.append(seconds(run, case.device))
    exact, fast = map(median, times)
    return 100 * (1 - fast / exact)


def padded_shares(case: Case, pack: Pack, num_seats: int) -> tuple[float, float]:
    """Share of the computed rows that hold no token, in the pack and in peft's batches."""
    sequences = [case.sequences(i) for i in range(num_seats)]
    blocks = [Block.of([(row, row) for row in rows], case.device) for rows in sequences]
    layouts = [layout for _, layout in lay_out(blocks, pack.layout)]
    real = sum(len(row) for rows in sequences for row in rows)
    padded = sum(len(rows) * max(map(len, rows)) for rows in sequences)
    share = sum(layout.num_padded for layout in layouts) / sum(layout.num_rows for layout in layouts)
    return share, 1 - real / padded


def measure(report: Report, case: Case, seats: Sequence[int], repetitions: int, suffix: str) -> None:
    """One table and its figures; sizes that do not fit the device are left out with a note."""
    title = f"{case.shape.name}, {BATCH_SIZE} sequences of up to {case.longest} tokens a trial"
    solo_memory = peft_memory(case)
    memory: dict[int, PeakMemory] = {}
    for num_seats in seats:
        forget(case.device)
        try:
            memory[num_seats] = pack_memory(case, num_seats)
        except torch.OutOfMemoryError:
            report.note(f"{title}: a pack of {num_seats} did not fit.")
            break
    forget(case.device)
    peft = PeftTrial(case)
    pack = PackTrials(case, 0).pack
    counts: dict[int, dict[str, tuple[int, int, int]]] = {}
    times: dict[int, tuple[float, float]] = {}
    for num_seats in memory:
        pack.give_back()
        forget(case.device)
        try:
            counts[num_seats] = count(case, pack, peft, num_seats)
            times[num_seats] = step_times(case, pack, peft, num_seats, repetitions)
        except torch.OutOfMemoryError:
            report.note(f"{title}: a pack of {num_seats} did not fit beside peft's own base.")
            break
    seats = list(times)
    if not seats:
        return
    mib, solo = 2**20, counts[seats[0]]["peft"]
    alone = median(theirs / n for n, (_, theirs) in times.items())
    rows: list[list[Any]] = [["peft", 1, 1e3 * alone, "", *solo, solo_memory.peak / mib, 1.0, ""]]
    predicted = predicted_peaks(case, seats)
    for n in seats:
        ours, theirs = times[n]
        ratio, held = theirs / ours, memory[n].peak / solo_memory.peak
        each = [round(total / n, 1) for total in counts[n]["pack"]]
        rows.append(["pack", n, 1e3 * ours / n, ratio, *each, memory[n].peak / mib, held])
        report.figure(f"pack_step_ratio_k{n}{suffix}", ratio)
        rows[-1].append(predicted[n] / mib)
    columns = ["", "trials", "ms a trial", "times peft", "operations", "of them computing", "with update"]
    report.table(title, [*columns, "peak MiB", "times peft's peak", "predicted MiB"], rows)
    errors = [abs(predicted[n] / memory[n].peak - 1) for n in seats]
    report.figure(f"memory_model_error_pct{suffix}", 100 * max(errors))
    most = 8 if 8 in seats else seats[-1]
    report.figure(f"operations_per_trial_step_k{most}{suffix}", counts[most]["pack"][1] / most)
    report.figure(f"operations_per_trial_step_peft{suffix}", float(solo[1]))
    report.figure(f"one_product_gain_pct{suffix}", one_product_gain(case, pack, most, repetitions))
    report.figure(f"peak_memory_ratio_k{most}{suffix}", memory[most].peak / solo_memory.peak)
    ours_padded, theirs_padded = padded_shares(case, pack, most)
    report.figure(f"padded_token_share{suffix}", ours_padded)
    report.figure(f"padded_token_share_peft{suffix}", theirs_padded)


def options() -> Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), help="models; default by device")
    parser.add_argument(
        "--tokens", nargs="+", type=int, help=f"tokens of a trial's batch of {BATCH_SIZE}, at most"
    )
    parser.add_argument("--seats", nargs="+", type=int, help="trials of a pack")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing on both sides")
    parser.add_argument("--repetitions", type=int)
    return parser.parse_args()


def main() -> None:
    given = options()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    shapes = given.shape or (["llama-3.2-1b", "llama-3.1-8b"] if cuda and not given.quick else ["demo"])
    tokens = given.tokens or ([32 * BATCH_SIZE] if given.quick else [128, 512, 2048] if cuda else [512])
    seats = given.seats or ([1, 8] if given.quick else [1, 2, 4, 8, 16])
    repetitions = given.repetitions or (2 if given.quick else 10 if cuda else 7)
    report = Report(
        "step",
        f"One training step (forward, backward, clipping, fused AdamW) of random NF4 Llamas in "
        f"{'bf16' if cuda else 'fp32'}, LoRA of rank {given.rank} with fp32 masters on all linear layers, "
        f"dropout {given.dropout:g}, the same token ids on both sides. A pack of K against K peft steps in "
        f"turn, interleaved, medians of {repetitions}. Operations on sequences of equal length.",
    )
    for name in shapes:
        for num_tokens in tokens:
            case = Case(
                shape=SHAPES[name],
                num_tokens=num_tokens,
                rank=given.rank,
                dropout=given.dropout,
                checkpointing=given.checkpointing,
                device=device,
                dtype=torch.bfloat16 if cuda else torch.float32,
            )
            single = len(shapes) * len(tokens) == 1
            measure(report, case, seats, repetitions, "" if single else f"_{name}_{num_tokens}")
            forget(device)
    report.note("peft pads each batch to its longest sequence; its peak is that of one trial with its base.")
    report.note(
        "An operation is what torch dispatches, a computing one is no view; the figures count computing ones "
        "of forward and backward pass. With update: all, of clipping and AdamW too."
    )
    report.note(
        "one_product_gain_pct: what a mode with one product over all blocks, which is not exact, would save; "
        "below 10 there is one mode, the exact one."
    )
    report.finish(save=given.save)


if __name__ == "__main__":
    main()
