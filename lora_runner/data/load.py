"""DataSpec and tokenizer -> the training and evaluation sets of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_runner.data.chat.chat_template import resolve_chat_template
from lora_runner.data.records.export_forms import FORMS, rendering_forms
from lora_runner.data.tokens.eval_prompts import EvalPrompt, eval_prompts
from lora_runner.data.tokens.tokenize import IGNORED, TokenizedExample, TokenizedSet, tokenize
from lora_runner.data.train_eval_split import RecordSet, split_records
from lora_runner.data.user_notices import (
    DataNotice,
    columns_notice,
    count_notices,
    merging_notice,
    refuse_mostly_lost,
    rendering_notices,
)
from lora_runner.data_spec import DataSpec
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
    """Format of the training records, named or recognized."""
    chat_template: str | None = None
    """Text of the template that rendered the conversations; None when there are none."""
    sample_answers: tuple[tuple[int, ...], ...] = ()
    """Token ids of what follows each of `sample_prompts`: the example's first answer, or the text's rest."""
    eval_prompts: tuple[EvalPrompt, ...] = ()
    """The first evaluation examples as prompts with their answers, as many as the metric uses."""
    columns_not_used: tuple[str, ...] = ()
    """Non-empty columns of the training records that are not read."""
    forms: tuple[str, ...] = ()
    """What other trainers read differently in it (`records/export_forms.py`), for exports."""

    @property
    def notices(self) -> tuple[DataNotice, ...]:
        """What the user should know: lost records and tokens, and anything that looks wrong."""
        return (
            *count_notices(self.train.counts, "training"),
            *count_notices(self.eval.counts, "evaluation"),
            *merging_notice(self.train.counts, self.eval.counts),
            *rendering_notices(self.train.rendering, "training"),
            *rendering_notices(self.eval.rendering, "evaluation"),
            *columns_notice(self.columns_not_used),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Texts of the notices that call for a change."""
        return tuple(notice.text for notice in self.notices if notice.is_warning)

    def account(self) -> dict[str, Any]:
        """Counts and notices as plain values, for JSON and the study."""
        return {
            "train": self.train.counts.as_dict(),
            "eval": self.eval.counts.as_dict(),
            "rendering": {"train": self.train.rendering.as_dict(), "eval": self.eval.rendering.as_dict()},
            "columns_not_used": list(self.columns_not_used),
            "notices": [notice.text for notice in self.notices if not notice.is_warning],
            "warnings": list(self.warnings),
        }


def load_data(spec: DataSpec, tokenizer: PreTrainedTokenizerBase, *, num_prompts: int = 0) -> DataBundle:
    """Read, convert, split and tokenize the data of a sweep; `split_records` decides what each record is for.

    For a metric, `num_prompts` evaluation examples are kept as prompts with their records.

    Raises DataError for unreadable or unusable data, an empty training set, and an evaluation set of which
    `max_length` cuts off more than half.
    """
    template = resolve_chat_template(spec.chat_template, tokenizer)
    train, evaluation = split_records(spec)

    def tokenize_set(found: RecordSet) -> TokenizedSet:
        return tokenize(
            found.order,
            tokenizer,
            source=found.source,
            max_length=spec.max_length,
            completion_only=spec.completion_only,
            chat_template=template,
            statuses=found.num_by_status,
        )

    eval_set = tokenize_set(evaluation)
    _check_targets(eval_set, "evaluation", spec)
    train_set = tokenize_set(train)
    _check_targets(train_set, "training", spec)
    refuse_mostly_lost(eval_set.counts, eval_set.source, train_set.counts)
    conversations = template if any(example.messages is not None for example in train.order) else None
    rendering = train_set.rendering
    printed = rendering_forms(conversations, rendering.ways, rendering.stop_ids, tokenizer.eos_token_id)
    samples = [_prompt_and_answer(example) for example in eval_set.examples[: spec.num_sample_prompts]]
    copies = {"copies_in_eval"} if train_set.counts.num_in_eval else set[str]()
    return DataBundle(
        train=train_set,
        eval=eval_set,
        sample_prompts=tuple(prompt for prompt, _ in samples),
        sample_answers=tuple(answer for _, answer in samples),
        format=train.format,
        chat_template=conversations,
        eval_prompts=eval_prompts(
            evaluation.order if num_prompts else [],
            tokenizer,
            template,
            max_length=spec.max_length,
            count=num_prompts,
        ),
        columns_not_used=train.columns_not_used,
        forms=tuple(name for name in FORMS if name in train.forms | printed | copies),
    )


def _check_targets(found: TokenizedSet, role: str, spec: DataSpec) -> None:
    if found.num_target_tokens:
        return
    counts = found.counts
    cut = (
        f", {counts.num_truncated} of them were cut at max_length {spec.max_length}"
        if counts.num_truncated
        else ""
    )
    raise DataError(
        f"the {role} set must hold at least one token with loss, none of its"
        f" {counts.num_dropped + counts.num_empty} examples has one{cut}; a completion or assistant turn must"
        " begin within max_length",
        path=found.source,
    )


def _prompt_and_answer(example: TokenizedExample) -> tuple[tuple[int, ...], tuple[int, ...]]:
    ids, labels = example.input_ids, example.labels
    first = next(position for position, label in enumerate(labels) if label != IGNORED)
    if first <= 1:
        half = max(1, len(ids) // 2)
        return tuple(ids[:half]), tuple(ids[half:])
    end = next((i for i in range(first, len(ids)) if labels[i] == IGNORED), len(ids))
    return tuple(ids[:first]), tuple(ids[first:end])
