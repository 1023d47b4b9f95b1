"""A training step of a pack beside the same trials with transformers, peft and bitsandbytes in turn."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from benchmarks.harness.budget import Budget
from benchmarks.harness.kernel_launches import count_launches
from benchmarks.harness.memory import live_bytes
from benchmarks.harness.report import Report, arguments
from benchmarks.harness.timing import forget, this_device, what_fits
from benchmarks.peers.peft_trial import PeftTrial
from benchmarks.training_steps.case import BATCH_SIZE, Case, PackTrials, free_memory
from benchmarks.training_steps.random_llama import SHAPES, random_model
from benchmarks.training_steps.step_measurements import (
    StepMeasurement,
    count_operations,
    fill_seats,
    one_product_gain,
    padded_shares,
    peft_alone,
    predicted_peaks,
    step_times,
)
from lora_runner.pack.pack import Pack

MIB = 2**20


class Bench:
    """One model on both sides: all cases with these weights."""

    def __init__(self, report: Report, case: Case, repetitions: int, budget: Budget | None = None) -> None:
        self.report, self.repetitions = report, repetitions
        self.budget = budget or Budget(None)
        self.device = case.device
        model = random_model(case.shape, case.device, case.dtype)
        self.peft = PeftTrial(case, model)
        self.case = case
        self.pack: Pack | None = None
        self.foreign = 0
        """Bytes of peft's side while the pack is measured."""

    def peft_side(self, cases: Sequence[Case]) -> dict[tuple[Case, bool], StepMeasurement]:
        """Measure every case with peft, without gradient checkpointing and with it."""
        found = {}
        for case, checkpointing in product(cases, (False, True)):
            forget(self.device)
            self.peft.checkpoint(checkpointing)
            words = ", peft with gradient checkpointing" if checkpointing else ", peft"
            if not self.budget.allows():
                self.report.note(f"{case.title}{words}: {self.budget.left_out}.")
                continue
            with what_fits(self.report, case.title + words):
                found[case, checkpointing] = peft_alone(case, self.peft, self.repetitions)
        self.peft.optimizer.zero_grad()
        self.peft.checkpoint(self.case.checkpointing)
        forget(self.device)
        self.foreign = live_bytes(self.device)
        return found

    def pack_side(self, case: Case, seats: Sequence[int]) -> dict[int, StepMeasurement]:
        """Measure packs of every size that fits beside peft's base."""
        if self.pack is None:
            self.pack = self.case.new_pack()
            fill_seats(case, self.pack, 1, 0)  # allocations of the first step belong to no size
        found = {}
        for num_seats in seats:
            free_memory(self.pack)
            forget(self.device)
            if not self.budget.allows():
                self.report.note(f"{case.title}: a pack of {num_seats}, {self.budget.left_out}.")
                break
            with what_fits(self.report, f"{case.title}: a pack of {num_seats}"):
                found[num_seats] = self._pack_of(case, self.pack, num_seats)
            if num_seats not in found:
                break
        return found

    def _pack_of(self, case: Case, pack: Pack, num_seats: int) -> StepMeasurement:
        trials, peak = fill_seats(case, pack, num_seats, self.foreign)
        measured = StepMeasurement(peak, operations=count_operations(trials, self.peft)["pack"])
        measured.seconds, measured.in_turn = step_times(trials, self.peft, self.repetitions)
        if self.device.type == "cuda":
            batches = trials.batches()
            measured.launches = count_launches(lambda: pack.train_step(batches), self.device)
        return measured

    def tell(
        self, case: Case, peft: dict[bool, StepMeasurement], packs: dict[int, StepMeasurement], suffix: str
    ) -> None:
        """Add one table and its figures."""
        assert self.pack is not None
        on_cuda = self.device.type == "cuda"
        solo_operations = count_operations(PackTrials(case, 1, self.pack), self.peft)["peft"]
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
        solo: StepMeasurement | None,
        packs: dict[int, StepMeasurement],
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
        if pack.path.is_fused:  # which makes one product, an exact one
            return
        with what_fits(report, f"{case.title}: one product over all blocks"):
            gain = one_product_gain(case, pack, most, self.repetitions)
            report.figure(f"one_product_gain_pct{suffix}", gain)


def parse_options() -> Namespace:
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
    parser.add_argument("--resident", action="store_true", help="the pack keeps the dequantized base")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--seconds", type=float, help="leave out what would not end within these")
    return parser.parse_args()


def main() -> None:
    given = parse_options()
    budget = Budget(given.seconds)
    device, dtype = this_device()
    cuda = device.type == "cuda"
    full = cuda and not given.quick
    shapes = given.shape or (["llama-3.1-8b", "llama-3.2-1b"] if full else ["demo"])
    tokens = given.tokens or ([32 * BATCH_SIZE] if given.quick else [512, 2048, 128] if cuda else [512])
    seats = given.seats or ([1, 8] if given.quick else [1, 2, 4, 8, 16, 32] if cuda else [1, 2, 4, 8, 16])
    embeddings = given.embeddings or (["frozen", "trained"] if full else ["frozen"])
    repetitions = given.repetitions or (2 if given.quick else 5 if cuda else 7)
    kept = ", the pack's base dequantized once" if given.resident else ""
    report = Report(
        "step",
        f"One training step (forward, backward, clipping, fused AdamW) of random NF4 Llamas in "
        f"{'bf16' if cuda else 'fp32'}{kept}, LoRA of rank {given.rank} with fp32 masters on all linear "
        f"layers, dropout {given.dropout:g}, the same token ids on both sides. A pack of K against K peft "
        f"steps in turn, interleaved, medians of {repetitions}. Operations on sequences of equal length.",
    )
    report.note("peft pads each batch to its longest sequence; its peak is that of one trial with its base.")
    report.note(
        "An operation is what torch dispatches, a computing one is no view; the figures count computing ones "
        "of forward and backward pass. With update: all, of clipping and AdamW too."
    )
    report.note(
        "one_product_gain_pct: what one product over all blocks, not an exact one, would save on the "
        "general path."
    )
    single = len(shapes) * len(tokens) * len(embeddings) == 1
    with report.finished(save=given.save):
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
            if not budget.allows():
                report.note(f"{name}, embeddings {trained}: {budget.left_out}.")
                continue
            with what_fits(report, f"{name}, embeddings {trained}: one trial of either side"):
                bench = Bench(report, case, repetitions, budget)
                measure_model(bench, tokens, seats, named=not single, save=given.save)
            bench = None  # type: ignore[assignment]  # or its weights would still be in memory beside the next
            forget(device)


def measure_model(
    bench: Bench, tokens: Sequence[int], seats: Sequence[int], *, named: bool, save: bool
) -> None:
    """Measure both sides of one model at all lengths; `named` figures have the case in their names."""
    cases = [replace(bench.case, num_tokens=number) for number in tokens]
    peft = bench.peft_side(cases)
    for one in cases:
        packs = bench.pack_side(one, seats)
        own = {checkpointing: measured for (c, checkpointing), measured in peft.items() if c == one}
        if packs or own:
            suffix = f"_{one.shape.name}_{one.num_tokens}" + "_embeddings" * one.train_embeddings
            bench.tell(one, own, packs, suffix if named else "")
        if save:
            bench.report.save()  # so that a later failure loses no case


if __name__ == "__main__":
    main()
