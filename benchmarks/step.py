"""A training step of a pack beside the same trials through transformers, peft and bitsandbytes in turn."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from benchmarks.case import BATCH_SIZE, Case, PackTrials
from benchmarks.counting import OperationCounter
from benchmarks.launches import count_launches
from benchmarks.measuring import forget, seconds, this_device, what_fits
from benchmarks.memory import live_bytes, peak_live_bytes
from benchmarks.peers.peft_trial import PeftTrial
from benchmarks.random_base import SHAPES, random_model
from benchmarks.report import Report, arguments
from lora_runner.base.load_model import BaseSpec
from lora_runner.layers import linear as packed_modules
from lora_runner.layout.pack_layout import Block, plan_layouts
from lora_runner.memory.estimate import Workload, estimate
from lora_runner.pack.pack import Pack

COUNTED_TOKENS = 32
"""Of a sequence whose operations are counted."""
MIB = 2**20


@dataclass
class Measured:
    """Of one pack, or of one trial through peft."""

    peak: int = 0
    """Bytes of its own live tensors at the worst moment of a step, its base included."""
    seconds: float = 0.0
    """Of a step of all its trials."""
    in_turn: float = 0.0
    """Seconds of a step of as many trials through peft, one after another."""
    operations: tuple[int, int, int] = (0, 0, 0)
    """Of a step, as `count` counts them."""
    launches: int = 0
    """Kernels of a step; on CUDA."""


# --- what is measured ---------------------------------------------------------------------------------------


def peft_alone(case: Case, peft: PeftTrial, repetitions: int) -> Measured:
    """One trial, and nothing else on the device."""
    batches = [peft.batch(case.sequences(i)) for i in range(repetitions)]
    longest = peft.batch(case.sequences(0, equal=True))
    peft.steps([longest])
    peft.steps(batches[:1])
    with peak_live_bytes(case.device) as memory:
        peft.steps(batches[:1])
    times = [seconds(partial(peft.steps, [batch]), case.device) for batch in batches]
    return Measured(memory.peak, mean(times))


def filled(case: Case, pack: Pack, num_seats: int, foreign: int) -> tuple[PackTrials, int]:
    """Trials on the seats of `pack`, and the peak of seating them and of a step, in bytes.

    Without the `foreign` ones that live beside the pack.
    """
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
            )
            found[num_seats] = estimate(spec, work, resident_weights=case.resident).total(num_seats)
    return found


def count(trials: PackTrials, peft: PeftTrial) -> dict[str, tuple[int, int, int]]:
    """(all, computing, with the update) operations of a whole step, on sequences of one length.

    A short one: the number does not depend on it, and a pack that just fits the device with sequences that
    are cut may not with whole ones.
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
        passes()  # the first one also makes what is kept
        update()
        with OperationCounter() as counter:
            passes()
        of_passes = (counter.num_operations, counter.num_computing)
        with counter:
            update()
        found[name] = (*of_passes, counter.num_operations)
    return found


def step_times(trials: PackTrials, peft: PeftTrial, repetitions: int) -> tuple[float, float]:
    """Median seconds of a pack's step, and seconds of the same trials' steps through peft in turn.

    The two take turns, so that a machine that slows down slows both: after every step of the pack come some
    of the trials, so that each has come at least once in the end.
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
    """Percent of a step's time that one inexact product over all blocks would save on the frozen weights."""
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
    """Share of the computed rows that hold no token, in the pack and in peft's batches."""
    sequences = [case.sequences(i) for i in range(num_seats)]
    blocks = [Block.of([(row, row) for row in rows], case.device) for rows in sequences]
    layouts = [layout for _, layout in plan_layouts(blocks, pack.layout)]
    real = sum(len(row) for rows in sequences for row in rows)
    padded = sum(len(rows) * max(map(len, rows)) for rows in sequences)
    share = sum(layout.num_padded for layout in layouts) / sum(layout.num_rows for layout in layouts)
    return share, 1 - real / padded


# --- what is said about it ----------------------------------------------------------------------------------


