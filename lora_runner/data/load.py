"""A DataSpec and a tokenizer -> what a sweep trains and evaluates on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_runner.data.chat import resolve_chat_template
from lora_runner.data.formats import Example, convert
from lora_runner.data.reading import is_single_file, read_records
from lora_runner.data.spec import DataSpec
from lora_runner.data.tokenise import IGNORED, TokenizedExample, TokenizedSet, tokenise
from lora_runner.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class DataBundle:
    """The data of a sweep, the same for all of its trials."""

    train: TokenizedSet
    eval: TokenizedSet
    sample_prompts: tuple[tuple[int, ...], ...]
    """Token ids of the first evaluation examples up to their first token with loss; half of a text."""
    format: str
    """Format of the training records, as named or recognised."""


def load_data(spec: DataSpec, tokenizer: PreTrainedTokenizerBase) -> DataBundle:
    """Read, convert, split and tokenise the data of a sweep.

    The evaluation set is ordered and drawn by the hash of its records' content, so neither the order of a
    file nor the machine changes it (`eval.digest`). Training records equal to an evaluation record are left
    out. Raises DataError for anything unreadable or unfit, an evaluation set without a target token, an empty
    training set.
    """
    template = resolve_chat_template(spec.chat_template, tokenizer)
    name, train = convert(read_records(spec.train, split=spec.train_split), spec.format)
    if spec.eval is None and spec.eval_split is None:
        train, held_out = _split_off(train, spec)
        eval_source = f"{spec.train} ({spec.eval_fraction:.3g} of it by content hash)"
        num_eval_duplicates = 0
    else:
        eval_source = spec.eval if spec.eval is not None else spec.train
        if spec.eval_split is not None and is_single_file(eval_source):
            message = (
                f"eval_split {spec.eval_split!r} needs a folder or a hub id, a single file has no splits"
            )
            raise DataError(message, path=eval_source)
        held_out = convert(read_records(eval_source, split=spec.eval_split), spec.format)[1]
        distinct = list({example.content_key: example for example in held_out}.values())
        num_eval_duplicates = len(held_out) - len(distinct)
        held_out = _draw(distinct, spec.seed, spec.max_eval_examples)
        if spec.eval_split is not None:
            eval_source = f"{eval_source} (split {spec.eval_split})"

    known = {example.content_key for example in held_out}
    kept = [example for example in train if example.content_key not in known]
    if not kept:
        raise DataError(f"all {len(train)} training records are also in the evaluation set", path=spec.train)
    num_train_duplicates = len(train) - len(kept)
    if spec.max_train_examples is not None and spec.max_train_examples < len(kept):
        drawn = {id(example) for example in _draw(kept, spec.seed, spec.max_train_examples)}
        kept = [example for example in kept if id(example) in drawn]

    def tokenised(examples: list[Example], source: str, num_duplicates: int) -> TokenizedSet:
        return tokenise(
            examples,
            tokenizer,
            source=source,
            max_length=spec.max_length,
            completion_only=spec.completion_only,
            chat_template=template,
            num_duplicates=num_duplicates,
        )

    eval_set = tokenised(held_out, eval_source, num_eval_duplicates)
    _check_targets(eval_set, "evaluation", spec)
    train_set = tokenised(kept, spec.train, num_train_duplicates)
    _check_targets(train_set, "training", spec)
    prompts = tuple(_prompt(example) for example in eval_set.examples[: spec.num_sample_prompts])
    return DataBundle(train=train_set, eval=eval_set, sample_prompts=prompts, format=name)


def _split_off(examples: list[Example], spec: DataSpec) -> tuple[list[Example], list[Example]]:
    """Return (training, evaluation) examples: the distinct records with the smallest hashes evaluate.

    What `max_eval_examples` leaves over of the share trains. Copies of evaluation records go from both.
    """
    distinct = list({example.content_key: example for example in examples}.values())
    if len(distinct) < 2:
        raise DataError(
            "at least two different records are needed to hold one out for evaluation; give an eval file",
            path=spec.train,
        )
    share = max(1, round(len(distinct) * spec.eval_fraction))
    share = min(share, len(distinct) - 1, spec.max_eval_examples or len(distinct))
    held_out = _draw(distinct, spec.seed, share)
    chosen = {id(example) for example in held_out}
    return [example for example in examples if id(example) not in chosen], held_out


def _draw(examples: list[Example], seed: int, count: int | None) -> list[Example]:
    """Return up to `count` examples in the order of their seeded content hash."""
    return sorted(examples, key=lambda example: _rank(example, seed))[:count]


def _rank(example: Example, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{example.content_key}".encode()).digest()


def _check_targets(found: TokenizedSet, role: str, spec: DataSpec) -> None:
    if found.num_target_tokens:
        return
    cut = (
        f", {found.num_truncated} of them were cut at max_length {spec.max_length}"
        if found.num_truncated
        else ""
    )
    raise DataError(
        f"the {role} set must hold at least one token with loss, none of its {found.num_dropped} examples has"
        f" one{cut}; a completion or assistant turn must begin within max_length",
        path=found.source,
    )


def _prompt(example: TokenizedExample) -> tuple[int, ...]:
    first = next(position for position, label in enumerate(example.labels) if label != IGNORED)
    if first > 1:
        return tuple(example.input_ids[:first])
    return tuple(example.input_ids[: max(1, len(example.input_ids) // 2)])
