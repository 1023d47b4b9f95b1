"""Whether a worker's base is the one that a study began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WEIGHTS = "weights"
"""In a sweep's identity: the digest of its base's weights, None while nobody has read them."""
BASE_WEIGHTS, BASE_EVAL_LOSS, BASE_METRIC = "base_weights", "base_eval_loss", "base_metric"
"""User attributes of a study: that digest, and the base's loss and metric before any training.

They belong to the identity, but stand apart from it: a study from before there were digests gets one when it
is next opened, and one of a hub id once a worker has read its weights.
"""
LOSS_NOISE = {"float32": 1e-3, "bfloat16": 1e-2}
"""Share by which the untouched base's loss may differ between machines, by compute dtype.

Kernels add up in other orders and round other ties where they quantise; over a whole evaluation set that
stays far below one rounding of the dtype, for float32 below that of the quantised weights. Other weights of
one architecture lie far above: a fine-tune moves this loss by percents."""


def base_difference(
    study: Mapping[str, Any], *, weights: str | None, base_eval_loss: float, compute_dtype: str
) -> str | None:
    """What tells a worker's base from the study's, with both values; None when nothing does.

    `study` are its user attributes; what one of the two does not know is not compared.
    """
    known = study.get(BASE_WEIGHTS)
    if known is not None and weights is not None and known != weights:
        return f"the weights have digest {weights}, the study's base {known}"
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
