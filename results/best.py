"""The folder `best/`: the best config and its adapter, ready to use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import optuna

from files_and_text import trial_paths
from files_and_text.atomic_files import atomic_write, folder_holds, replace_folder
from files_and_text.plain_values import finite, plain
from files_and_text.trial_paths import (
    ADAPTER,
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BEST_FOLDER,
    MERGED,
    MERGED_FILE,
)
from files_and_text.yaml_lines import dump_yaml, load_yaml
from results.adapter_files import check_adapter_files
from results.answer.answer import Answer, Loss
from results.errors import NothingToSay, ResultsError
from results.sweep_result import SweepResult, TrialResult, read_study, study_hash
from results.tokenizer_files import tokenizer_files

CONFIG_FILE = "config.yaml"

_HEAD = """\
# The best config of this sweep by `result: metric` at the full budget.
# With `seeds` in a result, its loss is the mean over that many new seeds, else that of one run.
# warmup_steps is the exact number for max_steps below; warmup_ratio is the share it came from.
"""


def best_config(
    study: optuna.Study, *, answer: Answer | None = None, adapter_config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Everything needed to train the best trial again, in builtins, by section.

    Sections: sweep, model, quantization, lora, training, data, result, versions. Losses in nats per token;
    a fact that the sweep did not record is None, never a guess. With `answer` they are those of the seeds
    on which the best was run again. `adapter_config` (peft's file of the best
    trial) adds what the trained adapter alone knows, such as the expanded target modules. Raises
    NothingToSay when no trial finished its budget.
    """
    sweep, best = _read_best(study)
    saved = adapter_config or {}
    config: dict[str, Any] = plain(
        {
            "sweep": {"name": sweep.name, "study_hash": study_hash(study), "trial": best.number},
            "model": _model(sweep),
            "quantization": _quantization(sweep),
            "lora": _lora(sweep, best, saved),
            "training": _training(sweep, best),
            "data": _data(sweep),
            "result": _result(sweep, best, answer),
            "versions": dict(sweep.versions),
        }
    )
    return config


def write_best(
    study: optuna.Study, run_folder: Path, *, answer: Answer | None = None, tokenizer: Path | None = None
) -> Path:
    """Copy the best trial's adapter to `run_folder/best` and write `config.yaml` beside it; return that
    folder.

    `tokenizer` is a folder with a saved tokenizer to copy too; without it the folder keeps the one it has.
    The folder changes whole or not at all, and is left alone when nothing changed. Raises
    NothingToSay without a finished trial, AdapterFilesError for a missing or damaged adapter, ResultsError
    for a folder outside the run.
    """
    _, best = _read_best(study)
    adapter = trial_folder(best, run_folder) / ADAPTER
    config = best_config(study, answer=answer, adapter_config=check_adapter_files(adapter))
    contents: dict[str, Path | str] = {name: adapter / name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
    folder = run_folder / BEST_FOLDER
    contents |= (tokenizer_files(tokenizer) if tokenizer is not None else {}) or tokenizer_files(folder)
    text, of_merged = _HEAD + dump_yaml(config), (MERGED, MERGED_FILE)
    if folder_holds(folder, contents, beside=(CONFIG_FILE, *of_merged)):
        # The same adapter, of which more is known now: the model it was merged into stays.
        file = folder / CONFIG_FILE
        if not file.is_file() or file.read_bytes() != text.encode("utf-8"):
            atomic_write(file, text)
        return folder
    return replace_folder(folder, contents | {CONFIG_FILE: text}, beside=of_merged)


def read_best_config(path: Path) -> dict[str, Any]:
    """Read a `config.yaml` that `write_best` wrote, or the one in such a folder.

    Raises InputError (with file and line) for invalid YAML, ResultsError for a file that is not a best
    config.
    """
    file = path / CONFIG_FILE if path.is_dir() else path
    data, _ = load_yaml(file)
    missing = [
        name for name in ("model", "lora", "training") if not isinstance(data, dict) or name not in data
    ]
    if missing:
        raise ResultsError(f"{file} is not a best config: it has no section {', '.join(missing)}")
    config: dict[str, Any] = data
    return config


def trial_folder(trial: TrialResult, run_folder: Path) -> Path:
    """The trial's folder in the run; raises ResultsError when the study points outside the run."""
    relative = PurePosixPath(trial.folder or trial_paths.trial_folder(trial.number))
    if relative.is_absolute() or ".." in relative.parts:
        raise ResultsError(
            f"a trial's folder lies inside its run; trial {trial.number} names {trial.folder!r}"
        )
    return run_folder / relative


def _read_best(study: optuna.Study) -> tuple[SweepResult, TrialResult]:
    sweep = read_study(study)
    if sweep.chosen is None:
        counts = sorted(Counter(trial.outcome for trial in sweep.trials).items())
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts)
        raise NothingToSay(
            f"study {sweep.name!r} has no trial that finished its full budget with a finite loss, "
            f"so it has no best config ({outcomes or 'no trial at all'})"
        )
    return sweep, sweep.chosen


