"""Seats saved as PEFT adapters, which `PeftModel.from_pretrained` loads on the original base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peft import LoraConfig
from safetensors.torch import save_file

from files_and_text.atomic_files import whole_folder
from files_and_text.trial_paths import ADAPTER_WEIGHTS
from lora_runner.base.target_modules import shortest_names

if TYPE_CHECKING:
    from lora_runner.pack.pack import Pack
    from lora_runner.pack.seat import Seat


def save_adapter(folder: Path, pack: Pack, seat: Seat) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`; trained matrices stay fp32.

    On a tied base a weight trained in full is written for both layers, so that every peft version loads both;
    rows of single tokens are written once, and peft uses them in both layers.
    """
    tensors = {}
    for name, parameter in seat.parameters.items():
        if ".lora_" in name:
            tensors[f"base_model.model.{name}.weight"] = parameter.cpu().contiguous()
    for module in pack.saved:
        weight = seat.saved[module.owner].cpu()
        if module.token_indices:
            tensors[f"base_model.model.{module.parameter_name}"] = weight
        else:
            # safetensors refuses two names for one tensor.
            tensors[f"base_model.model.{module.name}.weight"] = weight.clone() if module.tied_to else weight
    with whole_folder(folder) as temporary:
        save_file(tensors, temporary / ADAPTER_WEIGHTS)
        adapter_config(pack, seat).save_pretrained(str(temporary))


def adapter_config(pack: Pack, seat: Seat) -> LoraConfig:
    """The peft configuration of a seat's adapter, set for inference."""
    config = seat.config
    in_full = [module.name.rpartition(".")[2] for module in pack.saved if not module.token_indices]
    # peft finds the input embeddings and a tied output layer itself.
    tokens = next((list(module.token_indices) for module in pack.saved if module.token_indices), None)
    return LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=pack.base.spec.model,
        revision=pack.base.spec.revision,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        use_rslora=config.use_rslora,
        target_modules=shortest_names(pack.base.model, pack.target_names),
        modules_to_save=in_full or None,
        trainable_token_indices=tokens,
        bias="none",
        inference_mode=True,
    )
