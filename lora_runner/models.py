"""Loading a causal LM as the frozen base of a pack."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from lora_runner.errors import ModelError, first_line
from lora_runner.host_memory import keep_freed_memory
from lora_runner.liger import use_liger


@dataclass(frozen=True, kw_only=True)
class BaseSpec:
    """Which base to load, and how."""

    model: str
    """Hub id or local folder."""
    revision: str | None = None
    trust_remote_code: bool = False
    quantization: Literal["nf4", "none"] = "nf4"
    compute_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """auto: bfloat16 on CUDA, float32 on CPU."""
    device_map: Literal["auto"] | None = None
    """auto spreads a base too large for one GPU over several."""
    folder: str | None = None
    """Where the files of a local `model` lie on this machine, when not in the folder of that name."""

    @property
    def source(self) -> str:
        """What is read: `model` remains the name that adapters carry."""
        return self.folder or self.model


@dataclass(frozen=True)
class Base:
    """A loaded base: frozen, in evaluation mode, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    spec: BaseSpec
    compute_dtype: torch.dtype
    device: torch.device
    num_parameters: int
    """Parameters before quantisation."""
    kernels: str = "transformers' own layers"
    """Whose kernels norms, activations and rotary embeddings use, and why."""


def load_tokenizer(spec: BaseSpec) -> PreTrainedTokenizerBase:
    """The base's tokenizer; ModelError says why there is none."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            spec.source, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"no tokenizer can be loaded for {spec.model!r}: {first_line(error)}") from error
    return tokenizer


def load_base(spec: BaseSpec) -> Base:
    """Load and freeze a base, in NF4 with double quantisation (QLoRA, Dettmers et al., 2023) by default.

    Only safetensors weights are read. Raises ModelError with the reason.
    """
    check_weights(spec)
    num_parameters = count_parameters(spec)
    tokenizer = load_tokenizer(spec)
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    if device.type == "cpu":
        keep_freed_memory()
    dtype = resolve_dtype(spec.compute_dtype, device)
    quantization = {"quantization_config": nf4_config(dtype)} if spec.quantization == "nf4" else {}
    try:
        with _quiet_unless_watched():
            model, found = AutoModelForCausalLM.from_pretrained(
                spec.source,
                revision=spec.revision,
                trust_remote_code=spec.trust_remote_code,
                use_safetensors=True,
                dtype=dtype,
                device_map=spec.device_map or {"": device},
                output_loading_info=True,
                **quantization,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"model {spec.model!r} cannot be loaded: {first_line(error)}") from error
    _check_whole(model, spec, sorted(found["missing_keys"]))
    model.requires_grad_(False)
    model.eval()
    model.config.use_cache = False
    return Base(
        model=model,
        tokenizer=tokenizer,
        spec=spec,
        compute_dtype=dtype,
        device=device,
        num_parameters=num_parameters,
        kernels=use_liger(model, device),
    )


@contextmanager
def _quiet_unless_watched() -> Iterator[None]:
    """Without transformers' progress bars where no terminal would redraw them: in workers, pipes and logs."""
    if sys.stderr.isatty() or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def _check_whole(model: PreTrainedModel, spec: BaseSpec, missing: list[str]) -> None:
    """Refuse weights that are not those of the configuration; transformers fills gaps with random numbers."""
    if missing:
        raise ModelError(
            f"model {spec.model!r} lacks {len(missing)} of the weights that its config.json asks for, "
            f"such as {missing[0]}"
        )
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None and tuple(state.shape) != (module.out_features, module.in_features):
            raise ModelError(
                f"model {spec.model!r} has a weight {name} of shape {tuple(state.shape)}, its config.json "
                f"asks for {(module.out_features, module.in_features)}"
            )


