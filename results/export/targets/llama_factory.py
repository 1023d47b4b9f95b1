"""A config for `llamafactory-cli train`, with the dataset_info.json that names the records.

Keys and behaviour read from llamafactory 0.9.5 (hparams/, data/parser.py, data/template.py,
data/processor/supervised.py, model/adapter.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

from results.export.config_values import Config, dtype_name, section
from results.export.data_source import DataSource, parse_data_source
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
    INT8_ROUNDING,
    check_config,
    effective_batch_size,
    trainer_facts,
)
from results.export.unsupported_forms import LLAMA_FACTORY, form_facts

FILE, DATASETS = "train.yaml", "dataset_info.json"
TRAIN, HELD_OUT = "sweep_train", "sweep_eval"
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
        "tags": {f"{name}_tag": name for name in ("role", "content", "user", "assistant", "system")},
    },
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations", "system": "system"}},
    "alpaca": {
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output"}
        | {"system": "system", "history": "history"},
    },
    "prompt_completion": {"formatting": "alpaca", "columns": {"prompt": "prompt", "response": "completion"}},
    "text": {"formatting": "alpaca", "columns": {"prompt": "text"}},
}


def _facts(config: Config) -> dict[str, FactExport]:
    model, lora, training = section(config, "model"), section(config, "lora"), section(config, "training")
    quantization, dtype = section(config, "quantization"), dtype_name(config)
    modules = lora["target_modules"]
    four_bit, in_8bit = quantization.get("load_in_4bit"), quantization.get("load_in_8bit")
    return (
        trainer_facts(config)
        | facts_of_both("LLaMA-Factory", config)
        | _records(config)
        | {
            "model": as_settings(
                model_name_or_path=model["name"],
                lost="OmegaConf, which reads this file, takes ${ in the name of the base for a reference."
                if "${" in str(model["name"])
                else "",
            ),
            "revision": as_settings(model_revision=model.get("revision")),
            "quantization": as_settings(
                quantization_bit=8 if in_8bit else None if four_bit is False else 4,
                quantization_method="bnb",
                quantization_type=quantization.get("bnb_4bit_quant_type") or "nf4",
                double_quantization=quantization.get("bnb_4bit_use_double_quant") is not False,
                lost=INT8_ROUNDING if in_8bit else "" if four_bit is not None else NO_QUANTIZATION,
            ),
            "compute_dtype": as_settings(bf16=dtype == "bfloat16", fp16=dtype == "float16"),
            "lora_r": as_settings(lora_rank=lora["lora_r"]),
            "use_rslora": as_settings(use_rslora=bool(lora.get("use_rslora"))),
            "target_modules": as_settings(lora_target="all" if modules == "all-linear" else _joined(modules)),
            "modules_to_save": as_settings(additional_target=_joined(lora.get("modules_to_save") or [])),
            "trainable_token_indices": not_expressed(
                "LLaMA-Factory trains no rows of single tokens: all embeddings stay frozen."
            ),
            "trained_embeddings_dtype": written_in("pure_bf16 is off: what is trained is kept in float32"),
            "embedding_learning_rate": not_expressed(
                f"LLaMA-Factory has no learning rate for embeddings: they train at "
                f"{training['learning_rate']} instead of {training.get('embedding_learning_rate')}."
                if lora.get("modules_to_save")
                else "LLaMA-Factory has no learning rate for embeddings."
            ),
        }
    )


def _joined(names: Any) -> str:
    return names if isinstance(names, str) else ",".join(str(name) for name in names)


def _records(config: Config) -> dict[str, FactExport]:
    data = section(config, "data")
    format = data.get("format")
    held_out = data.get("eval") is not None or data.get("eval_split") is not None
    difference = {
        None: NO_FORMAT,
        "prompt_completion": "The sweep ended a completion with the end-of-text token; LLaMA-Factory's "
        "`empty` template, which adds nothing to a prompt, leaves that token out too.",
        "alpaca": "Without a chat template of the tokenizer, alpaca records are written differently than in "
        "the sweep.",
        "messages": _SLOTS,
        "sharegpt": _SLOTS,
    }.get(format, "")
    # Only the pre-training stage takes text as it is.
    text = format == "text"
    template = "empty" if format in (None, "prompt_completion") else None
    return {
        "train_data": as_settings(
            dataset=TRAIN,
            lost=""
            if data.get("train")
            else f"The sweep recorded no training records; name yours in {DATASETS}.",
        ),
        "data_format": as_settings(stage="pt" if text else "sft", template=template, lost=difference),
        **(
            {
                "held_out": as_settings(
                    eval_dataset=HELD_OUT,
                    # Without it LLaMA-Factory reads the records and never evaluates.
                    do_eval=True,
                    per_device_eval_batch_size=section(config, "training")["per_device_train_batch_size"],
                    lost=evaluation_lost("LLaMA-Factory", config),
                )
            }
            if held_out
            else {}
        ),
        "max_length": as_settings(
            cutoff_len=data.get("max_length") or DEFAULT_MAX_LENGTH,
            lost=""
            if text and data.get("max_length")
            else "The sweep recorded no max_length; examples end at 1024 tokens."
            if text
            else "LLaMA-Factory shortens prompt and answer of a long example in proportion; the sweep cut "
            "its end.",
        ),
        "completion_only": written_in(f"{FILE}: stage")
        if text
        else as_settings(
            train_on_prompt=data.get("completion_only") is False,
            lost="" if data.get("completion_only") is not None else NO_MASK,
        ),
        **form_facts(LLAMA_FACTORY, DATASETS),
        "chat_template": not_expressed(
            "The sweep used a chat template of its own; LLaMA-Factory takes the tokenizer's, or one of "
            "its own by name."
        ),
    }


def _dataset(source: DataSource | None, split: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    shape = dict(_COLUMNS.get(str(data.get("format")), _COLUMNS["prompt_completion"]))
    if data.get("columns") is not None:
        # LLaMA-Factory fails on records that lack a column that is named here.
        shape["columns"] = {key: name for key, name in shape["columns"].items() if name in data["columns"]}
    if source is None:
        return {"file_name": "train.jsonl", **shape}
    if source.is_hub_id:
        subset = {} if source.subset is None else {"subset": source.subset}
        return {"hf_hub_url": source.name, **subset, "split": split or "train", **shape}
    return {"file_name": source.name, **shape}


def _build(config: Config, adapter_folder: Path | None, version: Version | None) -> ExportDraft:
    check_config("llama-factory", config)
    facts = _facts(config)
    lossy = lossy_sentences(config, facts)
    data = section(config, "data")
    train = parse_data_source(data.get("train"))
    datasets = {TRAIN: _dataset(train, data.get("train_split"), data)}
    if data.get("eval") is not None or data.get("eval_split") is not None:
        datasets[HELD_OUT] = _dataset(
            parse_data_source(data.get("eval")) or train, data.get("eval_split"), data
        )
    product = f"Examples per step: {effective_batch_size(config)} = per device x accumulation x 1 device."
    notes = [
        *notes_of_both("LLaMA-Factory", f"llamafactory {version}", config),
        "Run it in this folder, which holds dataset_info.json.",
    ]
    title = f"For `llamafactory-cli train {FILE}` in this folder (llamafactory {version})."
    keys = settings_of(config, facts) | _FIXED
    return ExportDraft(
        files={
            FILE: settings_file_text(title, config, keys, lossy, [product]),
            DATASETS: json.dumps(datasets, indent=2, ensure_ascii=False) + "\n",
        },
        facts=facts,
        notes=notes,
    )


TARGET = Target(
    name="llama-factory",
    summary="a config for llamafactory-cli train, with dataset_info.json",
    build=_build,
    reads_records=True,
    package="llamafactory",
    written_for="0.9.5",
    oldest="0.9.4",
    before="0.10",
)