def _model(sweep: SweepResult) -> dict[str, Any]:
    context = sweep.context
    return {
        "name": context.get("model"),
        "revision": context.get("revision"),
        # True only where the sweep file says so, as it runs code that comes with the model.
        "trust_remote_code": context.get("trust_remote_code") is True,
        "size": context.get("model_size"),
        # The class of transformers that loads the base; None in studies of earlier versions.
        "class": context.get("model_class"),
    }


def _quantization(sweep: SweepResult) -> dict[str, Any]:
    context = sweep.context
    kind, settings = context.get("quantization"), context.get("quantization_config")
    if not isinstance(settings, Mapping):  # studies of earlier versions
        settings = {"bnb_4bit_quant_type": kind} if kind is not None else {}
        if kind in ("nf4", "fp4"):
            settings |= {"load_in_4bit": True, "bnb_4bit_use_double_quant": kind == "nf4"}
    return {
        "load_in_4bit": None if kind is None else bool(settings.get("load_in_4bit")),
        "bnb_4bit_quant_type": None,
        "bnb_4bit_use_double_quant": None if kind is None else False,
        **settings,
        "bnb_4bit_compute_dtype": context.get("compute_dtype"),
    }


def _lora(sweep: SweepResult, best: TrialResult, saved: Mapping[str, Any]) -> dict[str, Any]:
    context, config = sweep.context, best.config

    def known(name: str, saved_as: str) -> Any:
        return best.params.get(name, config.get(name, saved.get(saved_as, context.get(name))))

    convention = context.get("alpha_convention")
    asked = context.get("target_modules", saved.get("target_modules"))
    # Another trainer would adapt more layers under the same name: the adapter lists those that were trained.
    narrower = bool(context.get("layers_without_adapter"))
    return {
        "lora_r": known("lora_r", "r"),
        "lora_alpha": known("lora_alpha", "lora_alpha"),
        "lora_dropout": known("lora_dropout", "lora_dropout"),
        "use_rslora": config.get(
            "use_rslora",
            saved.get("use_rslora", None if convention is None else convention == "alpha/sqrt(r)"),
        ),
        "target_modules": saved.get("target_modules", asked) if narrower else asked,
        # The adapter has the model's own names (wte), the context those of the sweep file (embed_tokens).
        "modules_to_save": saved.get("modules_to_save", context.get("modules_to_save")) or [],
        "trainable_token_indices": context.get("trainable_token_indices") or [],
    }


