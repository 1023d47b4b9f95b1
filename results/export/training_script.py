"""What targets with a training script share: its constants, its template, the facts that it expresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from files_and_text.choices import DATA_FORMATS
from results.errors import ExportError
from results.export.bundled_data_code import PACKAGE, bundled_data_code
from results.export.config_values import (
    Config,
    auto_class,
    dtype_name,
    quantization_arguments,
    revision_notes,
    section,
    trains_embeddings,
)
from results.export.facts import FORMS, facts_of, form_fact_name
from results.export.generated_text import (
    bullet_list,
    multiline_literal,
    provenance_lines,
    python_dict,
    python_literal,
    settings_file_text,
    wrap_text,
)
from results.export.jinja_templates import render_template
from results.export.target import (
    ExportDraft,
    FactExport,
    as_settings,
    lossy_sentences,
    not_expressed,
    settings_of,
    written_in,
)

SCRIPT = "train.py"
DEFAULT_MAX_LENGTH = 1024
OTHER_MODEL_CLASS = (
    "The sweep trained the language model of a base that sees as well; how this program loads it, and "
    "whether it trains more of it, was not compared."
)
INT8_ROUNDING = (
    "The sweep computed with the weights that the int8 base stands for; LLM.int8() rounds activations to 8 "
    "bits as well, so losses differ a little."
)

_NEEDED = (
    "learning_rate",
    "lr_scheduler_type",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
_IN_LORA = (
    *("lora_r", "lora_alpha", "use_rslora", "lora_dropout", "target_modules"),
    *("modules_to_save", "trainable_token_indices"),
)
_ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
_SELECTION = ("train_split", "eval_split", "eval_fraction", "max_train_examples", "seed")
# transformers has no default for the final learning rate or the decay steps of these.
_NEEDS_KWARGS = ("cosine_with_min_lr", "warmup_stable_decay")


def check_config(target: str, config: Config) -> None:
    """Raise ExportError for a config that lacks what training needs."""
    training, lora, model = section(config, "training"), section(config, "lora"), section(config, "model")
    missing = [f"training.{name}" for name in _NEEDED if training.get(name) is None]
    missing += [
        f"lora.{name}" for name in ("lora_r", "lora_alpha", "target_modules") if lora.get(name) is None
    ]
    missing += ["model.name"] if not model.get("name") else []
    if missing:
        raise ExportError(f"the {target} target needs {', '.join(missing)}, and the config has none")
    for name in ("modules_to_save", "trainable_token_indices"):
        if lora.get(name) and training.get("embedding_learning_rate") is None:
            raise ExportError(f"the config trains embeddings ({name}) but has no embedding_learning_rate")
    scheduler = training["lr_scheduler_type"]
    if scheduler in _NEEDS_KWARGS and not training.get("lr_scheduler_kwargs"):
        raise ExportError(f"the schedule {scheduler} needs lr_scheduler_kwargs, and the config has none")


def effective_batch_size(config: Config) -> int:
    """Examples per optimizer step over all devices; the sweep trained on one."""
    training = section(config, "training")
    return int(training["per_device_train_batch_size"]) * int(training["gradient_accumulation_steps"])


def trainer_facts(config: Config) -> dict[str, FactExport]:
    """Facts that TrainingArguments express, for every trainer built on transformers' Trainer."""
    training = section(config, "training")
    batch = ("per_device_train_batch_size", "gradient_accumulation_steps")
    named = ("learning_rate", "max_steps", "weight_decay", "max_grad_norm", "seed", "optim")
    facts = {name: FactExport(settings={name: training.get(name)}) for name in (*named, *_ADAM)}
    facts["lr_scheduler"] = as_settings(
        lr_scheduler_type=training["lr_scheduler_type"],
        lr_scheduler_kwargs=training.get("lr_scheduler_kwargs") or None,
    )
    # In whole steps: some versions read a ratio as a number of steps, others refuse it.
    facts["warmup_steps"] = as_settings(warmup_steps=int(training.get("warmup_steps") or 0))
    facts["batch_size"] = as_settings(**{name: training[name] for name in batch})
    facts["embedding_optimizer_bits"] = not_expressed(
        "The sweep kept the moments of trained embeddings in 8 bits; here they are kept in 32, at 8 bytes a "
        "parameter instead of 2."
    )
    return facts


def script_facts(config: Config) -> dict[str, FactExport]:
    """Facts that the script itself expresses: the data, the base, the study."""
    data, quantization = section(config, "data"), section(config, "quantization")
    no_length = "The sweep recorded no max_length; the script cuts examples at 1024 tokens."
    no_mask = "The sweep did not record whether the prompt carries loss; the script leaves the prompt out."
    no_kind = "The sweep recorded no quantization; the script loads the base in NF4 as QLoRA does."
    no_share = "The sweep did not record what it held out; the script holds out 5% by content hash."
    held_out = any(data.get(name) is not None for name in ("eval", "eval_split", "eval_fraction"))

    def here(constant: str, recorded: bool = True, if_not: str = "") -> FactExport:
        return written_in(f"{SCRIPT}: {constant}", lost="" if recorded else if_not)

    return {
        "model": here("MODEL"),
        "revision": here("REVISION"),
        "trust_remote_code": here("trust_remote_code"),
        "model_class": here("load_model"),
        "quantization": written_in(f"{SCRIPT}: QUANTIZATION", lost=INT8_ROUNDING)
        if quantization.get("load_in_8bit")
        else here("QUANTIZATION", quantization.get("load_in_4bit") is not None, no_kind),
        "compute_dtype": here("COMPUTE_DTYPE"),
        **dict.fromkeys(_IN_LORA, here("LORA")),
        "trained_embeddings_dtype": here("load_model"),
        "embedding_learning_rate": here("EMBEDDING_LEARNING_RATE"),
        "train_data": here("TRAIN_DATA"),
        "held_out": here("EVAL_DATA, SELECTION", held_out, no_share),
        # When it was not recorded, it is detected again from the records.
        "data_format": here("DATA_FORMAT"),
        "max_length": here("MAX_LENGTH", data.get("max_length") is not None, no_length),
        "completion_only": here("COMPLETION_ONLY", data.get("completion_only") is not None, no_mask),
        "chat_template": here("CHAT_TEMPLATE"),
        "max_train_examples": here("SELECTION"),
        **{form_fact_name(form): written_in(f"{SCRIPT}: {PACKAGE}") for form in FORMS},
        "study": written_in("head of the files"),
        "versions": written_in("head of the files"),
    }


