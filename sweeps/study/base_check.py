"""Check that a worker has loaded the same base model as the study's earlier workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from lora_runner.protocol import BaseSamples, UnquantizedBase

WEIGHTS = "weights"
"""Key in a sweep's identity: the digest of the base's weights, None until they have been read."""
BASE_WEIGHTS, BASE_EVAL_LOSS, BASE_METRIC = "base_weights", "base_eval_loss", "base_metric"
BASE_SAMPLES = "base_samples"
"""User attributes of a study: that digest, the untouched base's loss and metric, and what it writes.

The digest belongs to the identity but is kept apart from it, because it may come later: for a study older
than digests when it is next opened, for a hub id when a worker has read the weights.
"""
BASE_UNQUANTIZED = "base_unquantized"
"""User attribute: `eval_loss` of the base without quantization, or the `reason` why it was not measured."""
LOSS_NOISE = {"float32": 1e-3, "bfloat16": 1e-2}
"""Share by which the untouched base's loss may differ between machines, by compute dtype.

Kernels sum in different orders and round ties differently when they quantize. Over a whole evaluation set the
effect is far below one rounding step of the dtype (for float32, of the quantized weights). Other weights
differ by far more: a fine-tune changes this loss by percents."""


def record_base(
    study: optuna.Study, eval_loss: float, weights: str | None, samples: BaseSamples | None
) -> None:
    """Write into the study what it does not hold yet of the untouched base."""
    for name, value in (
        (BASE_EVAL_LOSS, eval_loss),
        (BASE_WEIGHTS, weights),
        (BASE_SAMPLES, None if samples is None else samples.to_dict()),
    ):
        if value is not None and study.user_attrs.get(name) is None:
            study.set_user_attr(name, value)


def record_unquantized(study: optuna.Study, found: UnquantizedBase) -> None:
    """Write into the study what was found of the base without quantization."""
    study.set_user_attr(BASE_UNQUANTIZED, {"eval_loss": found.loss, "reason": found.reason})


def base_difference(
    study: Mapping[str, Any], *, weights: str | None, base_eval_loss: float, compute_dtype: str
) -> str | None:
    """How a worker's base differs from the study's, with both values; None if it does not.

    `study` are its user attributes. A value that either side lacks is not compared.
    """
    known = study.get(BASE_WEIGHTS)
    if known is not None and weights is not None and known != weights:
        return f"the weights have digest {weights}, the study's base has {known}"
    loss = study.get(BASE_EVAL_LOSS)
    if loss is None:
        return None
    noise = LOSS_NOISE.get(compute_dtype, max(LOSS_NOISE.values()))
    if abs(base_eval_loss - loss) <= noise * abs(loss):
        return None
    return (
        f"the untouched base has evaluation loss {base_eval_loss:.6f}, the study's {loss:.6f}, more than "
        f"{noise:.1%} apart"
    )