def _training(sweep: SweepResult, best: TrialResult) -> dict[str, Any]:
    config, values, context = best.config, best.values, sweep.context
    batch = finite(values.get("per_device_train_batch_size"))
    accumulation = finite(
        config.get("gradient_accumulation_steps", context.get("gradient_accumulation_steps"))
    )
    effective = None if batch is None or accumulation is None else int(batch * accumulation)
    return {
        "learning_rate": values.get("learning_rate"),
        "embedding_learning_rate": values.get("embedding_learning_rate"),
        "embedding_lr_ratio": values.get("embedding_lr_ratio"),
        "lr_scheduler_type": values.get("lr_scheduler_type"),
        "lr_scheduler_kwargs": config.get("lr_scheduler_kwargs") or {},
        "warmup_ratio": values.get("warmup_ratio", 0.0),
        "warmup_steps": int(finite(values.get("warmup_steps")) or 0),
        "max_steps": config.get("max_steps", context.get("max_steps")),
        "per_device_train_batch_size": values.get("per_device_train_batch_size"),
        "gradient_accumulation_steps": None if accumulation is None else int(accumulation),
        "effective_batch_size": effective,
        "weight_decay": values.get("weight_decay"),
        **{name: config.get(name) for name in ("max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon")},
        "optim": "adamw_torch",
        "seed": config.get("seed", context.get("seed")),
        "trained_embeddings_dtype": "float32",
        "embedding_optimizer_bits": context.get("embedding_optimizer_bits", 32),
    }


def _data(sweep: SweepResult) -> dict[str, Any]:
    context = sweep.context
    given = context.get("data")
    # Either the section of the sweep file as a mapping, or the training source alone.
    known = dict(given) if isinstance(given, Mapping) else {"train": given}
    return {
        **known,
        # The template's text; studies of earlier versions hold the file's name.
        "chat_template": context.get("chat_template", known.get("chat_template")),
        "forms": context.get("data_forms"),
        "format": context.get("data_format", known.get("format")),
        "completion_only": context.get("completion_only", known.get("completion_only")),
        "max_length": context.get("max_length", known.get("max_length")),
        "train_digest": sweep.identity.get("train_data"),
        "eval_digest": context.get("eval_set_hash"),
        "num_eval_tokens": context.get("num_eval_tokens"),
        **_num_eval_records(context.get("data_account")),
    }


def _num_eval_records(account: Any) -> dict[str, int]:
    """Evaluation records as read, and how many of them the trials were evaluated on, where that is known."""
    counts = account.get("eval") if isinstance(account, Mapping) else None
    if not isinstance(counts, Mapping) or "num_records" not in counts or "num_used" not in counts:
        return {}
    return {"num_eval_records": counts["num_records"], "num_eval_used": counts["num_used"]}


def _result(sweep: SweepResult, best: TrialResult, answer: Answer | None) -> dict[str, Any]:
    default = sweep.guideline_default
    again = None if answer is None or answer.best is None else answer.best.loss
    default_again = None if answer is None else answer.default.loss
    return {
        "metric": sweep.metric,
        "eval_loss": best.eval_loss,
        **_of_seeds(again),
        # The adapter is that of one of the runs.
        **({"adapter_eval_loss": best.eval_loss} if again is not None and again.seeds else {}),
        **({} if best.metric is None else {"measured": sweep.context["metric"] | {"value": best.metric}}),
        "base_eval_loss": sweep.base_eval_loss,
        **_unquantized(sweep),
        **_merged(answer),
        "guideline_default": None
        if default is None
        else {
            "trial": default.number,
            "outcome": default.outcome,
            "eval_loss": default.eval_loss,
            **_of_seeds(default_again),
        },
    }


def _unquantized(sweep: SweepResult) -> dict[str, Any]:
    """The base without quantization, where it was measured."""
    found = sweep.base_unquantized
    if found is None or found.eval_loss is None:
        return {}
    return {"base_unquantized_eval_loss": found.eval_loss}


def _merged(answer: Answer | None) -> dict[str, Any]:
    """The best merged into its base, where that was measured."""
    found = None if answer is None else answer.merged
    return {} if found is None else {"merged_eval_loss": found.loss, "merged_dtype": found.dtype}


def _of_seeds(loss: Loss | None) -> dict[str, Any]:
    """A mean over new seeds with its 95% interval; nothing of a single run."""
    if loss is None or not loss.seeds:
        return {}
    return {
        "eval_loss": loss.value,
        "eval_loss_low": loss.low,
        "eval_loss_high": loss.high,
        "seeds": loss.seeds,
    }