def script_notes(config: Config, settings: str) -> list[str]:
    """What a user of the script should know although nothing is lost."""
    notes = [
        f"The folder {PACKAGE} beside the script is the sweep's own data code; keep both together.",
        "Data order, dropout masks and LoRA's first weights come from the Trainer's and torch's own "
        "generators, so a run ends near the sweep's loss, not at it.",
        "The Trainer starts an epoch with a new batch, the sweep fills the last batch of an epoch from "
        "the next.",
        *revision_notes(config),
    ]
    if trains_embeddings(config):
        notes.append(
            f"{settings} alone cannot hold the embedding learning rate: used without this script, the "
            "embeddings would train at the main rate."
        )
    return notes


def script_constants(config: Config, lora_names: Sequence[str] = ()) -> dict[str, str]:
    """The constants at the head of the script, as Python source; `lora_names` limits LORA to these names."""
    model = section(config, "model")
    training, lora, data = section(config, "training"), section(config, "lora"), section(config, "data")
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
    if lora_names:
        lora_arguments = {name: value for name, value in lora_arguments.items() if name in lora_names}
    quantization = quantization_arguments(config)
    selection = {name: data[name] for name in _SELECTION if data.get(name) is not None}
    if "max_eval_examples" in data:
        selection["max_eval_examples"] = data["max_eval_examples"]  # None means all and is not the default
    return {
        "MODEL": python_literal(model["name"]),
        "REVISION": python_literal(model.get("revision")),
        "COMPUTE_DTYPE": f"torch.{dtype_name(config)}",
        "QUANTIZATION": python_dict(quantization) if quantization else "None",
        "LORA": python_dict(lora_arguments),
        "EMBEDDING_LEARNING_RATE": python_literal(training.get("embedding_learning_rate")),
        "TRAIN_DATA": python_literal(data.get("train")),
        "EVAL_DATA": python_literal(data.get("eval")),
        "DATA_FORMAT": python_literal(data["format"] if data.get("format") in DATA_FORMATS else None),
        "MAX_LENGTH": python_literal(data.get("max_length") or DEFAULT_MAX_LENGTH),
        "COMPLETION_ONLY": python_literal(data.get("completion_only") is not False),
        "CHAT_TEMPLATE": multiline_literal(data.get("chat_template") or None),
        "SELECTION": python_dict(selection),
        "TRAIN_DIGEST": python_literal(data.get("train_digest")),
        "EVAL_DIGEST": python_literal(data.get("eval_digest")),
        # Micro-batch x accumulation x processes; the learning rates were found for this product.
        "EFFECTIVE_BATCH_SIZE": python_literal(effective_batch_size(config)),
    }


def script_draft(
    config: Config,
    facts: Mapping[str, FactExport],
    *,
    template: str,
    settings: str,
    title: str,
    fixed: Mapping[str, Any],
    notes: Sequence[str],
    values: Mapping[str, str] | None = None,
    **more: Any,
) -> ExportDraft:
    """A script with the constants `values`, and its settings file; no fact decides the `fixed` settings."""
    lossy = lossy_sentences(config, facts)
    keys = {"output_dir": "output", **settings_of(config, facts), **fixed}
    values = values or script_constants(config)
    script = render_template(
        template,
        provenance="\n".join(wrap_text(line) for line in provenance_lines(config)),
        lossy=bullet_list(lossy),
        notes=bullet_list(notes),
        settings="\n".join(f"{name} = {value}" for name, value in values.items()),
        trusted=section(config, "model").get("trust_remote_code") is True,
        model_class=auto_class(config),
        **more,
    )
    only_in_script = [
        fact.description
        for fact in facts_of(config)
        if facts[fact.name].location.startswith(SCRIPT) and not facts[fact.name].settings
    ]
    beside = [f"Not expressed here, but by {SCRIPT}: {', '.join(only_in_script)}."] if only_in_script else []
    product = f"Examples per step: {effective_batch_size(config)} = per device x accumulation x 1 device."
    return ExportDraft(
        files={
            SCRIPT: script,
            settings: settings_file_text(title, config, keys, lossy, [product, *beside]),
            **bundled_data_code(),
        },
        facts=facts,
        notes=list(notes),
        check=check_compiles,
    )


def check_compiles(folder: Path) -> None:
    """Raise ExportError when a written script is not valid Python."""
    for file in sorted(folder.glob("*.py")):
        try:
            compile(file.read_text(encoding="utf-8"), file.name, "exec")
        except (SyntaxError, ValueError) as error:
            raise ExportError(f"the exported {file.name} is not valid Python: {error}") from error
