"""How a base's weights are quantized: as stored in its folder, or when they are loaded.

Weights quantized by bitsandbytes (NF4, FP4, with or without double quantization; int8) are used as they are.
Every other quantization is refused before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from lora_runner.errors import ModelError

BLOCK, NESTED_BLOCK = 64, 256
"""Weights per scale, and scales per scale of their own (bitsandbytes' defaults)."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""safetensors' names of the types of unquantized weights."""
INT8_STEPS = 127
"""Largest code of LLM.int8(): a row's scale divided by it is one step (Dettmers et al., 2022)."""

Kind = Literal["nf4", "nf4-single", "fp4", "fp4-double", "int8", "none"]


def _settings(kind: str, *, double: bool) -> dict[str, Any]:
    return {"load_in_4bit": True, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double}


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """The quantization of a base's linear layers."""

    name: Kind
    """nf4 is QLoRA's, with double quantization; nf4-single and fp4-double are less common."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of transformers' BitsAndBytesConfig except the compute dtype; empty for none."""
    is_stored: bool = False
    """The folder holds quantized weights; otherwise they are quantized when they are loaded."""

    def __bool__(self) -> bool:
        return self.name != "none"

    @property
    def is_double(self) -> bool:
        """Whether the scales are quantized too."""
        return bool(self.settings.get("bnb_4bit_use_double_quant"))

    @property
    def description(self) -> str:
        """As text, to follow "parameters"."""
        if not self:
            return "not quantized"
        kind = self.name.partition("-")[0]
        scales = "" if kind == "int8" else f" with {'double' if self.is_double else 'single'} quantization"
        return f"in {kind if kind == 'int8' else kind.upper()}{scales if self.is_stored else ''}" + (
            ", as the base is stored" if self.is_stored else ""
        )

    def bytes_of(self, shape: torch.Size) -> float:
        """Bytes of a weight (out, in) with its scales."""
        size = shape.numel()
        if self.name == "int8":
            return size + 4 * shape[0]
        scale = 1 + 4 / NESTED_BLOCK if self.is_double else 4
        return size * (0.5 + scale / BLOCK)

    def meta_weight(self, shape: torch.Size, dtype: torch.dtype) -> nn.Parameter:
        """A weight of `shape` on the meta device, in the tensors that bitsandbytes keeps for it."""
        meta = torch.device("meta")
        if self.name == "int8":
            weight = nn.Parameter(torch.empty(shape, dtype=torch.int8, device=meta), requires_grad=False)
            weight.SCB = torch.empty(shape[0], device=meta)  # type: ignore[attr-defined]
            return weight
        from bitsandbytes.functional import QuantState

        scales = -(-shape.numel() // BLOCK)
        nested = {
            "offset": torch.empty((), device=meta),
            "state2": QuantState(
                absmax=torch.empty(-(-scales // NESTED_BLOCK), device=meta),
                code=torch.empty(256, device=meta),
                blocksize=NESTED_BLOCK,
                dtype=torch.float32,
            ),
        }
        packed = torch.empty(-(-shape.numel() // 2), 1, dtype=torch.uint8, device=meta)
        weight = nn.Parameter(packed, requires_grad=False)
        weight.quant_state = QuantState(  # type: ignore[attr-defined]
            absmax=torch.empty(scales, dtype=torch.uint8 if self.is_double else torch.float32, device=meta),
            shape=shape,
            code=torch.empty(16, device=meta),
            blocksize=BLOCK,
            quant_type=self.settings["bnb_4bit_quant_type"],
            dtype=dtype,
            **(nested if self.is_double else {}),
        )
        return weight

    def layers(self, model: PreTrainedModel) -> dict[str, nn.Module]:
        """The quantized layers by full name, as transformers chooses them. The model is not changed."""
        if not self:
            return {}
        kept_out = HfQuantizer.get_modules_to_not_convert(
            model, self.settings.get("llm_int8_skip_modules"), model._keep_in_fp32_modules
        )
        return {
            name: module
            for name, module in model.named_modules()
            # Subclasses of nn.Linear are not replaced, since they may have a forward of their own.
            if (isinstance(module, Conv1D) or type(module) is nn.Linear)
            and should_convert_module(name, kept_out)
        }


NF4 = Quantization(name="nf4", settings=_settings("nf4", double=True))
NONE = Quantization(name="none")


def quantization_of(config: PreTrainedConfig, model: str, otherwise: Literal["nf4", "none"]) -> Quantization:
    """The quantization that a model's configuration names; `otherwise` where it names none.

    Raises ModelError, with what to use instead, for a quantization that is not supported.
    """
    stored = _stored(config)
    if stored is None:
        return NF4 if otherwise == "nf4" else NONE
    method = _method(stored)
    if method != "bitsandbytes":
        raise ModelError(
            f"model {model!r} is quantized with {_shown(method, stored)}, which is not supported. Name the "
            "folder or hub id of the unquantized model, which is loaded in NF4; quantized models must be "
            "those of bitsandbytes (NF4, FP4, int8)"
        )
    skipped = stored.get("llm_int8_skip_modules")
    skip = {"llm_int8_skip_modules": list(skipped)} if skipped is not None else {}
    if stored.get("load_in_8bit"):
        if stored.get("llm_int8_has_fp16_weight"):
            raise ModelError(
                f"model {model!r} is stored with llm_int8_has_fp16_weight, which keeps weights unquantized "
                "in layers of int8; name the folder of the unquantized model"
            )
        return Quantization(name="int8", settings={"load_in_8bit": True} | skip, is_stored=True)
    kind, double = stored.get("bnb_4bit_quant_type", "fp4"), bool(stored.get("bnb_4bit_use_double_quant"))
    names: dict[tuple[str, bool], Kind] = {
        ("nf4", True): "nf4",
        ("nf4", False): "nf4-single",
        ("fp4", False): "fp4",
        ("fp4", True): "fp4-double",
    }
    if not stored.get("load_in_4bit") or (kind, double) not in names:
        raise ModelError(
            f"model {model!r} has a quantization_config of bitsandbytes that says neither load_in_4bit "
            f"(nf4 or fp4) nor load_in_8bit: {dict(stored)}"
        )
    settings = _settings(kind, double=double) | skip
    return Quantization(name=names[kind, double], settings=settings, is_stored=True)


def _stored(config: PreTrainedConfig) -> Mapping[str, Any] | None:
    """What a configuration, or a part of it, says about quantization, under any of the usual keys."""
    parts = [config, *(part for part in vars(config).values() if isinstance(part, PreTrainedConfig))]
    for part in parts:
        for key in ("quantization_config", "compression_config", "quantization"):
            found: Any = getattr(part, key, None)
            found = found.to_dict() if hasattr(found, "to_dict") else found
            if isinstance(found, Mapping) and found:
                return found
    return None


def _method(stored: Mapping[str, Any]) -> str:
    if stored.get("load_in_4bit") or stored.get("load_in_8bit"):
        return "bitsandbytes"
    method = stored.get("quant_method")
    return str(getattr(method, "value", method) or stored.get("quant_algo") or stored.get("mode") or "")


def _shown(method: str, stored: Mapping[str, Any]) -> str:
    names = {"compressed-tensors": method, "hqq": "HQQ", "modelopt": "ModelOpt", "": "an unnamed method"}
    bits = stored.get("bits")
    return names.get(method, method.upper()) + (f" ({bits} bits)" if bits else "")


def dequantized_weight(layer: nn.Module) -> Tensor:
    """The weight (out, in) of a layer, dequantized if bitsandbytes quantized it.

    int8 weights are multiplied with their rows' scales. bitsandbytes' own layer would also round activations
    to 8 bits, depending on the whole batch and so on a trial's neighbours.
    """
    weight: Tensor = layer.weight  # type: ignore[assignment]
    state = getattr(weight, "quant_state", None)
    if state is not None:
        if weight.is_cuda and _in_one_launch(weight):
            out = weight.new_empty(state.shape, dtype=state.dtype)
            dequantize_into(out, layer)
            return out
        from bitsandbytes.functional import dequantize_4bit

        found: Tensor = dequantize_4bit(weight.data, state)
        return found
    if weight.dtype != torch.int8:
        return weight.detach()
    scales: Any = getattr(weight, "SCB", None)
    if scales is None:  # moved there by the layer's forward
        state_8bit: Any = layer.state
        scales = state_8bit.SCB
    rows: Tensor = scales / INT8_STEPS
    return weight.data * rows[:, None]


def dequantize_into(out: Tensor, *layers: nn.Module) -> None:
    """Write the `dequantized_weight` of layers to `out`, one below another, rounded to its dtype.

    `out` (sum of out, in) is contiguous. Weights in 4 bits on CUDA take no memory, and one launch together
    where they are quantized alike.
    """
    weights: list[Any] = [layer.weight for layer in layers]
    # The meta device stands for CUDA, whose memory a dry run measures.
    if all(weight.device.type in ("cuda", "meta") for weight in weights) and _in_one_launch(*weights):
        from lora_runner.kernels.dequantize import dequantize_4bit_into

        dequantize_4bit_into(out, *((weight.data, weight.quant_state) for weight in weights))
    elif len(layers) == 1:
        out.copy_(dequantized_weight(layers[0]))
    else:
        shapes = [getattr(weight, "quant_state", weight).shape for weight in weights]
        for layer, rows in zip(layers, out.split([shape[0] for shape in shapes]), strict=True):
            dequantize_into(rows, layer)


def _in_one_launch(*weights: Any) -> bool:
    if any(getattr(weight, "quant_state", None) is None for weight in weights):
        return False
    from lora_runner.kernels.dequantize import can_share_a_launch

    return can_share_a_launch([(weight, weight.quant_state) for weight in weights])
