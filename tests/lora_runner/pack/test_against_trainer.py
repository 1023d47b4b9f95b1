"""A trial alone on its seat trains as with transformers' Trainer, peft and bitsandbytes.

It runs through a session, with its data order, batches and accumulation windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from lora_runner.base.load_model import BaseSpec, load_base
from lora_runner.config import TrialConfig
from lora_runner.data import BatchPlan, DataBundle
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import Pack
from lora_runner.protocol import Assignment, SessionOptions
from lora_runner.session import Session
from tests.lora_runner.plain_models import plain_nf4

TINY = Callable[..., Path]
PAD = 1
CONFIG = TrialConfig(
    learning_rate=5e-3,
    embedding_learning_rate=1e-3,
    lr_scheduler_type="cosine",
    warmup_steps=2,
    max_steps=6,
    per_device_train_batch_size=3,
    gradient_accumulation_steps=2,
    weight_decay=0.1,
    max_grad_norm=0.3,  # below the norms of this run, so that gradients are clipped
    lora_r=8,
    lora_alpha=16,
    seed=4,
)


OTHER = replace(
    CONFIG,
    lr_scheduler_type="linear",
    warmup_steps=0,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=3,
    weight_decay=0.0,
    max_grad_norm=0.0,
    adam_beta1=0.8,
    adam_beta2=0.99,
    lora_r=6,
    lora_alpha=6,
    use_rslora=True,
    seed=5,
)


def ours(pack: Pack, bundle: DataBundle, config: TrialConfig, folder: Path) -> dict[str, Any]:
    """Train one trial through a session. -> losses and norms by step, weights before and after."""
    every_step = tuple(round(100 * (i + 1) / config.max_steps) for i in range(config.max_steps))
    session = Session(pack, bundle, SessionOptions(report_at=every_step, sample_tokens=0), num_seats=1)
    session.start_trial(0, Assignment(number=0, config=config, folder=str(folder), attempt=1))
    seat = session.trials[0].seat
    start = {name: tensor.detach().clone() for name, tensor in seat.parameters.items()}
    reports = []
    while session.trials:
        reports += session.advance()
    assert [report.step for report in reports] == list(range(1, config.max_steps + 1))
    return {
        "loss": [report.train_loss for report in reports],
        "grad_norm": [report.grad_norm for report in reports],
        "learning_rate": [report.learning_rate for report in reports],
        "start": start,
        "end": {name: tensor.detach().clone() for name, tensor in seat.parameters.items()},
    }


class TwoRates(Trainer):
    """Trainer with a separate learning rate for modules_to_save, on batches in a given order."""

    def __init__(self, batches: list[dict[str, Tensor]], config: TrialConfig, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.batches, self.config = batches, config

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self.accelerator.prepare(DataLoader(self.batches, batch_size=None, shuffle=False))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        groups: dict[bool, list[Tensor]] = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                groups[".lora_" in name].append(parameter)
        rates = {True: self.config.learning_rate, False: self.config.embedding_learning_rate}
        self.optimizer = torch.optim.AdamW(
            [{"params": params, "lr": rates[is_lora]} for is_lora, params in groups.items() if params],
            betas=(self.config.adam_beta1, self.config.adam_beta2),
            eps=self.config.adam_epsilon,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        return self.optimizer


def theirs(
    folder: Path, bundle: DataBundle, config: TrialConfig, start: dict[str, Tensor], out: Path, tied: bool
) -> dict[str, Any]:
    """The same trial by Trainer, from the same initial weights. -> as `ours`."""
    model = plain_nf4(folder, device_map={"": "cpu"})
    model.config.use_cache = False
    saved = [name for name in start if ".lora_" not in name]
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        use_rslora=config.use_rslora,
        target_modules="all-linear",
        modules_to_save=["embed_tokens"] if tied else ["embed_tokens", "lm_head"] if saved else None,
        ensure_weight_tying=tied,
    )
    model = get_peft_model(model, lora)
    trained = dict(trainable(model))
    assert set(trained) == set(start)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(start[name])
    trainer = TwoRates(
        list(batches(bundle, config)),
        config,
        model=model,
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=config.max_steps,
            per_device_train_batch_size=config.per_device_train_batch_size,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            lr_scheduler_type=config.lr_scheduler_type,
            warmup_steps=config.warmup_steps,
            max_grad_norm=config.max_grad_norm,
            seed=config.seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
        train_dataset=bundle.train.examples,
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(logs) == config.max_steps
    columns = {key: [entry[key] for entry in logs] for key in ("loss", "grad_norm", "learning_rate")}
    return {**columns, "end": {name: p.detach().clone() for name, p in trainable(model)}}


def trainable(model: PeftModel) -> Iterator[tuple[str, Tensor]]:
    """Trained matrices under the names that a seat gives them."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            ours = name.removeprefix("base_model.model.").replace(".default.weight", "")
            yield ours.replace(".modules_to_save", ".weight"), parameter


def batches(bundle: DataBundle, config: TrialConfig) -> Iterator[dict[str, Tensor]]:
    """Our micro-batches, padded as a collator pads them."""
    plan = BatchPlan(train=bundle.train, batch_size=config.per_device_train_batch_size, seed=config.seed)
    for index in range(config.max_steps * config.gradient_accumulation_steps):
        examples = plan.examples_at(index)
        ids, labels, mask = (
            pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filler)
            for rows, filler in (
                ([e.input_ids for e in examples], PAD),
                ([e.labels for e in examples], -100),
                ([[1] * len(e.input_ids) for e in examples], 0),
            )
        )
        yield {"input_ids": ids, "labels": labels, "attention_mask": mask}


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, OTHER], ids=["cosine", "linear"])
@pytest.mark.parametrize(
    ("tied", "train_embeddings"),
    [
        pytest.param(False, True, id="untied"),
        pytest.param(True, True, id="tied"),
        pytest.param(False, False, id="frozen"),
    ],
)
def test_a_trial_alone_is_what_trainer_gives(
    tiny_model: TINY,
    bundle: DataBundle,
    tmp_path: Path,
    config: TrialConfig,
    tied: bool,
    train_embeddings: bool,
) -> None:
    """Loss over the tokens of the whole window, clipping, both rates, schedule and update."""
    folder = tiny_model("llama", tie_word_embeddings=tied)
    pack = Pack(load_base(BaseSpec(model=str(folder))), PackOptions(train_embeddings=train_embeddings))
    mine = ours(pack, bundle, config, tmp_path / "trial")
    tie = tied and train_embeddings
    peer = theirs(folder, bundle, config, mine["start"], tmp_path / "trainer", tied=tie)
    assert mine["learning_rate"] == peer["learning_rate"]
    # The sums run in another order, and Trainer computes padding too. Found on torch 2.13.0: losses within
    # 1.8e-7, norms within 9.5e-7, matrices within 2.2e-5 of the distance they moved, single weights within
    # 4.1e-4 of the farthest move of their matrix: Adam divides a tiny gradient by its own size, rounding and
    # all.
    assert mine["loss"] == pytest.approx(peer["loss"], rel=1e-6)
    assert mine["grad_norm"] == pytest.approx(peer["grad_norm"], rel=1e-5)
    for name, weight in peer["end"].items():
        moved, apart = weight - mine["start"][name], mine["end"][name] - weight
        assert moved.any(), name
        assert float(apart.norm()) <= 1e-4 * float(moved.norm()), name
        assert float(apart.abs().max()) <= 2e-3 * float(moved.abs().max()), name
