"""A config for `axolotl train`.

Keys and behaviour read from axolotl 0.21.0 (utils/schemas/, core/builders/base.py,
core/trainers/mixins/optimizer.py, loaders/) and 0.18.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packaging.version import Version

from results.export.data_source import data_source
from results.export.facts import OTHER_CLASS, dtype_name, revision_notes, section
from results.export.python_text import settings_yaml
from results.export.record_forms import AXOLOTL, notes_of_forms, said_of_forms
from results.export.target import Config, Draft, FactExport, Target, by_code, by_keys, keys_of, lossy_of, lost
from results.export.training_script import (
    DEFAULT_MAX_LENGTH,
    check_config,
    effective_batch_size,
    trainer_arguments,
)

FILE = "axolotl.yaml"
_HEAD = by_code("head of the file")

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


def _said(config: Config) -> dict[str, FactExport]:
    training, lora, model = section(config, "training"), section(config, "lora"), section(config, "model")
    said = trainer_arguments(config) | _base(config) | _records(config)
    warmup = int(training.get("warmup_steps") or 0)
    said |= {
        "model": by_keys(base_model=model["name"]),
        "revision": by_keys(revision_of_model=model.get("revision")),
        "trust_remote_code": by_keys(trust_remote_code=True),
        "model_class": lost(OTHER_CLASS),
        "lora_r": by_keys(lora_r=lora["lora_r"]),
        "lora_alpha": _whole_alpha(lora["lora_alpha"]),
        "use_rslora": by_keys(peft_use_rslora=bool(lora.get("use_rslora"))),
        "lora_dropout": by_keys(lora_dropout=lora.get("lora_dropout") or 0.0),
        "target_modules": by_keys(lora_target_linear=True)
        if lora["target_modules"] == "all-linear"
        else by_keys(lora_target_modules=lora["target_modules"]),
        "modules_to_save": by_keys(lora_modules_to_save=lora.get("modules_to_save")),
        "trainable_token_indices": by_keys(peft_trainable_token_indices=lora.get("trainable_token_indices")),
        "embedding_learning_rate": by_keys(embedding_lr=training.get("embedding_learning_rate")),
        "lr_scheduler": by_keys(
            lr_scheduler=training["lr_scheduler_type"],
            lr_scheduler_kwargs=training.get("lr_scheduler_kwargs") or None,
        ),
        "warmup_steps": by_keys(
            warmup_steps=warmup,
            lost="Axolotl makes 2 steps of a warmup of 1 step." if warmup == 1 else "",
        ),
        "batch_size": by_keys(
            micro_batch_size=training["per_device_train_batch_size"],
            gradient_accumulation_steps=training["gradient_accumulation_steps"],
        ),
        "optim": by_keys(optimizer=training.get("optim")),
        "study": _HEAD,
        "versions": _HEAD,
    }
    if training.get("embedding_learning_rate") == 0:
        said["embedding_learning_rate"] = lost(
            "Axolotl reads an embedding learning rate of 0 as none: the embeddings train at the main rate."
        )
    if training.get("weight_decay") and (lora.get("modules_to_save") or lora.get("trainable_token_indices")):
        said["weight_decay"] = by_keys(
            weight_decay=training["weight_decay"],
            lost="The sweep decayed all that is trained; Axolotl never decays embeddings.",
        )
    if dtype_name(config) == "float32" or not lora.get("modules_to_save"):
        said["trained_embeddings_dtype"] = by_code("peft keeps them in float32")
    else:
        said["trained_embeddings_dtype"] = lost(
            f"The sweep kept trained embeddings in float32; Axolotl keeps them in {dtype_name(config)}, "
            "where a small rate is rounded away: this embedding learning rate was not found for that."
        )
    return said


def _whole_alpha(alpha: Any) -> FactExport:
    whole = float(alpha).is_integer()
    return by_keys(
        lora_alpha=max(1, round(float(alpha))),
        lost="" if whole else f"Alpha is a whole number to Axolotl; the sweep found {alpha}.",
    )


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
            keys={"load_in_4bit": True, **unusual},
            lost="The sweep's base is stored in int8; Axolotl's qlora adapter loads bases in 4 bits. Name "
            "the unquantised model, and expect another loss."
            if quantization.get("load_in_8bit")
            else "The sweep's base was not quantized; Axolotl's qlora adapter loads it in 4 bits."
            if four_bit is False
            else "The sweep recorded no quantization; the base is loaded in NF4 as QLoRA does."
            if four_bit is None
            else "",
        ),
        "compute_dtype": by_keys(bf16=dtype == "bfloat16", fp16=dtype == "float16"),
    }


def _records(config: Config) -> dict[str, FactExport]:
    """How Axolotl reads the records, and what it does otherwise."""
    data = section(config, "data")
    format = data.get("format") or "prompt_completion"
    source, held_out = data_source(data.get("train")), data_source(data.get("eval"))
    shape, otherwise = _shape(format)
    if data.get("format") is None:
        otherwise = "The sweep recorded no data format; records with prompt and completion are read."
    said = {
        "train_data": by_keys(
            datasets=[_dataset(source, data.get("train_split"), shape, config)],
            lost="" if source else "The sweep recorded no training records; put yours in as path.",
        ),
        "data_format": by_code(f"{FILE}: datasets", lost=otherwise),
        "max_length": by_keys(
            sequence_len=data.get("max_length") or DEFAULT_MAX_LENGTH,
            lost="" if data.get("max_length") else "The sweep recorded no max_length; examples end at 1024.",
        ),
        "completion_only": by_keys(
            train_on_inputs=data.get("completion_only") is False,
            lost=_mask_lost(data.get("completion_only"), format),
        ),
        "max_train_examples": lost(
            f"The sweep drew {data.get('max_train_examples')} training records by content hash; Axolotl "
            "takes all."
        ),
        "chat_template": by_code(f"{FILE}: datasets.chat_template"),
        **said_of_forms(AXOLOTL, f"{FILE}: datasets"),
        "held_out": lost(
            "The config names no evaluation data, so the records that the sweep held out are trained on too."
        ),
    }
    if data.get("chat_template") == "chatml":
        said["chat_template"] = by_code(
            f"{FILE}: datasets.chat_template",
            lost="The sweep used its own chatml template; Axolotl has another.",
        )
    if data.get("chat_template") and format not in ("messages", "sharegpt"):
        said["chat_template"] = lost(f"Axolotl applies no chat template to {format} records.")
    if held_out or data.get("eval_split"):
        entry = _dataset(held_out or source, data.get("eval_split"), shape, config)
        said["held_out"] = by_keys(test_datasets=[entry])
    return said


def _mask_lost(completion_only: bool | None, format: str) -> str:
    if completion_only is None:
        return "The sweep did not record whether the prompt carries loss; it is left out here."
    if not completion_only and format in ("messages", "sharegpt"):
        return "The sweep gave loss to every token; Axolotl leaves out the marks between the turns."
    return ""


def _shape(format: str) -> tuple[dict[str, Any], str]:
    """Keys of a dataset with records of this format, and what is read otherwise than in the sweep."""
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
        said = (
            "Axolotl writes alpaca records into a text of its own; the sweep took the tokenizer's chat "
            "template, or its own text without one."
        )
        return {"type": "alpaca"}, said
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
        entry |= {"name": source.part, "ds_type": source.loader}
    if "weight_0" in (section(config, "data").get("forms") or ()) and shape["type"] == "chat_template":
        entry["message_field_training"] = "weight"
    # A file has one split to datasets' loaders, and Axolotl has to be told its name.
    entry["split"] = split or "train" if source is not None and source.loader is None else "train"
    if template and shape["type"] == "chat_template":
        own = template == "chatml"
        entry["chat_template"] = "chatml" if own else "jinja"
        entry["chat_template_jinja"] = None if own else template
    return {name: item for name, item in (entry | shape).items() if item is not None}


def _draft(config: Config, adapter_folder: Path | None, version: Version | None) -> Draft:
    check_config("axolotl", config)
    said = _said(config)
    lossy = lossy_of(config, said)
    product = f"Examples per step: {effective_batch_size(config)} = micro batch x accumulation x 1 GPU."
    notes = [
        f"Written from the published keys of axolotl {version}; it needs a GPU and was not run by the sweep.",
        "Data order, dropout masks and LoRA's first weights are Axolotl's own, so a run ends near the "
        "sweep's loss, not at it.",
        *revision_notes(config),
    ]
    notes += notes_of_forms(config)
    keys = keys_of(config, said) | _FIXED
    title = f"For `axolotl train {FILE}` (axolotl {version})."
    return Draft(files={FILE: settings_yaml(title, config, keys, lossy, [product])}, said=said, notes=notes)


TARGET = Target(
    name="axolotl",
    summary="a config for axolotl train",
    draft=_draft,
    package="axolotl",
    written_for="0.21.0",
    oldest="0.18",
    before="0.22",
)
