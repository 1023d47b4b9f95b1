"""A training script for transformers' Trainer, with the second learning rate it has no setting for."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from results.errors import ExportError
from results.export.peft_target import dtype_name, literal
from results.export.target import Draft, Target, section
from results.plain import loss
from search_spaces import dump_yaml

SCRIPT, ARGUMENTS = "train.py", "training_args.yaml"

_TEMPLATE = Path(__file__).with_name("train.py.jinja")
_FORMATS = ("messages", "sharegpt", "prompt_completion", "alpaca", "text")
_NEEDED = (
    "learning_rate",
    "lr_scheduler_type",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
# transformers has no default for what these schedules end at or decay over.
_NEEDS_KWARGS = ("cosine_with_min_lr", "warmup_stable_decay")
_ARGUMENTS = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "max_grad_norm",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "optim",
    "seed",
)


def _draft(config: Mapping[str, Any], adapter_folder: Path | None) -> Draft:
    _check(config)
    lossy, notes = _lossy(config), _notes(config)
    return Draft(
        files={SCRIPT: _script(config, lossy, notes), ARGUMENTS: _arguments(config, lossy)},
        lossy=lossy,
        notes=notes,
        check=_check_compiles,
    )


def _check(config: Mapping[str, Any]) -> None:
    training, lora, model = section(config, "training"), section(config, "lora"), section(config, "model")
    missing = [f"training.{name}" for name in _NEEDED if training.get(name) is None]
    missing += [
        f"lora.{name}" for name in ("lora_r", "lora_alpha", "target_modules") if lora.get(name) is None
    ]
    missing += ["model.name"] if not model.get("name") else []
    if missing:
        raise ExportError(f"the transformers target needs {', '.join(missing)}, and the config has none")
    for name in ("modules_to_save", "trainable_token_indices"):
        if lora.get(name) and training.get("embedding_learning_rate") is None:
            raise ExportError(f"the config trains embeddings ({name}) but has no embedding_learning_rate")
    scheduler = training["lr_scheduler_type"]
    if scheduler in _NEEDS_KWARGS and not training.get("lr_scheduler_kwargs"):
        raise ExportError(f"the schedule {scheduler} needs lr_scheduler_kwargs, and the config has none")


def _lossy(config: Mapping[str, Any]) -> list[str]:
    """What the script does otherwise than the sweep in a way that changes what is trained on or how."""
    data, quantization = section(config, "data"), section(config, "quantization")
    found = []
    if data.get("format") not in _FORMATS:
        found.append(
            "The sweep recorded no data format; the script reads records with prompt and completion."
        )
    if data.get("max_length") is None:
        found.append("The sweep recorded no max_length; the script cuts examples at 1024 tokens.")
    if data.get("completion_only") is None:
        found.append(
            "The sweep did not record whether the prompt carries loss; the script leaves the prompt out."
        )
    if data.get("eval") is None and data.get("eval_split") is None:
        found.append(
            "The config names no evaluation data, so the script cannot leave out the records that the "
            "sweep held out: it trains on all of the file it is given."
        )
    if data.get("max_train_examples") is not None:
        found.append(
            f"The sweep drew {data['max_train_examples']} training records by content hash; the script "
            "takes all."
        )
    if data.get("chat_template") is not None:
        found.append("The sweep used a chat template of its own; name it with --chat-template.")
    if quantization.get("load_in_4bit") is None:
        found.append("The sweep recorded no quantization; the script loads the base in NF4 as QLoRA does.")
    return found


def _notes(config: Mapping[str, Any]) -> list[str]:
    notes = [
        "Data order, dropout masks and LoRA's first weights come from the Trainer's and torch's own "
        "generators, so a run "
        "ends near the sweep's loss, not at it.",
        "The Trainer starts an epoch with a new batch, the sweep fills the last batch of an epoch from "
        "the next.",
    ]
    if not section(config, "model").get("revision"):
        notes.append("The sweep pinned no revision of the base model: another one trains from another loss.")
    if section(config, "training").get("embedding_learning_rate") is not None:
        notes.append(
            "training_args.yaml alone cannot hold the embedding learning rate: used without this script, the "
            "embeddings would train at the main rate."
        )
    return notes


def _script(config: Mapping[str, Any], lossy: Sequence[str], notes: Sequence[str]) -> str:
    # Delimiters that do not occur in Python: the template is meant to be read as the script it becomes.
    environment = jinja2.Environment(
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    sweep, result = section(config, "sweep"), section(config, "result")
    versions = ", ".join(f"{name} {version}" for name, version in section(config, "versions").items())
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        sweep=_in_docstring(sweep.get("name")),
        trial=sweep.get("trial"),
        study_hash=sweep.get("study_hash"),
        eval_loss=loss(result.get("eval_loss")),
        base_loss=loss(result.get("base_eval_loss")),
        versions=_wrapped(versions or "versions not recorded"),
        lossy=_listed(lossy),
        notes=_listed(notes),
        settings=_settings(config),
    )


def _settings(config: Mapping[str, Any]) -> str:
    """The constants at the head of the script, as Python."""
    model, quantization, lora = (
        section(config, "model"),
        section(config, "quantization"),
        section(config, "lora"),
    )
    training, data = section(config, "training"), section(config, "data")
    four_bit = quantization.get("load_in_4bit") is not False
    lora_arguments = {
        "r": lora["lora_r"],
        "lora_alpha": lora["lora_alpha"],
        "lora_dropout": lora.get("lora_dropout") or 0.0,
        "use_rslora": bool(lora.get("use_rslora")),
        "target_modules": lora["target_modules"],
        "modules_to_save": list(lora.get("modules_to_save") or []) or None,
    }
    if lora.get("trainable_token_indices"):
        lora_arguments["trainable_token_indices"] = lora["trainable_token_indices"]
    quantization_arguments = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": quantization.get("bnb_4bit_quant_type") or "nf4",
        "bnb_4bit_use_double_quant": quantization.get("bnb_4bit_use_double_quant") is not False,
    }
    effective = int(training["per_device_train_batch_size"]) * int(training["gradient_accumulation_steps"])
    values: dict[str, str] = {
        "MODEL": literal(model["name"]),
        "REVISION": literal(model.get("revision")),
        "COMPUTE_DTYPE": f"torch.{dtype_name(config)}",
        "QUANTIZATION": _mapping(quantization_arguments) if four_bit else "None",
        "LORA": _mapping(lora_arguments),
        "EMBEDDING_LEARNING_RATE": literal(training.get("embedding_learning_rate")),
        "TRAIN_DATA": literal(data.get("train")),
        "EVAL_DATA": literal(data.get("eval")),
        "DATA_FORMAT": literal(data["format"] if data.get("format") in _FORMATS else "prompt_completion"),
        "MAX_LENGTH": literal(data.get("max_length") or 1024),
        "COMPLETION_ONLY": literal(data.get("completion_only") is not False),
        # Micro-batch x accumulation x processes; the rates hold for this product.
        "EFFECTIVE_BATCH_SIZE": literal(effective),
    }
    return "\n".join(f"{name} = {value}" for name, value in values.items())


def _arguments(config: Mapping[str, Any], lossy: Sequence[str]) -> str:
    """YAML that HfArgumentParser reads as TrainingArguments."""
    training = section(config, "training")
    arguments: dict[str, Any] = {"output_dir": "output"}
    arguments |= {name: training[name] for name in _ARGUMENTS if training.get(name) not in (None, {})}
    # Whole steps in every version: a share would be read as a number of steps by one and refused by another.
    arguments["warmup_steps"] = int(training.get("warmup_steps") or 0)
    arguments |= {
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "bf16": False,
        "fp16": False,
    }
    head = ["# Settings of transformers' TrainingArguments (>= 5.16), read by train.py beside this file."]
    if training.get("embedding_learning_rate") is not None:
        head.append(
            "# Not expressed here: embedding_learning_rate, which train.py gives its own parameter group."
        )
    head += [f"# Not expressed: {line}" for line in lossy]
    return "\n".join(head) + "\n" + dump_yaml(arguments)


def _check_compiles(folder: Path) -> None:
    source = (folder / SCRIPT).read_text(encoding="utf-8")
    try:
        compile(source, SCRIPT, "exec")
    except SyntaxError as error:
        raise ExportError(
            f"the exported {SCRIPT} is not valid Python at line {error.lineno}: {error.msg}"
        ) from error


def _mapping(values: Mapping[str, Any]) -> str:
    lines = [f"    {literal(name)}: {literal(value)}," for name, value in values.items()]
    return "\n".join(["{", *lines, "}"])


def _listed(lines: Sequence[str]) -> str:
    shown = [_wrapped(line, first="- ", rest="  ") for line in lines] or ["- nothing"]
    return "\n".join(shown)


def _wrapped(text: str, *, first: str = "", rest: str = "  ") -> str:
    return textwrap.fill(_in_docstring(text), 100, initial_indent=first, subsequent_indent=rest)


def _in_docstring(text: object) -> str:
    """Text that can stand inside a docstring: names come from users."""
    return " ".join(str(text).replace("\\", "/").replace('"""', "'''").split())


TARGET = Target(
    name="transformers",
    summary="train.py for transformers' Trainer + peft + bitsandbytes, with training_args.yaml",
    draft=_draft,
)
