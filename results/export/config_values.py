"""What the targets read from a best config, with the defaults for what an older sweep did not record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.errors import ExportError

Config = Mapping[str, Any]
"""A best config: sections of plain data."""


def section(config: Config, name: str) -> Mapping[str, Any]:
    """A section of the best config; {} when it is absent."""
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}


def trains_embeddings(config: Config) -> bool:
    """Whether anything of the embeddings or the output layer is trained."""
    lora = section(config, "lora")
    return bool(lora.get("modules_to_save") or lora.get("trainable_token_indices"))


def dtype_name(config: Config) -> str:
    """The sweep's compute dtype as torch spells it; raises ExportError when it is unknown."""
    name = str(section(config, "quantization").get("bnb_4bit_compute_dtype")).removeprefix("torch.")
    if name not in ("bfloat16", "float16", "float32"):
        raise ExportError(f"the compute dtype must be bfloat16, float16 or float32; the config says {name!r}")
    return name


CAUSAL_LM = "AutoModelForCausalLM"


def auto_class(config: Config) -> str:
    """The auto class of transformers that loads the base; not `CAUSAL_LM` for a vision-language model."""
    return str(section(config, "model").get("class") or CAUSAL_LM)


def quantization_arguments(config: Config) -> dict[str, Any]:
    """Arguments of BitsAndBytesConfig without the compute dtype.

    {} for an unquantized base; QLoRA's NF4 when the sweep recorded nothing.
    """
    known = section(config, "quantization")
    modules = known.get("llm_int8_skip_modules")
    skipped = {} if modules is None else {"llm_int8_skip_modules": modules}
    if known.get("load_in_8bit"):
        return {"load_in_8bit": True, **skipped}
    if known.get("load_in_4bit") is False:
        return {}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": known.get("bnb_4bit_quant_type") or "nf4",
        "bnb_4bit_use_double_quant": known.get("bnb_4bit_use_double_quant") is not False,
        **skipped,
    }


def base_kind(config: Config) -> str:
    """ "NF4 base", "int8 base" or "unquantized base"."""
    arguments = quantization_arguments(config)
    if not arguments:
        return "unquantized base"
    return "int8 base" if "load_in_8bit" in arguments else f"{arguments['bnb_4bit_quant_type'].upper()} base"


def chat_template_text(config: Config) -> str | None:
    """The chat template that the sweep file set, as Jinja text; None where it set none, or where the best
    config of an earlier version names a file."""
    template = section(config, "data").get("chat_template")
    return str(template) if template and ("{{" in template or "{%" in template) else None


def revision_notes(config: Config) -> list[str]:
    """A note when the base comes from a hub and no revision is pinned."""
    model = section(config, "model")
    if model.get("revision") or Path(str(model.get("name") or "")).is_absolute():
        return []
    return ["The sweep pinned no revision of the base model: with another one the losses differ."]
