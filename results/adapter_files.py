"""Check that a PEFT adapter folder is complete and that peft can read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from files_and_text.trial_paths import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from results.errors import AdapterFilesError


def check_adapter_files(folder: Path) -> dict[str, Any]:
    """Return `adapter_config.json` of a complete adapter folder, without loading a tensor.

    Raises AdapterFilesError when a file is missing, the config is no LoRA config, or the weights' file is
    shorter than its own header says (a truncated copy).
    """
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise AdapterFilesError(
                f"an adapter folder holds {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}; {folder / name} is missing"
            )
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterFilesError(f"{folder / ADAPTER_CONFIG} is not JSON: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise AdapterFilesError(f"{folder / ADAPTER_CONFIG} must describe a LoRA adapter (peft_type LORA)")
    _check_weights(folder / ADAPTER_WEIGHTS)
    return config


def _check_weights(path: Path) -> None:
    """The header is valid, names tensors, and describes exactly the bytes that follow it."""
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
    except SafetensorError as error:
        size = path.stat().st_size
        raise AdapterFilesError(
            f"{path} is not a complete safetensors file ({size} bytes): {error}"
        ) from None
    if not names:
        raise AdapterFilesError(f"an adapter has at least one tensor; {path} holds none")


def check_adapter_loads(folder: Path) -> int:
    """Read the adapter the way peft does, without its base model; return the number of tensors.

    Checked: the config is one that peft accepts, every LoRA A has its B of the same rank, every module in
    `modules_to_save` has its weights, every token in `trainable_token_indices` its row, every number is
    finite. Raises AdapterFilesError.
    """
    import torch
    from peft import PeftConfig
    from peft.utils.save_and_load import load_peft_weights

    check_adapter_files(folder)
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights: dict[str, torch.Tensor] = load_peft_weights(str(folder), device="cpu")
    except Exception as error:  # peft and safetensors raise many kinds of errors for a damaged file
        raise AdapterFilesError(f"peft cannot read the adapter in {folder}: {error}") from error
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterFilesError(f"the adapter in {folder} has a value that is not finite, in {name}")
        if ".lora_A." in name or name.endswith(".lora_A"):
            partner = weights.get(name.replace(".lora_A", ".lora_B"))
            if partner is None or partner.shape[1] != tensor.shape[0]:
                raise AdapterFilesError(f"the adapter in {folder} has no matching lora_B for {name}")
    for module in config.modules_to_save or ():
        if not any(f".{module}." in f".{name}." for name in weights):
            raise AdapterFilesError(f"the adapter in {folder} trains {module} but holds no weights of it")
    if indices := config.trainable_token_indices:
        # A list for the input embeddings, or one per layer by name; a tied layer has no rows of its own.
        wanted = {len(ids) for ids in (indices.values() if isinstance(indices, Mapping) else [indices])}
        rows = {len(t) for name, t in weights.items() if name.endswith(".trainable_tokens_delta")}
        if not rows or rows - wanted:
            raise AdapterFilesError(
                f"the adapter in {folder} trains {max(wanted)} tokens but holds {max(rows, default=0)} rows"
            )
    return len(weights)
