"""Packs of trials drawn by hypothesis, trained while every number is recorded, and compared bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from files_and_text.choices import SCHEDULERS
from lora_runner.config import TrialConfig
from lora_runner.layout.pack_layout import Block
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat
from tests.lora_runner.devices import DEVICE

Labelled = tuple[list[int], list[int]]
VOCABULARY = 259
"""Odd, as after an added token, so that rows of logits are not aligned."""


@dataclass(frozen=True)
class Trial:
    """One trial of a drawn pack, and the events around its training."""

    config: TrialConfig
    lengths: tuple[tuple[int, ...], ...]
    """Tokens of each sequence of its micro-batches, used in rotation."""
    kept_labels: float
    """Share of the tokens with a loss; at 0 a window has no target."""
    rounds_off: frozenset[int]
    """Passes of the pack in which it takes no part."""
    leaves_after: int
    """Updates after which it is stopped from outside."""
    poisoned_before: int | None
    """Update before which one of its weights becomes NaN."""

    def window(self, step: int) -> list[MicroBatch]:
        """The micro-batches of one accumulation window; depends only on the trial."""
        generator = torch.Generator().manual_seed(1000 * self.config.seed + step)
        taken = [
            self.lengths[(step + index) % len(self.lengths)]
            for index in range(self.config.gradient_accumulation_steps)
        ]
        return window_of([[sequence(n, self.kept_labels, generator) for n in lengths] for lengths in taken])


def sequence(length: int, kept_labels: float, generator: torch.Generator) -> Labelled:
    """Random token ids, and labels that are the same ids or -100."""
    ids = torch.randint(2, VOCABULARY, (length,), generator=generator)
    lost = torch.rand(length, generator=generator) >= kept_labels
    return ids.tolist(), ids.masked_fill(lost, -100).tolist()


def window_of(batches: Sequence[Sequence[Labelled]]) -> list[MicroBatch]:
    blocks = [Block.of(batch, DEVICE) for batch in batches]
    targets = max(1, sum(block.num_targets for block in blocks))
    return [MicroBatch(block, block.num_tokens, targets) for block in blocks]


@st.composite
def trials(draw: st.DrawFn, seed: int) -> Trial:
    max_steps = draw(st.integers(2, 4))
    batch_size = draw(st.integers(1, 4))
    # Three in ten become NaN: NaN trials agree easily, so finite ones test more.
    illness = draw(st.sampled_from([None, None, None, None, None, None, None, "rate", "first", "second"]))
    config = TrialConfig(
        # 1e30 makes every weight infinite or NaN with the first update whose learning rate is not 0.
        learning_rate=1e30 if illness == "rate" else draw(st.sampled_from([5e-3, 1e-3, 2e-2])),
        embedding_learning_rate=draw(st.sampled_from([5e-4, 0.0, 5e-3])),
        lr_scheduler_type=draw(st.sampled_from(SCHEDULERS)),
        warmup_steps=draw(st.integers(0, 1)),
        max_steps=max_steps,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=draw(st.integers(1, 3)),
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
        max_grad_norm=draw(st.sampled_from([1.0, 0.0, 0.05])),
        adam_beta2=draw(st.sampled_from([0.999, 0.95])),
        lora_r=draw(st.sampled_from([8, 4, 6, 16, 32])),
        lora_alpha=draw(st.sampled_from([16, 8, 3])),
        lora_dropout=draw(st.sampled_from([0.0, 0.1, 0.3])),
        use_rslora=draw(st.booleans()),
        seed=seed,
    )
    length = st.one_of(st.integers(1, 20), st.sampled_from([8, 16, 47, 64]))
    row = st.lists(
        length if illness is None else st.integers(2, 20), min_size=batch_size, max_size=batch_size
    ).map(tuple)
    return Trial(
        config=config,
        lengths=tuple(draw(st.lists(row, min_size=1, max_size=3))),
        # Without a target, a NaN trial has a gradient of 0 alone, and of 0 times NaN among others.
        kept_labels=draw(st.sampled_from([0.7, 1.0, 0.1, 0.0] if illness is None else [1.0])),
        rounds_off=frozenset(
            draw(st.sampled_from([(), (), (0,), (0, 1, 2), (1,), (2, 3), (0, 1, 2, 3, 4, 5, 6)]))
        ),
        leaves_after=draw(st.sampled_from([max_steps, max_steps, 1, 2])),
        poisoned_before={"first": 0, "second": 1}.get(illness or ""),
    )


@st.composite
def packs(draw: st.DrawFn) -> list[Trial]:
    return [draw(trials(seed)) for seed in range(1, 1 + draw(st.integers(1, 5)))]


# --- training, with every number kept -----------------------------------------------------------------


class Watched(Pack):
    """A pack that keeps the gradients as they are between the backward pass and the update."""

    def micro_step(self, batches: Any) -> None:
        super().micro_step(batches)
        self.seen = {seat: gradients(seat) for seat in batches if seat.window_is_full}


def gradients(seat: Seat) -> dict[str, Tensor]:
    """A copy of the gradient in the seat's open window, by parameter."""
    return {name: grad.detach().clone() for name, grad in seat.gradients.items()}


