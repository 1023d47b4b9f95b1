"""What the user is told about the data, in sentences; some are warnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lora_runner.data.tokens.rendering_counts import RenderingCounts
from lora_runner.data.tokens.set_counts import SetCounts
from lora_runner.errors import DataError

WARN_LOST = 0.1
"""Share of the tokens with loss that may be cut off without a warning: most datasets have a few long
records, and a tenth changes the loss by less than the hyperparameters of a sweep do."""
REFUSE_EVAL_LOST = 0.5
"""Share of an evaluation set's records, or of its tokens with loss, that may be lost: beyond half, trials
would be ranked by a minority of the data."""
MAX_NAMED = 8
"""Columns listed by name; the rest are counted."""

_MERGING = (
    "in {where} the tokenizer would merge the end of the prompt and the start of the answer into one token;"
    " move the space or line break between them to the start of the answer"
)
_PLACEHOLDERS = (
    "{records} with a placeholder for an image, audio or video (<image> or similar), which is trained as text"
)
_MISSING_TEXTS = (
    "{records} with the answer nan, None or null, probably a missing value; it is trained as text"
)
_BLANK_TURNS = (
    "{records} in which one of the assistant's turns is empty and trained as an answer;"
    ' "weight": 0 in the turn excludes it'
)


@dataclass(frozen=True)
class DataNotice:
    """One sentence about the data."""

    text: str
    is_warning: bool = False


def count_notices(counts: SetCounts, role: str) -> Iterator[DataNotice]:
    """Yield what was lost or looks wrong in one set. `role`: training, evaluation."""
    if counts.num_lost_target_tokens:
        yield DataNotice(f"{role}: {_lost(counts)}; {_advice(counts)}", counts.lost_share > WARN_LOST)
    left_out = (
        (counts.num_held_out, "held out for evaluation"),
        (counts.num_empty, "empty (no answer to learn)"),
        (counts.num_in_eval, "also in the evaluation set"),
        (counts.num_copies, "duplicates"),
    )
    # Held-out records are not lost: they are listed only beside others, so that the numbers add up.
    if counts.num_empty or counts.num_in_eval or counts.num_copies:
        parts = [f"{number:,} {why}" for number, why in left_out if number]
        yield DataNotice(f"{role}: left out of {_records(counts.num_records)}: {', '.join(parts)}")
    limit = "max_train_examples" if role == "training" else "max_eval_examples"
    for number, text, is_warning in (
        (counts.num_not_drawn, f"{{records}} not drawn ({limit})", False),
        (counts.num_repeated, "{records} repeated; each copy is trained", False),
        (counts.num_placeholders, _PLACEHOLDERS, True),
        (counts.num_missing_texts, _MISSING_TEXTS, True),
        (counts.num_blank_turns, _BLANK_TURNS, False),
    ):
        if number:
            yield DataNotice(f"{role}: {text.format(records=_records(number))}", is_warning)


def merging_notice(train: SetCounts, evaluation: SetCounts) -> Iterator[DataNotice]:
    """Yield one warning for both sets if prompts and answers share tokens."""
    sets = ((train.num_merging, "training"), (evaluation.num_merging, "evaluation"))
    if where := [f"{number:,} {role}" for number, role in sets if number]:
        last = train.num_merging if len(where) == 1 and train.num_merging else evaluation.num_merging
        yield DataNotice(_MERGING.format(where=f"{' and '.join(where)} record{'s'[: last != 1]}"), True)


def rendering_notices(rendering: RenderingCounts, role: str) -> Iterator[DataNotice]:
    """Yield remarks on how one set was rendered. `role`: training, evaluation."""
    for note in rendering.notes:
        yield DataNotice(f"{role}: {note}")
    if missing := rendering.num_without_stop - rendering.num_cut_before_stop:
        yield DataNotice(
            f"{role}: {missing:,} of {rendering.num_records:,} records teach no stop token, so a model"
            " trained on them may never end its answer; let the chat template print eos_token behind each"
            " answer, inside its {% generation %} marks if it has some, and the tokenizer have an eos_token",
            is_warning=True,
        )


def columns_notice(names: tuple[str, ...]) -> Iterator[DataNotice]:
    """Yield one sentence that names the columns that are not read, if there are any."""
    if names:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        yield DataNotice(f"columns not used: {', '.join(names[:MAX_NAMED])}{more}")


def refuse_mostly_lost(counts: SetCounts, source: str, train: SetCounts) -> None:
    """Raise DataError for an evaluation set of which `max_length` cuts off more than half.

    The message includes what the training set loses, since both share one max_length.
    """
    if max(counts.dropped_share, counts.lost_share) <= REFUSE_EVAL_LOST:
        return
    also = f". The training set: {_lost(train)}; {_advice(train)}" if train.num_lost_target_tokens else ""
    raise DataError(
        "the evaluation set may lose at most half of its records and of its tokens with loss: "
        f"{_lost(counts)}. Set max_length to {counts.max_length_for_most:,} or more"
        f" ({counts.max_length_for_all:,} loses nothing), or shorten or split the records{also}",
        path=source,
    )


def _lost(counts: SetCounts) -> str:
    """Records and tokens lost to `max_length`, with the share."""
    dropped = (
        f"{counts.num_dropped:,} dropped (nothing of their answers is left)" if counts.num_dropped else ""
    )
    cut = (
        f"{counts.num_cut:,} cut (the end of their answer, with its stop token, is beyond it)"
        if counts.num_cut
        else ""
    )
    return (
        f"max_length {counts.max_length:,} loses {_percent(counts.lost_share)} of the tokens with loss: of "
        f"{_records(counts.num_used + counts.num_dropped)}, {' and '.join(filter(None, (dropped, cut)))}"
    )


def _advice(counts: SetCounts) -> str:
    everything = f"max_length {counts.max_length_for_all:,} loses nothing"
    if counts.lost_share > WARN_LOST and counts.max_length_for_most < counts.max_length_for_all:
        return f"{everything}, {counts.max_length_for_most:,} at most a tenth"
    return everything


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def _records(number: int) -> str:
    return f"{number:,} record{'' if number == 1 else 's'}"
