"""The best trial as what is needed to train it again with transformers, TRL and peft."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from files_and_text import trial_paths
from files_and_text.numbers import value_text
from files_and_text.problems import InputError
from files_and_text.shown import Shown
from files_and_text.trial_paths import ADAPTER, ADAPTER_WEIGHTS, BEST_FOLDER
from results.answer.answer import Answer
from results.best import best_config, read_best_config
from results.errors import ResultsError
from results.text.gaps import short_loss

_ARGUMENTS = (
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "max_steps"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "max_grad_norm"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "optim", "seed"),
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Best(Shown):
    """The best trial of a sweep."""

    number: int
    """Of the trial."""
    loss: float
    """Nats per token at the full budget: of its run, or the mean over the seeds of `confirm`."""
    config: Mapping[str, Any]
    """Arguments of `transformers.TrainingArguments` and of TRL's `SFTConfig`: `SFTConfig(**best.config)`."""
    lora: Mapping[str, Any]
    """Arguments of `peft.LoraConfig`."""
    embedding_learning_rate: float | None
    """Rate of the trained embeddings, for which these classes have no argument; `sweeps export` writes a
    script that has. None where none are trained."""
    adapter: Path | None
    """Folder with the trained adapter; None where it was not kept."""
    settings: Mapping[str, Any]
    """Everything, by section, as in best/config.yaml."""

    def _shown(self) -> tuple[str, Mapping[str, str]]:
        names = ("learning_rate", "lr_scheduler_type", "warmup_steps", "max_steps")
        facts = {"config": ", ".join(f"{name} {value_text(self.config.get(name))}" for name in names)}
        if self.embedding_learning_rate is not None:
            facts["embedding_learning_rate"] = value_text(self.embedding_learning_rate)
        facts["adapter"] = "not kept" if self.adapter is None else str(self.adapter)
        return f"Best: trial {self.number}, loss {short_loss(self.loss)}", facts


def read_best(study: optuna.Study, answer: Answer, run_folder: Path) -> Best:
    """The best trial of a study. Raises NothingToSay when no trial finished its full budget."""
    settings = best_config(study)
    number = int(settings["sweep"]["trial"])
    training, lora = settings["training"], settings["lora"]
    known = {name: training[name] for name in _ARGUMENTS if training.get(name) is not None}
    assert answer.best is not None
    return Best(
        number=number,
        loss=answer.best.loss.value,
        config=known,
        lora={
            "r": lora["lora_r"],
            "lora_alpha": lora["lora_alpha"],
            "lora_dropout": lora["lora_dropout"],
            "use_rslora": lora["use_rslora"],
            "target_modules": lora["target_modules"],
            "modules_to_save": lora["modules_to_save"] or None,
            "task_type": "CAUSAL_LM",
        },
        embedding_learning_rate=training.get("embedding_learning_rate"),
        adapter=_adapter(run_folder, number),
        settings=settings,
    )


def _adapter(run_folder: Path, number: int) -> Path | None:
    best = run_folder / BEST_FOLDER
    with suppress(OSError, InputError, ResultsError, KeyError, TypeError):
        if read_best_config(best)["sweep"]["trial"] == number and (best / ADAPTER_WEIGHTS).is_file():
            return best
    folder = run_folder / trial_paths.trial_folder(number) / ADAPTER
    return folder if (folder / ADAPTER_WEIGHTS).is_file() else None
