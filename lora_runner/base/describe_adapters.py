"""Which layers of a model get an adapter, and why others do not, as text for the plan and the study."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from files_and_text.numbers import plural
from lora_runner.base.model_structure import language_model_of
from lora_runner.base.target_modules import find_target_modules, untrainable_layers


def describe_adapters(model: PreTrainedModel, target_modules: str | Sequence[str]) -> list[str]:
    """How many layers get an adapter, then a sentence for each part that does not, with the reason.

    Raises ModelError when nothing matches `target_modules`.
    """
    part = "model" if language_model_of(model) is model else "language model"
    count = len(find_target_modules(model, target_modules))
    sentences = [f"on {plural(count, 'linear layer')} of the {part}"]
    by_reason: dict[str, list[str]] = {}
    for name, why in untrainable_layers(model).items():
        by_reason.setdefault(why.reason, []).append(name)
    sentences += [
        f"none on {plural(len(names), 'linear layer')}, such as {names[0]}, which {reason}"
        for reason, names in by_reason.items()
    ]
    if stacks := _stacks(language_model_of(model)):
        count = sum(size for _, size in stacks)
        sentences.append(
            f"none on {count:,} parameters in stacked weight matrices, such as {stacks[0][0]}: "
            "target_modules select linear layers only"
        )
    return sentences


def _stacks(model: nn.Module) -> list[tuple[str, int]]:
    """Parameters that hold several matrices, by name, and their sizes."""
    return [
        (f"{name}.{own}", parameter.numel())
        for name, module in model.named_modules()
        if not isinstance(module, nn.modules.conv._ConvNd)
        for own, parameter in module.named_parameters(recurse=False)
        if sum(side > 1 for side in parameter.shape) > 2
    ]