class Bench:
    """One model, on both sides at once: all cases with these weights."""

    def __init__(self, report: Report, case: Case, repetitions: int) -> None:
        self.report, self.repetitions = report, repetitions
        self.device = case.device
        model = random_model(case.shape, case.device, case.dtype)
        self.peft = PeftTrial(case, model)
        self.case = case
        self.pack: Pack | None = None
        self.foreign = 0
        """Bytes of peft's side while it rests."""

    def peft_side(self, cases: Sequence[Case]) -> dict[tuple[Case, bool], Measured]:
        """Every case through peft, without gradient checkpointing and with it."""
        found = {}
        for case, checkpointing in product(cases, (False, True)):
            forget(self.device)
            self.peft.checkpoint(checkpointing)
            words = ", peft with gradient checkpointing" if checkpointing else ", peft"
            with what_fits(self.report, case.title + words):
                found[case, checkpointing] = peft_alone(case, self.peft, self.repetitions)
        self.peft.optimizer.zero_grad()
        self.peft.checkpoint(self.case.checkpointing)
        forget(self.device)
        self.foreign = live_bytes(self.device)
        return found

    def pack_side(self, case: Case, seats: Sequence[int]) -> dict[int, Measured]:
        """Packs of every size that fits beside peft's own base."""
        if self.pack is None:
            self.pack = self.case.new_pack()
            filled(case, self.pack, 1, 0)  # what is made with the first step belongs to no size
        found = {}
        for num_seats in seats:
            self.pack.release_memory()
            forget(self.device)
            with what_fits(self.report, f"{case.title}: a pack of {num_seats}"):
                found[num_seats] = self._pack_of(case, self.pack, num_seats)
            if num_seats not in found:
                break
        return found

    def _pack_of(self, case: Case, pack: Pack, num_seats: int) -> Measured:
        trials, peak = filled(case, pack, num_seats, self.foreign)
        measured = Measured(peak, operations=count(trials, self.peft)["pack"])
        measured.seconds, measured.in_turn = step_times(trials, self.peft, self.repetitions)
        if self.device.type == "cuda":
            batches = trials.batches()
            measured.launches = count_launches(lambda: pack.train_step(batches), self.device)
        return measured

    def tell(self, case: Case, peft: dict[bool, Measured], packs: dict[int, Measured], suffix: str) -> None:
        """One table and its figures."""
        assert self.pack is not None
        on_cuda = self.device.type == "cuda"
        solo_operations = count(PackTrials(case, 1, self.pack), self.peft)["peft"]
        solo_launches = 0
        if on_cuda:
            batch = self.peft.batch(case.sequences(0))
            solo_launches = count_launches(lambda: self.peft.steps([batch]), self.device)
        solo = peft.get(False)
        predicted = predicted_peaks(case, list(packs))
        rows: list[list[Any]] = []
        for checkpointing, of_peft in peft.items():
            tokens = case.num_real(self.repetitions) / self.repetitions
            name = "peft, checkpointing" if checkpointing else "peft"
            rows.append([name, 1, 1e3 * of_peft.seconds, tokens / of_peft.seconds, tokens / of_peft.seconds])
            rows[-1] += ["", *(["", "", ""] if checkpointing else solo_operations)]
            rows[-1] += ["" if checkpointing else solo_launches] if on_cuda else []
            rows[-1] += [of_peft.peak / MIB, of_peft.peak / solo.peak if solo else "", "", ""]
        for n, of_pack in packs.items():
            tokens, ratio = case.num_real(n), of_pack.in_turn / of_pack.seconds
            each = [round(total / n, 1) for total in of_pack.operations]
            rows.append(["pack", n, 1e3 * of_pack.seconds, tokens / of_pack.seconds])
            rows[-1] += [tokens / of_pack.seconds / n, ratio, *each]
            rows[-1] += [round(of_pack.launches / n, 1)] if on_cuda else []
            error = 100 * (predicted[n] / of_pack.peak - 1)
            rows[-1] += [
                of_pack.peak / MIB,
                of_pack.peak / solo.peak if solo else "",
                predicted[n] / MIB,
                error,
            ]
            self.report.figure(f"pack_step_ratio_k{n}{suffix}", ratio)
        columns = ["", "trials", "step ms", "tokens/s in all", "tokens/s a trial", "times peft in turn"]
        columns += ["operations", "of them computing", "with update"]
        columns += ["kernels a trial"] if on_cuda else []
        columns += ["peak MiB", "times peft's peak", "predicted MiB", "off by %"]
        self.report.table(case.title, columns, rows)
        if packs:
            self._figures(case, self.pack, solo, packs, predicted, suffix)
            self.report.figure(f"operations_per_trial_step_peft{suffix}", float(solo_operations[1]))

    def _figures(
        self,
        case: Case,
        pack: Pack,
        solo: Measured | None,
        packs: dict[int, Measured],
        predicted: dict[int, int],
        suffix: str,
    ) -> None:
        report, most = self.report, 8 if 8 in packs else max(packs)
        errors = [abs(predicted[n] / of_pack.peak - 1) for n, of_pack in packs.items()]
        report.figure(f"memory_model_error_pct{suffix}", 100 * max(errors))
        report.figure(f"operations_per_trial_step_k{most}{suffix}", packs[most].operations[1] / most)
        if solo is not None:
            report.figure(f"peak_memory_ratio_k{most}{suffix}", packs[most].peak / solo.peak)
        ours_padded, theirs_padded = padded_shares(case, pack, most)
        report.figure(f"padded_token_share{suffix}", ours_padded)
        report.figure(f"padded_token_share_peft{suffix}", theirs_padded)
        with what_fits(report, f"{case.title}: one product over all blocks"):
            gain = one_product_gain(case, pack, most, self.repetitions)
            report.figure(f"one_product_gain_pct{suffix}", gain)


