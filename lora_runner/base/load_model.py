"""Loading a causal LM as the frozen base of a pack."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from lora_runner.base.host_memory import keep_freed_memory
from lora_runner.base.loading_progress import weights_counted
from lora_runner.base.model_class import model_class
from lora_runner.base.quantization import FLOATS, NF4, quantization_of
from lora_runner.base.weights_digest import tensor_types, weight_files, weights_digest
from lora_runner.errors import ModelError, first_line
from lora_runner.hub_files import hub_problem


@dataclass(frozen=True, kw_only=True)
class BaseSpec:
    """Which base to load, and how."""

    model: str
    """Hub id or local folder."""
    revision: str | None = None
    trust_remote_code: bool = False
    quantization: Literal["nf4", "none"] = "nf4"
    """Quantization of weights that are not quantized yet; others stay as they are."""
    compute_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """auto: bfloat16 on CUDA, float32 on CPU."""
    device_map: Literal["auto"] | None = None
    """auto spreads a base too large for one GPU over several."""
    folder: str | None = None
    """Local folder with the files of `model`, if it is not the folder of that name."""

    @property
    def source(self) -> str:
        """Folder or hub id to read; adapters still name `model`."""
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
    """Parameters before quantization."""
    weights: str | None = None
    """Their digest (`weights_digest.py`); None if they do not come from files."""


def local_folder(spec: BaseSpec) -> Path | None:
    """The folder with a base's files on this machine; None for a hub id that is not cached."""
    if Path(spec.source).is_dir():
        return Path(spec.source)
    try:
        found = try_to_load_from_cache(spec.source, "config.json", revision=spec.revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def base_digest(spec: BaseSpec) -> str | None:
    """`weights_digest` of a base; None for a hub id whose weights are not cached."""
    folder = local_folder(spec)
    if folder is None or not all(file.exists() for file in weight_files(folder)):
        return None
    return weights_digest(folder) if weight_files(folder) else None


def load_tokenizer(spec: BaseSpec) -> PreTrainedTokenizerBase:
    """The base's tokenizer. Raises ModelError with the reason."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            spec.source, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"no tokenizer can be loaded for {spec.model!r}: {first_line(error)}") from error
    return tokenizer


def load_base(spec: BaseSpec, loaded: Callable[[int, int], None] | None = None) -> Base:
    """Load and freeze a base, in NF4 with double quantization (QLoRA, Dettmers et al., 2023) by default.

    A base that bitsandbytes has quantized stays as it is. Only safetensors weights are read. `loaded` is
    called with the number of weights that are loaded and of all. Raises ModelError with the reason.
    """
    check_weights(spec)
    num_parameters = count_parameters(spec)
    config = _config(spec)  # of the whole model, which may nest the language model's
    kind = quantization_of(config, spec.model, spec.quantization)
    tokenizer = load_tokenizer(spec)
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    if device.type == "cpu":
        keep_freed_memory()
    dtype = resolve_dtype(spec.compute_dtype, device)
    quantization = {"quantization_config": nf4_config(dtype)} if kind and not kind.is_stored else {}
    try:
        with _no_progress_bar_without_terminal(), weights_counted(loaded):
            model, found = model_class(config, spec.model).from_pretrained(
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
    if kind.is_stored:
        _cast_unquantized(model, dtype)
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
        weights=base_digest(spec),
    )


def _cast_unquantized(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast what is not quantized; with stored quantized weights transformers does not."""
    kept = model._keep_in_fp32_modules_strict or ()
    for name, parameter in model.named_parameters():
        is_packed = hasattr(parameter, "quant_state")  # stored as floats, with bnb_4bit_quant_storage
        if parameter.is_floating_point() and not is_packed and not any(part in name for part in kept):
            parameter.data = parameter.data.to(dtype)


@contextmanager
def _no_progress_bar_without_terminal() -> Iterator[None]:
    """Without transformers' progress bars where there is no terminal: in workers, pipes and logs."""
    if sys.stderr.isatty() or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def _check_whole(model: PreTrainedModel, spec: BaseSpec, missing: list[str]) -> None:
    """Refuse weights that do not match the configuration; transformers would fill gaps randomly."""
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
    """The 4-bit configuration of QLoRA: NF4, double quantization."""
    return BitsAndBytesConfig(**NF4.settings, bnb_4bit_compute_dtype=compute_dtype)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA, float32 on CPU, where bfloat16 is slow unless the CPU has matrix units."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def check_weights(spec: BaseSpec) -> None:
    """Refuse a folder without config.json or whole safetensors weights, and a hub id that is not there."""
    folder = Path(spec.source)
    if not folder.exists():
        if spec.source.startswith((".", "/", "~")):
            raise ModelError(f"model folder {spec.model!r} does not exist")
        if (problem := hub_problem(spec.source, "model", spec.revision)) is not None:
            raise ModelError(problem)
        return
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
            with safe_open(file, framework="pt"):  # reads the header and checks the file's size
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"weights {str(file)!r} are damaged: {first_line(error)}") from error
    _check_types(folder, spec)


def _check_types(folder: Path, spec: BaseSpec) -> None:
    """Refuse quantized weights without a quantization config: their codes would be taken for weights."""
    text = (folder / "config.json").read_text(encoding="utf-8", errors="replace")
    if '"quantization' in text or '"compression_config' in text:
        return  # checked by `quantization_of`
    for file in weight_files(folder):
        for name, type_ in tensor_types(file).items() if file.is_file() else ():
            if name.endswith(".weight") and type_ not in FLOATS:
                raise ModelError(
                    f"model {spec.model!r} has a weight {name} of type {type_}, and its config.json names no "
                    "quantization; name the folder of the unquantized model"
                )


def count_parameters(spec: BaseSpec) -> int:
    """Parameters of the model, from its configuration alone; no weights are read or allocated."""
    return num_parameters_of(meta_model(spec))


def num_parameters_of(model: PreTrainedModel) -> int:
    """Parameters of an unquantized model; tied ones count once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def meta_model(spec: BaseSpec) -> PreTrainedModel:
    """The model on the meta device: names and shapes without memory.

    Raises ModelError also for an unsupported quantization (`quantization.py`).
    """
    try:
        config = _config(spec)
        quantization_of(config, spec.model, spec.quantization)
        with torch.device("meta"):
            model: PreTrainedModel = model_class(config, spec.model).from_config(
                config, trust_remote_code=spec.trust_remote_code
            )
    except ModelError:
        raise
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise ModelError(
            f"the configuration of {spec.model!r} cannot be loaded: {first_line(error)}"
        ) from error
    if hasattr(config, "quantization_config"):  # that of the whole model, if only a part is loaded
        model.config.quantization_config = config.quantization_config
    model.tie_weights()
    return model


def _config(spec: BaseSpec) -> PreTrainedConfig:
    return AutoConfig.from_pretrained(
        spec.source, revision=spec.revision, trust_remote_code=spec.trust_remote_code
    )


def vocabulary_size(model: PreTrainedModel) -> int:
    """Rows of the input embeddings; the tokenizer may have fewer tokens, or more."""
    return int(model.get_input_embeddings().weight.shape[0])
