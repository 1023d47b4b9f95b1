"""A training script for TRL's SFTTrainer, with the YAML file that `trl sft --config` takes.

Keys read from TRL 0.18.2, 0.24.0 and 1.16.0 (trainer/sft_config.py, trainer/model_config.py).
"""

from __future__ import annotations

from pathlib import Path

from packaging.version import Version

from results.export.config_values import Config, dtype_name, section
from results.export.data_source import parse_data_source
from results.export.target import ExportDraft, FactExport, Target, as_settings, written_in
from results.export.training_script import (
    DEFAULT_MAX_LENGTH,
    INT8_ROUNDING,
    check_config,
    script_draft,
    script_facts,
    script_notes,
    trainer_facts,
)

SETTINGS = "sft_config.yaml"
_NEW_KEYS = Version("0.24")
"""The first version with `dtype` instead of `torch_dtype`, and with `datasets`."""

_FIXED = {
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "packing": False,
    "gradient_checkpointing": False,
    # The base is loaded in its compute dtype; TRL's default would add autocast.
    "bf16": False,
    "fp16": False,
}


def _model(config: Config, version: Version) -> dict[str, FactExport]:
    """TRL's ModelConfig: base, quantization, adapter."""
    model, lora = section(config, "model"), section(config, "lora")
    quantization = section(config, "quantization")
    alpha = lora["lora_alpha"]
    dtype_key = "dtype" if version >= _NEW_KEYS else "torch_dtype"
    modules = lora["target_modules"]
    facts = {
        "model": as_settings(model_name_or_path=model["name"]),
        "revision": as_settings(model_revision=model.get("revision")),
        "trust_remote_code": as_settings(trust_remote_code=True),
        "compute_dtype": as_settings(**{dtype_key: dtype_name(config)}),
        "lora_r": as_settings(use_peft=True, lora_r=lora["lora_r"], lora_task_type="CAUSAL_LM"),
        "use_rslora": as_settings(use_rslora=bool(lora.get("use_rslora"))),
        "lora_dropout": as_settings(lora_dropout=lora.get("lora_dropout") or 0.0),
        "target_modules": as_settings(
            lora_target_modules=[modules] if isinstance(modules, str) else list(modules)
        ),
        "modules_to_save": as_settings(lora_modules_to_save=lora.get("modules_to_save")),
    }
    if float(alpha).is_integer():
        facts["lora_alpha"] = as_settings(lora_alpha=int(alpha))
    if quantization.get("load_in_4bit") is not None:
        facts["quantization"] = as_settings(
            load_in_4bit=bool(quantization["load_in_4bit"]),
            load_in_8bit=quantization.get("load_in_8bit"),
            bnb_4bit_quant_type=quantization.get("bnb_4bit_quant_type") or "nf4",
            use_bnb_nested_quant=quantization.get("bnb_4bit_use_double_quant") is not False,
            lost=INT8_ROUNDING if quantization.get("load_in_8bit") else "",
        )
    return facts


def _data(config: Config, version: Version, script: dict[str, FactExport]) -> dict[str, FactExport]:
    """How TRL itself would read the records; the script reads them as the sweep did."""
    data = section(config, "data")
    format = data.get("format")
    facts = {
        "max_length": FactExport(
            settings={"max_length": data.get("max_length") or DEFAULT_MAX_LENGTH},
            lost=script["max_length"].lost,
        )
    }
    source = parse_data_source(data.get("train"))
    # TRL maps no ShareGPT roles and knows no alpaca records: only the script reads these.
    if version < _NEW_KEYS or source is None or format not in ("messages", "prompt_completion", "text"):
        return facts
    entry = {
        "path": source.loader or source.name,
        "name": source.subset,
        "data_files": source.name if source.loader else None,
        "split": data.get("train_split") or "train" if source.loader is None else "train",
    }
    facts["train_data"] = as_settings(
        datasets=[{name: item for name, item in entry.items() if item is not None}]
    )
    if data.get("completion_only") is not None and format != "text":
        key = "assistant_only_loss" if format == "messages" else "completion_only_loss"
        facts["completion_only"] = FactExport(settings={key: bool(data["completion_only"])})
        facts["data_format"] = written_in(SETTINGS + ": datasets")
    return facts


def _build(config: Config, adapter_folder: Path | None, version: Version | None) -> ExportDraft:
    assert version is not None
    check_config("trl", config)
    script = script_facts(config)
    facts = script | trainer_facts(config) | _model(config, version) | _data(config, version, script)
    return script_draft(
        config,
        facts,
        template="train_trl.py.jinja",
        settings=SETTINGS,
        title=f"Settings of TRL's SFTConfig and ModelConfig (trl {version}), read by train.py.",
        fixed=_FIXED,
        notes=script_notes(config, SETTINGS),
        oldest="0.24" if version >= _NEW_KEYS else "0.18.2, < 0.24",
        mixture=version >= _NEW_KEYS,
    )


TARGET = Target(
    name="trl",
    summary="train.py for TRL's SFTTrainer, with sft_config.yaml",
    build=_build,
    package="trl",
    written_for="1.16.0",
    oldest="0.18.2",
    before="2",
)
