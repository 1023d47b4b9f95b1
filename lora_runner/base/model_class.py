"""Which of transformers' Auto classes loads a model."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig

from lora_runner.errors import ModelError


def model_class(config: PreTrainedConfig, name: str) -> Any:
    """AutoModelForCausalLM if it knows the type, so that Llama 4 is loaded without its vision tower.

    Otherwise AutoModelForImageTextToText (Qwen-VL, LLaVA, Mistral 3). Raises ModelError, with the model's
    `name`, for a type that neither knows.
    """
    if "AutoModelForCausalLM" in getattr(config, "auto_map", {}):
        return AutoModelForCausalLM
    for known in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in known._model_mapping:
            return known
    raise ModelError(
        f"model {name!r} is of type {config.model_type!r}, which holds no language model that transformers' "
        "AutoModelForCausalLM or AutoModelForImageTextToText could load"
    )
