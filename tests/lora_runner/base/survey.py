"""A survey of architectures: each is packed and trained as transformers and peft train it, or refused.

`python -m tests.lora_runner.base.survey > docs/architectures.md` writes the page.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers.utils import logging as transformers_logging

from lora_runner.base.describe_adapters import describe_adapters
from lora_runner.base.load_model import BaseSpec, load_base, meta_model, nf4_config
from lora_runner.base.model_class import model_class
from lora_runner.base.model_structure import decoder_of
from lora_runner.config import TrialConfig
from lora_runner.errors import ModelError
from lora_runner.layout.pack_layout import Block
from lora_runner.memory.estimate import Workload, estimate
from lora_runner.pack.options import PackOptions
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat
from tests.conftest import save_tokenizer
from tests.lora_runner.base.architectures import ARCHITECTURES
from tests.lora_runner.memory.peak import peak_bytes

WORK = Workload(lora_r=4, batch_size=2, length=32)
"""Its memory is predicted and measured with two seats."""
LENGTHS = ((11, 14), (13, 9))
"""Tokens of the sequences of two trials: all different, but of one padded width."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result for one architecture."""

    name: str
    model: str
    """The class that transformers loads."""
    refused: str = ""
    """Why `sweeps plan` refuses it; the rest is then empty."""
    layout: str = ""
    adapters: tuple[str, ...] = ()
    """As printed by `sweeps plan`."""
    num_layers: int = 0
    num_zero_gradients: int = 0
    """Layers with an adapter whose gradient is zero."""
    by_block: tuple[str, ...] = ()
    """Classes of the modules that are called block by block."""
    difference: float = 0.0
    """Largest difference of a gradient from peft's, relative to that gradient's largest element."""
    is_exact: bool = False
    """Whether the bits of two trials' gradients are the same alone and together."""
    memory: float = 0.0
    """Predicted peak relative to the measured one."""
    memory_source: str = ""


def survey(name: str, folder: Path) -> Outcome:
    """Build, save, plan, load, pack and train one architecture in `folder`."""
    config = ARCHITECTURES[name]()
    torch.manual_seed(0)
    kind = model_class(config, name)
    plain = kind.from_config(config).float()
    with torch.no_grad():
        for parameter in plain.parameters():
            if parameter.dim() > 1:  # large enough for gradients beyond rounding
                parameter.normal_(std=0.1)
    plain.save_pretrained(folder)
    save_tokenizer(folder)
    spec, model = BaseSpec(model=str(folder)), type(plain).__name__
    try:
        predicted = estimate(spec, WORK)
    except ModelError as error:
        return Outcome(name=name, model=model, refused=str(error).replace(repr(str(folder)), name))
    pack = Pack(load_base(spec), PackOptions())
    seats, shares = [_seat(pack, seed) for seed in range(2)], [_share(seed) for seed in range(2)]
    alone = [_gradients(pack, [seats[i]], [shares[i]])[0] for i in range(2)]
    together = _gradients(pack, seats, shares)
    decoder = decoder_of(pack.model)
    return Outcome(
        name=name,
        model=model,
        layout=pack.layout,
        adapters=tuple(describe_adapters(meta_model(spec), "all-linear")),
        num_layers=len(pack.target_names),
        num_zero_gradients=sum(not alone[0][f"{layer}.lora_B"].any() for layer in pack.target_names),
        by_block=tuple(sorted({type(decoder.get_submodule(n)).__name__ for n in pack.called_by_block})),
        difference=_difference(folder, kind, pack.target_names, seats[0], shares[0], alone[0]),
        is_exact=all(
            torch.equal(mine[key], ours[key])
            for mine, ours in zip(alone, together, strict=True)
            for key in mine
        ),
        memory=predicted.total(2) / peak_bytes(load_base(spec), WORK, seats=2),
        memory_source=predicted.source,
    )


