"""A small learnable data set, packs and sessions on tiny models, and a loss computed without a pack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.config import TrialConfig
from lora_runner.data import DataBundle, TokenizedExample, TokenizedSet
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import Pack
from lora_runner.protocol import Assignment, SeatReport, SessionOptions
from lora_runner.session import Session
from tests.lora_runner import efficient_on_a_cpu as on_a_cpu


def counting(start: int, stride: int, length: int, prompt: int) -> TokenizedExample:
    """Token ids that count up by `stride`; the first `prompt` tokens have no loss."""
    ids = [2 + (start + stride * i) % 60 for i in range(length)]
    return TokenizedExample(input_ids=ids, labels=[-100] * prompt + ids[prompt:])


@pytest.fixture(scope="session")
def bundle() -> DataBundle:
    """Sequences and prompts of different lengths, so that a mean of batch means is not token-weighted."""
    train = [counting(7 * i, 1 + i % 3, 9 + i % 8, 1 + i % 5) for i in range(24)]
    held_out = [counting(5 * i + 3, 1 + i % 3, 8 + 2 * (i % 6), 2 + i % 3) for i in range(10)]
    return DataBundle(
        train=TokenizedSet.of(train, source="train"),
        eval=TokenizedSet.of(held_out, source="eval"),
        sample_prompts=tuple(tuple(e.input_ids[:3]) for e in held_out[:2]),
        sample_answers=tuple(tuple(e.input_ids[3:]) for e in held_out[:2]),
        format="text",
    )


@pytest.fixture(scope="session")
def new_pack(tiny_model: Callable[..., Path]) -> Callable[..., Pack]:
    """`new_pack(kind, target_modules=..., spec={...}, cls=Pack, **model_config)` on a newly loaded base."""

    def make(
        kind: str = "llama",
        *,
        target_modules: str | tuple[str, ...] = "all-linear",
        train_embeddings: bool | tuple[str, ...] = True,
        embedding_optimizer_bits: Literal[32, 8] = 32,
        spec: dict[str, Any] | None = None,
        cls: type[Pack] = Pack,
        **config: Any,
    ) -> Pack:
        base = load_base(BaseSpec(model=str(tiny_model(kind, **config)), **(spec or {})))
        options = PackOptions(
            target_modules=target_modules,
            train_embeddings=train_embeddings,
            embedding_optimizer_bits=embedding_optimizer_bits,
            resident_weights=True,  # the same numbers in less time
        )
        return cls(base, options)

    return make


@pytest.fixture
def efficient_on_a_cpu() -> Iterator[None]:
    """Makes the attention that packs use on CUDA work on a CPU."""
    with on_a_cpu.registered():
        yield


@pytest.fixture(scope="session")
def plain_nll() -> Callable[..., float]:
    """`plain_nll(model, set)`: token-weighted NLL by the model alone, one sequence at a time and unpadded."""

    def measure(model: nn.Module, examples: TokenizedSet) -> float:
        total, count = 0.0, 0
        with torch.no_grad():
            for example in examples.examples:
                ids, labels = torch.tensor([example.input_ids]), torch.tensor(example.labels)[1:]
                logits = model(input_ids=ids).logits[0, :-1].float()
                total += float(
                    nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
                )
                count += int((labels != -100).sum())
        return total / count

    return measure


@pytest.fixture(scope="session")
def options() -> SessionOptions:
    """Reports at 20%, 50% and the end of the budget."""
    return SessionOptions(report_at=(20, 50, 100), per_device_eval_batch_size=4, sample_tokens=4)


@pytest.fixture(scope="module")
def pack(new_pack: Callable[..., Pack]) -> Pack:
    """One base per test file: a pack keeps nothing of seats that leave it."""
    return new_pack()


@pytest.fixture
def new_session(pack: Pack, bundle: DataBundle, options: SessionOptions) -> Callable[..., Session]:
    """`new_session(num_seats, **options)` on the file's pack, or on another one."""

    def make(num_seats: int = 1, *, on: Pack | None = None, **change: Any) -> Session:
        return Session(on or pack, bundle, replace(options, **change), num_seats=num_seats)

    return make


@pytest.fixture
def assign(tmp_path: Path) -> Callable[..., Assignment]:
    """`assign(number, config)`: a trial with its own folder."""

    def make(number: int, config: TrialConfig, attempt: int = 1) -> Assignment:
        return Assignment(
            number=number, config=config, folder=str(tmp_path / f"{number:04d}"), attempt=attempt
        )

    return make


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[int, list[SeatReport]]]:
    """`run(session, assignments)`: train to the end, filling freed seats at once. -> reports by trial."""

    def to_the_end(session: Session, waiting: Sequence[Assignment] = ()) -> dict[int, list[SeatReport]]:
        line, reports = list(waiting), dict[int, list[SeatReport]]()
        while True:
            for index in session.free_seats[: len(line)]:
                session.start_trial(index, line.pop(0))
            if not session.trials:
                return reports
            for report in session.advance(60):
                reports.setdefault(report.number, []).append(report)

    return to_the_end


@pytest.fixture(scope="session")
def numbers() -> Callable[[Sequence[SeatReport]], list[tuple[Any, ...]]]:
    """The parts of a trial's reports that must not depend on neighbours: all but times and memory."""

    def of(reports: Sequence[SeatReport]) -> list[tuple[Any, ...]]:
        return [
            (
                r.percent,
                r.step,
                r.eval_loss,
                r.record_losses,
                r.train_loss,
                r.grad_norm,
                r.learning_rate,
                r.num_tokens,
                r.signs,
                r.outcome,
                r.stop_reason,
                r.generations,
                r.adapter_sha256,
            )
            for r in reports
        ]

    return of
