"""A training script for TRL's SFTTrainer, with the YAML file that `trl sft --config` takes.

Keys read from TRL 0.18.2, 0.24.0 and 1.16.0 (trainer/sft_config.py, trainer/model_config.py).
"""

from __future__ import annotations

from pathlib import Path

from packaging.version import Version

from results.export.data_source import data_source
from results.export.facts import INT8_ROUNDS, dtype_name, section
from results.export.target import Config, Draft, FactExport, Target, by_code, by_keys
from results.export.training_script import (
    DEFAULT_MAX_LENGTH,
    check_config,
    draft_of,
    notes_of,
    said_by_script,
    trainer_arguments,
)

SETTINGS = "sft_config.yaml"
_NEW_KEYS = Version("0.24")
"""From here on: `dtype` instead of `torch_dtype`, and `datasets`."""

_FIXED = {
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "packing": False,
    "gradient_checkpointing": False,
    # The base is loaded in its compute dtype; TRL's default would put autocast on top.
    "bf16": False,
    "fp16": False,
}


def _model(config: Config, version: Version) -> dict[str, FactExport]:
    """TRL's ModelConfig: base, quantization, adapter."""
    model, lora = section(config, "model"), section(config, "lora")
    quantization = section(config, "quantization")
    alpha = lora["lora_alpha"]
    whole = float(alpha).is_integer()
    modules = lora["target_modules"]
    said = {
        "model": by_keys(model_name_or_path=model["name"]),
        "revision": by_keys(model_revision=model.get("revision")),
        "trust_remote_code": by_keys(trust_remote_code=True),
        "compute_dtype": by_keys(**{"dtype" if version >= _NEW_KEYS else "torch_dtype": dtype_name(config)}),
        "lora_r": by_keys(use_peft=True, lora_r=lora["lora_r"], lora_task_type="CAUSAL_LM"),
        "use_rslora": by_keys(use_rslora=bool(lora.get("use_rslora"))),
        "lora_dropout": by_keys(lora_dropout=lora.get("lora_dropout") or 0.0),
        "target_modules": by_keys(
            lora_target_modules=[modules] if isinstance(modules, str) else list(modules)
        ),
        "modules_to_save": by_keys(lora_modules_to_save=lora.get("modules_to_save")),
    }
    if whole:
        said["lora_alpha"] = by_keys(lora_alpha=int(alpha))
    if quantization.get("load_in_4bit") is not None:
        said["quantization"] = by_keys(
            load_in_4bit=bool(quantization["load_in_4bit"]),
            load_in_8bit=quantization.get("load_in_8bit"),
            bnb_4bit_quant_type=quantization.get("bnb_4bit_quant_type") or "nf4",
            use_bnb_nested_quant=quantization.get("bnb_4bit_use_double_quant") is not False,
            lost=INT8_ROUNDS if quantization.get("load_in_8bit") else "",
        )
    return said


def _data(config: Config, version: Version, script: dict[str, FactExport]) -> dict[str, FactExport]:
    """How TRL itself would read the records; the script reads them as the sweep did."""
    data = section(config, "data")
    format = data.get("format")
    said = {
        "max_length": FactExport(
            keys={"max_length": data.get("max_length") or DEFAULT_MAX_LENGTH}, lost=script["max_length"].lost
        )
    }
    source = data_source(data.get("train"))
    # TRL maps no ShareGPT roles and knows no alpaca records: only the script reads these.
    if version < _NEW_KEYS or source is None or format not in ("messages", "prompt_completion", "text"):
        return said
    entry = {
        "path": source.loader or source.name,
        "name": source.part,
        "data_files": source.name if source.loader else None,
        "split": data.get("train_split") or "train" if source.loader is None else "train",
    }
    said["train_data"] = by_keys(datasets=[{name: item for name, item in entry.items() if item is not None}])
    if data.get("completion_only") is not None and format != "text":
        key = "assistant_only_loss" if format == "messages" else "completion_only_loss"
        said["completion_only"] = FactExport(keys={key: bool(data["completion_only"])})
        said["data_format"] = by_code(SETTINGS + ": datasets")
    return said


def _draft(config: Config, adapter_folder: Path | None, version: Version | None) -> Draft:
    assert version is not None
    check_config("trl", config)
    script = said_by_script(config)
    said = script | trainer_arguments(config) | _model(config, version) | _data(config, version, script)
    return draft_of(
        config,
        said,
        template="train_trl.py.jinja",
        settings=SETTINGS,
        title=f"Settings of TRL's SFTConfig and ModelConfig (trl {version}), read by train.py.",
        fixed=_FIXED,
        notes=notes_of(config, SETTINGS),
        oldest="0.24" if version >= _NEW_KEYS else "0.18.2, < 0.24",
        mixture=version >= _NEW_KEYS,
    )


TARGET = Target(
    name="trl",
    summary="train.py for TRL's SFTTrainer, with sft_config.yaml",
    draft=_draft,
    package="trl",
    written_for="1.16.0",
    oldest="0.18.2",
    before="2",
)