def _seat(pack: Pack, seed: int) -> Seat:
    """A seat as in the middle of training: no matrix is zero."""
    seat = pack.new_seat(TrialConfig(learning_rate=1e-3, max_steps=4, lora_r=4, lora_alpha=8, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    for name, matrix in seat.parameters.items():
        if name.endswith("lora_B"):
            matrix.copy_(torch.randn(matrix.shape, generator=generator) / 10)
    return seat


def _sequences(seed: int) -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(100 + seed)
    rows = [torch.randint(12, 256, (length,), generator=generator).tolist() for length in LENGTHS[seed]]
    return [(row, [-100] * 3 + row[3:]) for row in rows]


def _share(seed: int) -> MicroBatch:
    block = Block.of(_sequences(seed), torch.device("cpu"))
    return MicroBatch(block, block.num_tokens, block.num_targets)


def _gradients(pack: Pack, seats: list[Seat], shares: list[MicroBatch]) -> list[dict[str, Tensor]]:
    for seat in seats:
        seat.restart_window()
    pack.micro_step(dict(zip(seats, shares, strict=True)))
    return [{name: grad.clone() for name, grad in seat.gradients.items()} for seat in seats]


def _difference(
    folder: Path, kind: Any, targets: tuple[str, ...], seat: Seat, share: MicroBatch, ours: dict[str, Tensor]
) -> float:
    """The difference from transformers' model with peft's layers, one sequence at a time."""
    model = kind.from_pretrained(
        folder, quantization_config=nf4_config(torch.float32), dtype=torch.float32, device_map={"": "cpu"}
    )
    model.config.use_cache = False
    if hasattr(model.config, "rescale_every"):
        model.config.rescale_every = 0  # as in training mode
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=list(targets))
    model = get_peft_model(model, lora).eval()
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.training = True  # else bitsandbytes multiplies in bfloat16 on some CPUs
    theirs = {
        name.removeprefix("base_model.model.").removesuffix(".default.weight"): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert set(theirs) == set(ours)
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(seat.parameters[name])
    for ids, labels in _sequences(seat.seed):
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        loss = F.cross_entropy(logits, torch.tensor(labels[1:]), reduction="sum", ignore_index=-100)
        (loss / share.window_targets).backward()
    largest = max(float(grad.abs().max()) for grad in ours.values())
    return max(
        float((ours[name] - parameter.grad).abs().max())
        / max(float(parameter.grad.abs().max()), largest / 1000)
        for name, parameter in theirs.items()
    )


def page(outcomes: Iterable[Outcome]) -> str:
    """The page of the docs."""
    rows, adapters, refused = [], [], []
    for found in outcomes:
        if found.refused:
            refused.append(f"- {found.name} (`{found.model}`): {found.refused}")
            continue
        rows.append(
            f"| {found.name} | `{found.model}` | {found.layout.replace('_', ' ')} | {found.num_layers} "
            f"| {', '.join(f'`{kind}`' for kind in found.by_block) or '-'} "
            f"| {_as_peft(found.difference)} | {'same bits' if found.is_exact else 'other bits'} "
            f"| {_memory(found)} |"
        )
        if len(found.adapters) > 1:
            adapters.append(f"- {found.name}: {'; '.join(found.adapters)}.")
    return _PAGE.format(
        count=len(rows), rows="\n".join(rows), adapters="\n".join(adapters), refused="\n".join(refused)
    )


def _as_peft(difference: float) -> str:
    return next(
        (f"within {bound:.0e}" for bound in (1e-5, 1e-4) if difference < bound), f"{difference:.0e} off"
    )


def _memory(found: Outcome) -> str:
    source = "dry run" if found.memory_source == "peak from a dry run" else "estimated"
    off = abs(found.memory - 1)
    return f"{source}, " + next(
        (f"within {bound:.0%}" for bound in (0.05, 0.1) if off < bound), f"{off:.0%} off"
    )


_PAGE = """# Architectures

Tiny random models of transformers 5.23 (two layers, hidden size 64) in NF4 on a CPU, with `target_modules:
all-linear`. Generated by `python -m tests.lora_runner.base.survey > docs/architectures.md`;
`tests/lora_runner/base/test_architectures.py` checks every line.

- layout: *end to end* packs all sequences into one row without padding; *rectangular* pads each in a row of
  its own, for models whose attention bypasses transformers' attention interface or that mix tokens in other
  ways.
- layers: linear layers that get an adapter.
- block by block: modules with matrices of their own (routers, fused experts, mixers), called once for each
  trial. This keeps results bit-equal and costs kernel launches.
- as peft: the largest difference from the gradients of transformers and peft 0.21 with the same adapter,
  relative to the gradient's largest element.
- in a pack: whether a trial's gradients beside another trial have the same bits as alone.
- memory: the predicted peak of two seats against the measured one.

| architecture | class | layout | layers | block by block | as peft | in a pack | memory |
|---|---|---|---|---|---|---|---|
{rows}

## Parts without an adapter

`sweeps plan` prints the same for a sweep's own model.

{adapters}

## Refused

By `sweeps plan`, before anything is loaded:

{refused}
"""


def main() -> None:
    """Print the page."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)  # as in the test: the order of sums depends on it
    with tempfile.TemporaryDirectory() as folder:
        print(page(survey(name, Path(folder) / str(i)) for i, name in enumerate(ARCHITECTURES)), end="")


if __name__ == "__main__":
    main()