def nf4_config(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """The 4-bit configuration of QLoRA: NF4, double quantisation."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA, float32 on CPU, where bfloat16 is slow unless the CPU has matrix units."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def check_weights(spec: BaseSpec) -> None:
    """Refuse a local folder without config.json or whole safetensors weights, before anything is loaded."""
    folder = Path(spec.source)
    if not folder.exists():
        if spec.source.startswith((".", "/", "~")):
            raise ModelError(f"model folder {spec.model!r} does not exist")
        return  # a hub id
    if not (folder / "config.json").is_file():
        raise ModelError(f"model folder {spec.model!r} has no config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        hint = (
            f"; {', '.join(pickled)} is a pickle and is not read, convert it to safetensors"
            if pickled
            else ""
        )
        raise ModelError(f"model folder {spec.model!r} has no weights (*.safetensors){hint}")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):  # reads the header and compares it with the file's size
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"weights {str(file)!r} are damaged: {first_line(error)}") from error


def count_parameters(spec: BaseSpec) -> int:
    """Parameters of the model, from its configuration alone; no weights are read or allocated."""
    model = meta_model(spec)
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def meta_model(spec: BaseSpec) -> PreTrainedModel:
    """The model's structure on the meta device: names and shapes without memory."""
    try:
        config = AutoConfig.from_pretrained(
            spec.source, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, trust_remote_code=spec.trust_remote_code
            )
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise ModelError(
            f"the configuration of {spec.model!r} cannot be loaded: {first_line(error)}"
        ) from error
    model.tie_weights()
    return model


def find_targets(model: nn.Module, target_modules: str | Sequence[str]) -> list[str]:
    """Names of the linear layers that get LoRA, in the model's own order, with peft's matching rules.

    `all-linear` takes every linear layer but the output layer; GPT-2's transposed `Conv1D` counts as one. A
    list matches full names or last components; any other string is a regular expression on the full name.
    Raises ModelError when an entry matches nothing.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    output = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    leaves = sorted({name.rpartition(".")[2] for name in linear})
    if target_modules == "all-linear":
        found = [name for name in linear if model.get_submodule(name) is not output]
        if not found:
            raise ModelError("target_modules all-linear matches nothing: the model has no linear layer")
        return found
    if isinstance(target_modules, str):
        try:
            found = [name for name in linear if re.fullmatch(target_modules, name)]
        except re.error as error:
            raise ModelError(
                f"target_modules {target_modules!r} is no regular expression: {error}"
            ) from error
        if not found:
            hint = (
                f" For every layer of that name, write [{target_modules}]."
                if target_modules in leaves
                else ""
            )
            raise ModelError(
                f"target_modules pattern {target_modules!r} matches the full name of no linear layer.{hint}"
            )
        return found
    if not target_modules:
        raise ModelError("target_modules is empty: name at least one layer, or all-linear")
    for target in target_modules:
        if not any(_matches(name, target) for name in linear):
            near = difflib.get_close_matches(target, leaves, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ModelError(
                f"target_modules entry {target!r} matches no linear layer.{hint} Known: {', '.join(leaves)}"
            )
    return [name for name in linear if any(_matches(name, target) for target in target_modules)]


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


@dataclass(frozen=True)
class SavedModules:
    """Which layers are trained in full beside LoRA (peft's `modules_to_save`), by their full names."""

    names: tuple[str, ...] = ()
    tied: bool = False
    """Embedding and output layer are one weight: one copy is trained and both use it."""
    token_indices: tuple[int, ...] = ()
    """Rising ids of the tokens whose rows alone are trained (`trainable_token_indices`); empty: all rows."""


def find_trained(
    model: PreTrainedModel,
    *,
    target_modules: str | Sequence[str],
    train_embeddings: bool | Sequence[str],
    trainable_token_indices: Sequence[int] = (),
) -> tuple[list[str], SavedModules]:
    """The layers that get LoRA, and those of which seats train their own copy or rows.

    `trainable_token_indices` concern the input embeddings, and a tied output layer with them, as in peft.
    Raises ModelError when a layer would be trained in two ways, or an id is none of the model's vocabulary.
    """
    targets = find_targets(model, target_modules)
    if not trainable_token_indices:
        saved, how = find_saved(model, train_embeddings), "in full (train_embeddings)"
    elif train_embeddings:
        raise ModelError(
            "trainable_token_indices cannot stand beside train_embeddings: train a few tokens or the layers"
        )
    else:
        indices = tuple(sorted(set(trainable_token_indices)))
        size = vocabulary_size(model)
        if beyond := [index for index in indices if not 0 <= index < size]:
            raise ModelError(
                f"trainable_token_indices are ids of the model's vocabulary, 0 to {size - 1}, got {beyond[0]}"
            )
        saved = replace(find_saved(model, ("embed_tokens",)), token_indices=indices)
        how = "by its tokens (trainable_token_indices)"
    if twice := sorted(set(targets) & set(saved.names)):
        raise ModelError(
            f"{', '.join(twice)} cannot be trained {how} and through LoRA (target_modules): choose one"
        )
    return targets, saved


def vocabulary_size(model: PreTrainedModel) -> int:
    """Tokens that the input embeddings have a row for; tokenizers may know fewer, or more."""
    return int(model.get_input_embeddings().weight.shape[0])


def find_saved(model: PreTrainedModel, wanted: bool | Sequence[str]) -> SavedModules:
    """Resolve `train_embeddings` (true: input embeddings and output layer) to module names.

    With tied embeddings both layers share the one trained copy, whichever of them was named, since training
    them apart would untie the model.
    """
    if not wanted:
        return SavedModules()
    modules: dict[str, nn.Module | None] = {
        "embed_tokens": model.get_input_embeddings(),
        "lm_head": model.get_output_embeddings(),
    }
    chosen = list(modules) if wanted is True else list(wanted)
    unknown = sorted(set(chosen) - set(modules))
    if unknown:
        raise ModelError(f"train_embeddings knows embed_tokens and lm_head, got {', '.join(unknown)}")
    head = modules["lm_head"]
    tied = head is not None and head.weight is modules["embed_tokens"].weight  # type: ignore[union-attr]
    if tied:
        chosen = list(modules)
    names = {id(module): name for name, module in model.named_modules()}
    return SavedModules(tuple(names[id(m)] for key in chosen if (m := modules[key]) is not None), tied)