def state(seat: Seat) -> dict[str, Tensor]:
    """A copy of the seat's weights and moments."""
    return {name: tensor.detach().clone() for name, tensor in seat.state_tensors()}


@dataclass
class Trace:
    """All numbers of a trial."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    evaluation: tuple[float, ...] = ()
    """The mean, then the sum of each record."""


def train(pack: Watched, drawn: Sequence[Trial]) -> list[Trace]:
    """Train `drawn` side by side to their ends; each is evaluated beside those that are still running."""
    seats: dict[int, Seat] = {}
    traces = [Trace() for _ in drawn]
    windows: dict[int, list[MicroBatch]] = {}
    now, waiting = 0, set(range(len(drawn)))
    while waiting or seats:
        for i in sorted(waiting):
            if now not in drawn[i].rounds_off:
                seats[i] = pack.new_seat(drawn[i].config)
                waiting.discard(i)
        shares = {}
        for i, seat in seats.items():
            if now in drawn[i].rounds_off:
                continue
            place = seat.micro_step % seat.config.gradient_accumulation_steps
            if place == 0:
                windows[i] = drawn[i].window(seat.step)
                if seat.step == drawn[i].poisoned_before:
                    poison(seat)
            shares[seat] = windows[i][place]
        stats = pack.train_step(shares) if shares else {}
        ended = []
        for i, seat in seats.items():
            if seat in stats:
                traces[i].steps.append(shown(pack.seen[seat], seat))
                if seat.finished or seat.step >= drawn[i].leaves_after:
                    ended.append(i)
        if ended:
            evaluated = pack.evaluate_records(list(seats.values()), EVALUATION)
            for i, found in zip(list(seats), evaluated, strict=True):
                if i in ended:
                    traces[i].evaluation = (found.mean, *found.sums)
                    del seats[i]
        now += 1
    return traces


def shown(grads: dict[str, Tensor], seat: Seat) -> dict[str, Any]:
    """All numbers of a seat's latest update."""
    assert seat.last_update is not None
    return {
        **asdict(seat.last_update.read()),
        **{f"gradient.{name}": grad for name, grad in grads.items()},
        **state(seat),
    }


def poison(seat: Seat) -> None:
    with torch.no_grad():
        next(iter(seat.parameters.values()))[0, 0] = torch.nan


def evaluation_blocks() -> list[Block]:
    generator = torch.Generator().manual_seed(5)
    return [
        Block.of([sequence(n, 0.8, generator) for n in lengths], DEVICE) for lengths in ((11, 3, 7), (5,))
    ]


EVALUATION = evaluation_blocks()


def same(a: Any, b: Any) -> bool:
    """Equal bits, with NaN equal to NaN."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return (
        a.dtype == b.dtype and torch.equal(a.isnan(), b.isnan()) and torch.equal(a[~a.isnan()], b[~b.isnan()])
    )


def assert_same(ours: Trace, theirs: Trace, who: str) -> None:
    assert len(ours.steps) == len(theirs.steps), who
    for number, (a, b) in enumerate(zip(ours.steps, theirs.steps, strict=True)):
        assert list(a) == list(b)
        unlike = [name for name in a if not same(a[name], b[name])]
        assert not unlike, f"{who}, update {number}: {', '.join(unlike)}"
    assert same(ours.evaluation, theirs.evaluation), f"{who}, evaluation"