def options() -> Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), help="models; default by device")
    parser.add_argument(
        "--tokens", nargs="+", type=int, help=f"tokens of a trial's batch of {BATCH_SIZE}, at most"
    )
    parser.add_argument("--seats", nargs="+", type=int, help="trials of a pack")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument(
        "--embeddings",
        nargs="+",
        choices=["frozen", "trained"],
        help="whether each trial trains embeddings and output layer too (default: frozen, both on CUDA)",
    )
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing on both sides")
    parser.add_argument("--resident", action="store_true", help="the pack keeps the dequantised base")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--seconds", type=float, help="begin no further case once these are over")
    return parser.parse_args()


def main() -> None:
    given, started = options(), time.monotonic()
    device, dtype = this_device()
    cuda = device.type == "cuda"
    full = cuda and not given.quick
    shapes = given.shape or (["llama-3.1-8b", "llama-3.2-1b"] if full else ["demo"])
    tokens = given.tokens or ([32 * BATCH_SIZE] if given.quick else [512, 2048, 128] if cuda else [512])
    seats = given.seats or ([1, 8] if given.quick else [1, 2, 4, 8, 16, 32] if cuda else [1, 2, 4, 8, 16])
    embeddings = given.embeddings or (["frozen", "trained"] if full else ["frozen"])
    repetitions = given.repetitions or (2 if given.quick else 5 if cuda else 7)
    kept = ", the pack's base dequantised once" if given.resident else ""
    report = Report(
        "step",
        f"One training step (forward, backward, clipping, fused AdamW) of random NF4 Llamas in "
        f"{'bf16' if cuda else 'fp32'}{kept}, LoRA of rank {given.rank} with fp32 masters on all linear "
        f"layers, dropout {given.dropout:g}, the same token ids on both sides. A pack of K against K peft "
        f"steps in turn, interleaved, medians of {repetitions}. Operations on sequences of equal length.",
    )
    single = len(shapes) * len(tokens) * len(embeddings) == 1
    for trained, name in product(embeddings, shapes):
        case = Case(
            shape=SHAPES[name],
            num_tokens=tokens[0],
            rank=given.rank,
            dropout=given.dropout,
            train_embeddings=trained == "trained",
            checkpointing=given.checkpointing,
            resident=given.resident,
            device=device,
            dtype=dtype,
        )
        if given.seconds is not None and time.monotonic() - started > given.seconds:
            report.note(f"{name}, embeddings {trained}, left out: {given.seconds:g} s were over.")
            continue
        with what_fits(report, f"{name}, embeddings {trained}: one trial of either side"):
            bench = Bench(report, case, repetitions)
            cases = [replace(case, num_tokens=number) for number in tokens]
            peft = bench.peft_side(cases)
            for one in cases:
                packs = bench.pack_side(one, seats)
                own = {checkpointing: measured for (c, checkpointing), measured in peft.items() if c == one}
                suffix = f"_{name}_{one.num_tokens}" + ("_embeddings" if one.train_embeddings else "")
                bench.tell(one, own, packs, "" if single else suffix)
                if given.save:
                    report.save()  # of a machine that is lent for minutes, no case is lost with a later one
        bench = None  # type: ignore[assignment]  # or its weights would stand beside the next one's
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
