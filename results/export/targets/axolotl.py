"""A config for `axolotl train`.

Keys and behaviour read from axolotl 0.21.0 (utils/schemas/, core/builders/base.py,
core/trainers/mixins/optimizer.py, loaders/) and 0.18.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packaging.version import Version

from results.export.config_values import Config, dtype_name, section
from results.export.data_source import parse_data_source
from results.export.generated_text import settings_file_text
from results.export.settings_file import (
    NO_FORMAT,
    NO_MASK,
    NO_QUANTIZATION,
    evaluation_lost,
    facts_of_both,
    notes_of_both,
)
from results.export.target import (
    ExportDraft,
    FactExport,
    Target,
    as_settings,
    lossy_sentences,
    not_expressed,
    settings_of,
    written_in,
)
from results.export.training_script import (
    DEFAULT_MAX_LENGTH,
    check_config,
    effective_batch_size,
    trainer_facts,
)
from results.export.unsupported_forms import AXOLOTL, form_facts

FILE = "axolotl.yaml"

_FIXED = {
    "output_dir": "./output",
    "adapter": "qlora",
    "num_epochs": 1000.0,  # max_steps ends the run
    "sample_packing": False,
    "pad_to_sequence_len": False,
    "excess_length_strategy": "truncate",
    "val_set_size": 0.0,
    "logging_steps": 1,
    "save_strategy": "no",
}


def _facts(config: Config) -> dict[str, FactExport]:
    training, lora, model = section(config, "training"), section(config, "lora"), section(config, "model")
    facts = trainer_facts(config) | facts_of_both("Axolotl", config) | _base(config) | _records(config)
    warmup, tokens = int(training.get("warmup_steps") or 0), lora.get("trainable_token_indices")
    facts |= {
        "model": as_settings(base_model=model["name"]),
        "revision": as_settings(revision_of_model=model.get("revision")),
        "lora_r": as_settings(lora_r=lora["lora_r"]),
        "use_rslora": as_settings(peft_use_rslora=bool(lora.get("use_rslora"))),
        "target_modules": as_settings(lora_target_linear=True)
        if lora["target_modules"] == "all-linear"
        else as_settings(lora_target_modules=lora["target_modules"]),
        "modules_to_save": as_settings(lora_modules_to_save=lora.get("modules_to_save")),
        "trainable_token_indices": as_settings(
            peft_trainable_token_indices=lora.get("trainable_token_indices")
        ),
        "embedding_learning_rate": as_settings(embedding_lr=training.get("embedding_learning_rate")),
        "lr_scheduler": as_settings(
            lr_scheduler=training["lr_scheduler_type"],
            lr_scheduler_kwargs=training.get("lr_scheduler_kwargs") or None,
        ),
        "warmup_steps": as_settings(
            warmup_steps=warmup, lost="Axolotl makes 2 steps of a warmup of 1 step." if warmup == 1 else ""
        ),
        "batch_size": as_settings(
            micro_batch_size=training["per_device_train_batch_size"],
            gradient_accumulation_steps=training["gradient_accumulation_steps"],
        ),
        "optim": as_settings(optimizer=training.get("optim")),
    }
    if training.get("embedding_learning_rate") == 0:
        facts["embedding_learning_rate"] = not_expressed(
            "Axolotl reads an embedding learning rate of 0 as none: the embeddings train at the main rate."
        )
    if training.get("weight_decay") and (lora.get("modules_to_save") or tokens):
        facts["weight_decay"] = as_settings(
            weight_decay=training["weight_decay"],
            lost="The sweep decayed all that is trained; Axolotl never decays embeddings.",
        )
    if dtype_name(config) == "float32" or not lora.get("modules_to_save"):
        facts["trained_embeddings_dtype"] = written_in("peft keeps them in float32")
    else:
        facts["trained_embeddings_dtype"] = not_expressed(
            f"The sweep kept trained embeddings in float32; Axolotl keeps them in {dtype_name(config)}, "
            "where a small rate is rounded away: this embedding learning rate was not found for that."
        )
    return facts


def _base(config: Config) -> dict[str, FactExport]:
    quantization = section(config, "quantization")
    dtype = dtype_name(config)
    kind = quantization.get("bnb_4bit_quant_type") or "nf4"
    double = quantization.get("bnb_4bit_use_double_quant") is not False
    unusual = (
        {}
        if kind == "nf4" and double
        else {"bnb_config_kwargs": {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double}}
    )
    four_bit = quantization.get("load_in_4bit")
    return {
        "quantization": FactExport(
            settings={"load_in_4bit": True, **unusual},
            lost="The sweep's base is stored in int8; Axolotl's qlora adapter loads bases in 4 bits. Name "
            "the unquantized model, and expect another loss."
            if quantization.get("load_in_8bit")
            else "The sweep's base was not quantized; Axolotl's qlora adapter loads it in 4 bits."
            if four_bit is False
            else NO_QUANTIZATION
            if four_bit is None
            else "",
        ),
        "compute_dtype": as_settings(bf16=dtype == "bfloat16", fp16=dtype == "float16"),
    }


def _records(config: Config) -> dict[str, FactExport]:
    """How Axolotl reads the records, and what it does differently."""
    data = section(config, "data")
    format = data.get("format") or "prompt_completion"
    source, held_out = parse_data_source(data.get("train")), parse_data_source(data.get("eval"))
    shape, difference = _shape(format)
    if data.get("format") is None:
        difference = NO_FORMAT
    facts = {
        "train_data": as_settings(
            datasets=[_dataset(source, data.get("train_split"), shape, config)],
            lost="" if source else "The sweep recorded no training records; put yours in as path.",
        ),
        "data_format": written_in(f"{FILE}: datasets", lost=difference),
        "max_length": as_settings(
            sequence_len=data.get("max_length") or DEFAULT_MAX_LENGTH,
            lost="" if data.get("max_length") else "The sweep recorded no max_length; examples end at 1024.",
        ),
        "completion_only": as_settings(
            train_on_inputs=data.get("completion_only") is False,
            lost=_mask_lost(data.get("completion_only"), format),
        ),
        "chat_template": written_in(f"{FILE}: datasets.chat_template"),
        **form_facts(AXOLOTL, f"{FILE}: datasets"),
    }
    if data.get("chat_template") == "chatml":
        facts["chat_template"] = written_in(
            f"{FILE}: datasets.chat_template",
            lost="The sweep used its own chatml template; Axolotl has another.",
        )
    if data.get("chat_template") and format not in ("messages", "sharegpt"):
        facts["chat_template"] = not_expressed(f"Axolotl applies no chat template to {format} records.")
    if held_out or data.get("eval_split"):
        entry = _dataset(held_out or source, data.get("eval_split"), shape, config)
        facts["held_out"] = as_settings(
            test_datasets=[entry],
            # Without it Axolotl reads the records and never evaluates.
            eval_steps=section(config, "training")["max_steps"],
            lost=evaluation_lost("Axolotl", config),
        )
    return facts


def _mask_lost(completion_only: bool | None, format: str) -> str:
    if completion_only is None:
        return NO_MASK
    if not completion_only and format in ("messages", "sharegpt"):
        return "The sweep gave loss to every token; Axolotl leaves out the marks between the turns."
    return ""


def _shape(format: str) -> tuple[dict[str, Any], str]:
    """Keys of a dataset with records of this format, and what is read differently than in the sweep."""
    if format in ("messages", "sharegpt"):
        shape: dict[str, Any] = {
            "type": "chat_template",
            "roles_to_train": ["assistant"],
            "train_on_eos": "turn",
        }
        if format == "sharegpt":
            mappings = {"role": "from", "content": "value"}
            return shape | {"field_messages": "conversations", "message_property_mappings": mappings}, ""
        return shape | {"field_messages": "messages"}, ""
    if format == "text":
        return {"type": "completion", "field": "text"}, ""
    if format == "alpaca":
        difference = (
            "Axolotl writes alpaca records into a text of its own; the sweep took the tokenizer's chat "
            "template, or its own text without one."
        )
        return {"type": "alpaca"}, difference
    plain = {
        "field_instruction": "prompt",
        "field_output": "completion",
        "format": "{instruction}",
        "no_input_format": "{instruction}",
    }
    return {"type": plain}, ""


def _dataset(source: Any, split: Any, shape: dict[str, Any], config: Config) -> dict[str, Any]:
    template = section(config, "data").get("chat_template")
    entry: dict[str, Any] = {"path": source.name if source else "train.jsonl"}
    if source is not None:
        entry |= {"name": source.subset, "ds_type": source.loader}
    if "weight_0" in (section(config, "data").get("forms") or ()) and shape["type"] == "chat_template":
        entry["message_field_training"] = "weight"
    # datasets loads a file as one split, train, and Axolotl has to be told its name.
    entry["split"] = split or "train" if source is not None and source.loader is None else "train"
    if template and shape["type"] == "chat_template":
        own = template == "chatml"
        entry["chat_template"] = "chatml" if own else "jinja"
        entry["chat_template_jinja"] = None if own else template
    return {name: item for name, item in (entry | shape).items() if item is not None}


def _build(config: Config, adapter_folder: Path | None, version: Version | None) -> ExportDraft:
    check_config("axolotl", config)
    facts = _facts(config)
    lossy = lossy_sentences(config, facts)
    product = f"Examples per step: {effective_batch_size(config)} = micro batch x accumulation x 1 GPU."
    notes = [
        *notes_of_both("Axolotl", f"axolotl {version}", config),
        "Run it in this folder: its paths begin here.",
    ]
    keys = settings_of(config, facts) | _FIXED
    title = f"For `axolotl train {FILE}` in this folder (axolotl {version})."
    return ExportDraft(
        files={FILE: settings_file_text(title, config, keys, lossy, [product])}, facts=facts, notes=notes
    )


TARGET = Target(
    name="axolotl",
    summary="a config for axolotl train",
    build=_build,
    reads_records=True,
    package="axolotl",
    written_for="0.21.0",
    oldest="0.18",
    before="0.22",
)
