"""A config for `llamafactory-cli train`, with the dataset_info.json that names the records.

Keys and behaviour read from llamafactory 0.9.5 (hparams/, data/parser.py, data/template.py,
data/processor/supervised.py, model/adapter.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from packaging.version import Version

from results.export.data_source import DataSource, data_source
from results.export.facts import INT8_ROUNDS, OTHER_CLASS, dtype_name, revision_notes, section
from results.export.python_text import settings_yaml
from results.export.record_forms import LLAMA_FACTORY, notes_of_forms, said_of_forms
from results.export.target import Config, Draft, FactExport, Target, by_code, by_keys, keys_of, lossy_of, lost
from results.export.training_script import (
    DEFAULT_MAX_LENGTH,
    check_config,
    effective_batch_size,
    trainer_arguments,
)

FILE, DATASETS = "train.yaml", "dataset_info.json"
TRAIN, HELD_OUT = "sweep_train", "sweep_eval"
_HEAD = by_code("head of the file")
_SLOTS = (
    "LLaMA-Factory takes the chat template apart into one text per role; all that it prints after an answer "
    "has loss, such as a line break after its end."
)

_FIXED = {
    "do_train": True,
    "finetuning_type": "lora",
    "output_dir": "output",
    "dataset_dir": ".",
    "packing": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
}
_COLUMNS: dict[str, dict[str, Any]] = {
    "messages": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    },
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations", "system": "system"}},
    "alpaca": {
        "formatting": "alpaca",
        "columns": {
            "prompt": "instruction",
            "query": "input",
            "response": "output",
            "system": "system",
            "history": "history",
        },
    },
    "prompt_completion": {
        "formatting": "alpaca",
        "columns": {"prompt": "prompt", "response": "completion"},
    },
    "text": {"formatting": "alpaca", "columns": {"prompt": "text"}},
}


def _said(config: Config) -> dict[str, FactExport]:
    model, lora, training = section(config, "model"), section(config, "lora"), section(config, "training")
    quantization, dtype = section(config, "quantization"), dtype_name(config)
    modules, alpha = lora["target_modules"], lora["lora_alpha"]
    four_bit, in_8bit = quantization.get("load_in_4bit"), quantization.get("load_in_8bit")
    return (
        trainer_arguments(config)
        | _records(config)
        | {
            "model": by_keys(
                model_name_or_path=model["name"],
                lost="OmegaConf, which reads this file, takes ${ in the name of the base for a reference."
                if "${" in str(model["name"])
                else "",
            ),
            "revision": by_keys(model_revision=model.get("revision")),
            "trust_remote_code": by_keys(trust_remote_code=True),
            "model_class": lost(OTHER_CLASS),
            "quantization": by_keys(
                quantization_bit=8 if in_8bit else None if four_bit is False else 4,
                quantization_method="bnb",
                quantization_type=quantization.get("bnb_4bit_quant_type") or "nf4",
                double_quantization=quantization.get("bnb_4bit_use_double_quant") is not False,
                lost=INT8_ROUNDS
                if in_8bit
                else ""
                if four_bit is not None
                else "The sweep recorded no quantization; the base is loaded in NF4 as QLoRA does.",
            ),
            "compute_dtype": by_keys(bf16=dtype == "bfloat16", fp16=dtype == "float16"),
            "lora_r": by_keys(lora_rank=lora["lora_r"]),
            "lora_alpha": by_keys(
                lora_alpha=max(1, round(float(alpha))),
                lost=""
                if float(alpha).is_integer()
                else f"Alpha is a whole number to LLaMA-Factory; the sweep found {alpha}.",
            ),
            "use_rslora": by_keys(use_rslora=bool(lora.get("use_rslora"))),
            "lora_dropout": by_keys(lora_dropout=lora.get("lora_dropout") or 0.0),
            "target_modules": by_keys(lora_target="all" if modules == "all-linear" else _joined(modules)),
            "modules_to_save": by_keys(additional_target=_joined(lora.get("modules_to_save") or [])),
            "trainable_token_indices": lost(
                "LLaMA-Factory trains no rows of single tokens: all embeddings stay frozen."
            ),
            "trained_embeddings_dtype": by_code("pure_bf16 is off: what is trained is kept in float32"),
            "embedding_learning_rate": lost(
                f"LLaMA-Factory has no learning rate for embeddings: they train at "
                f"{training['learning_rate']} instead of {training.get('embedding_learning_rate')}."
                if lora.get("modules_to_save")
                else "LLaMA-Factory has no learning rate for embeddings."
            ),
            "study": _HEAD,
            "versions": _HEAD,
        }
    )


def _joined(names: Any) -> str:
    return names if isinstance(names, str) else ",".join(str(name) for name in names)


def _records(config: Config) -> dict[str, FactExport]:
    data = section(config, "data")
    format = data.get("format")
    held_out = data.get("eval") is not None or data.get("eval_split") is not None
    otherwise = {
        None: "The sweep recorded no data format; records with prompt and completion are read.",
        "prompt_completion": "The sweep ended a completion with the end-of-text token; LLaMA-Factory's "
        "`empty` template, which adds nothing to a prompt, leaves that token out too.",
        "alpaca": "Without a chat template of the tokenizer, alpaca records are written otherwise than in "
        "the sweep.",
        "messages": _SLOTS,
        "sharegpt": _SLOTS,
    }.get(format, "")
    # Only its pre-training stage takes a text as it is.
    text = format == "text"
    template = "empty" if format in (None, "prompt_completion") else None
    return {
        "train_data": by_keys(
            dataset=TRAIN,
            lost=""
            if data.get("train")
            else f"The sweep recorded no training records; name yours in {DATASETS}.",
        ),
        "data_format": by_keys(stage="pt" if text else "sft", template=template, lost=otherwise),
        "held_out": by_keys(eval_dataset=HELD_OUT)
        if held_out
        else lost(
            "The config names no evaluation data, so the records that the sweep held out are trained on too."
        ),
        "max_length": by_keys(
            cutoff_len=data.get("max_length") or DEFAULT_MAX_LENGTH,
            lost=""
            if text and data.get("max_length")
            else "The sweep recorded no max_length; examples end at 1024 tokens."
            if text
            else "LLaMA-Factory shortens prompt and answer of a long example in proportion; the sweep cut "
            "its end.",
        ),
        "completion_only": by_code(f"{FILE}: stage")
        if text
        else by_keys(
            train_on_prompt=data.get("completion_only") is False,
            lost=""
            if data.get("completion_only") is not None
            else "The sweep did not record whether the prompt carries loss; it is left out here.",
        ),
        **said_of_forms(LLAMA_FACTORY, DATASETS),
        "chat_template": lost(
            "The sweep used a chat template of its own; LLaMA-Factory takes the tokenizer's, or one of "
            "its own by name."
        ),
        "max_train_examples": lost(
            f"The sweep drew {data.get('max_train_examples')} training records by content hash; "
            "LLaMA-Factory takes all."
        ),
    }


def _dataset(source: DataSource | None, split: Any, format: str) -> dict[str, Any]:
    shape = _COLUMNS.get(format, _COLUMNS["prompt_completion"])
    if source is None:
        return {"file_name": "train.jsonl", **shape}
    if source.is_hub:
        part = {} if source.part is None else {"subset": source.part}
        return {"hf_hub_url": source.name, **part, "split": split or "train", **shape}
    return {"file_name": source.name, **shape}


def _draft(config: Config, adapter_folder: Path | None, version: Version | None) -> Draft:
    check_config("llama-factory", config)
    said = _said(config)
    lossy = lossy_of(config, said)
    data = section(config, "data")
    format, train = str(data.get("format")), data_source(data.get("train"))
    datasets = {TRAIN: _dataset(train, data.get("train_split"), format)}
    if data.get("eval") is not None or data.get("eval_split") is not None:
        datasets[HELD_OUT] = _dataset(data_source(data.get("eval")) or train, data.get("eval_split"), format)
    product = f"Examples per step: {effective_batch_size(config)} = per device x accumulation x 1 device."
    notes = [
        f"Written from the published keys of llamafactory {version}; it needs a GPU and was not "
        "run by the sweep.",
        "Run it in this folder, where dataset_info.json lies.",
        "Data order, dropout masks and LoRA's first weights are LLaMA-Factory's own, so a run ends near the "
        "sweep's loss, not at it.",
        *revision_notes(config),
    ]
    notes += notes_of_forms(config)
    title = f"For `llamafactory-cli train {FILE}` in this folder (llamafactory {version})."
    keys = keys_of(config, said) | _FIXED
    return Draft(
        files={
            FILE: settings_yaml(title, config, keys, lossy, [product]),
            DATASETS: json.dumps(datasets, indent=2, ensure_ascii=False) + "\n",
        },
        said=said,
        notes=notes,
    )


TARGET = Target(
    name="llama-factory",
    summary="a config for llamafactory-cli train, with dataset_info.json",
    draft=_draft,
    package="llamafactory",
    written_for="0.9.5",
    oldest="0.9.4",
    before="0.10",
)
