"""A shown record has the tokens, loss mask and cut of the trained one."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from lora_runner.data import IGNORED, DataSpec, RecordView, load_data, show_record
from lora_runner.errors import DataError

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAST_TURN_ELSE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def turns(n: int) -> list[dict[str, str]]:
    answers = (f"<think>so {n}</think>the answer is {n}", f"<think>and</think>hello {n}")
    return [
        turn
        for answer in answers
        for turn in ({"role": "user", "content": "what?"}, {"role": "assistant", "content": answer})
    ]


FORMS: dict[str, tuple[str | None, Any]] = {
    "text": (None, lambda n: {"text": f"  the answer is é{n} "}),
    "prompt_completion": (None, lambda n: {"prompt": f"what is {n}? ", "completion": f"it is {n}"}),
    "alpaca": (None, lambda n: {"instruction": "Add", "input": f"{n}", "output": f"it is {n}"}),
    "alpaca chat": (CHAT, lambda n: {"instruction": "Add", "input": f"{n}", "output": f"it is {n}"}),
    "messages": (CHAT, lambda n: {"messages": turns(n)}),
    "per turn": (LAST_TURN_ELSE, lambda n: {"messages": turns(n)}),
    "sharegpt": (
        CHAT,
        lambda n: {
            "conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": f"it is {n}"}]
        },
    ),
}


def text(record: RecordView, *, trained: bool | None = None) -> list[str]:
    return [
        "".join(p.text for p in sequence.pieces if not p.is_cut and trained in (None, p.is_trained))
        for sequence in record.sequences
    ]


@pytest.mark.parametrize("completion_only", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_shown_is_what_is_trained(
    make_tokenizer: Any, write_jsonl: Any, form: str, completion_only: bool
) -> None:
    template, make = FORMS[form]
    tokenizer = make_tokenizer(bos=True, chat_template=template)
    train, other = write_jsonl([make(n) for n in range(5)]), write_jsonl([make(9)], "eval.jsonl")
    spec = DataSpec(train=train, eval=other, max_length=400, completion_only=completion_only)
    examples = iter(load_data(spec, tokenizer).train.examples)
    for number in range(1, 6):
        record = show_record(spec, tokenizer, number)
        assert (record.said, record.place) == ("trained", f"{train}:{number}")
        for sequence, all_text, learned in zip(
            record.sequences, text(record), text(record, trained=True), strict=True
        ):
            example = next(examples)
            assert all_text == tokenizer.decode(example.input_ids)
            targets = [label for label in example.labels if label != IGNORED]
            assert (sequence.num_tokens, sequence.num_target_tokens) == (len(example.labels), len(targets))
            assert learned == tokenizer.decode(targets)
            assert sequence.stops
    assert next(examples, None) is None
    expected = 2 if form == "per turn" and completion_only else 1
    assert len(record.sequences) == expected


def test_the_cut_and_the_reason_to_leave_a_record_out_are_shown(
    make_tokenizer: Any, write_jsonl: Any
) -> None:
    rows = [
        {"prompt": "what?", "completion": " y" * 30},
        {"prompt": "x" * 50, "completion": " yes"},
        {"prompt": "what?", "completion": " "},
        {"prompt": "same", "completion": " yes"},
        {"prompt": "what is it?", "completion": " no"},
    ]
    held_out = write_jsonl([rows[3]], "eval.jsonl")
    spec = DataSpec(train=write_jsonl(rows), eval=held_out, max_length=20)
    tokenizer = make_tokenizer()
    records = [show_record(spec, tokenizer, number) for number in range(1, 6)]
    assert [record.said for record in records] == [
        "trained",
        "dropped: nothing that it teaches lies within max_length 20",
        "left out: it has no answer to learn",
        "left out: the evaluation set holds a copy of it",
        "trained",
    ]
    cut = records[0].sequences[0]
    pieces = [(piece.is_trained, piece.is_cut) for piece in cut.pieces]
    assert pieces == [(False, False), (True, False), (True, True)]
    ids = tokenizer(rows[0]["prompt"]).input_ids + tokenizer(rows[0]["completion"]).input_ids
    assert text(records[0]) == [tokenizer.decode(ids[:20])]
    assert cut.num_target_tokens + cut.num_lost_target_tokens == len(ids) + 1 - len(
        tokenizer("what?").input_ids
    )
    assert cut.stops == ()
    for number in (0, 6, -1):
        with pytest.raises(DataError, match=rf"records 1 to 5; there is no record {number}"):
            show_record(spec, tokenizer, number)
    share = DataSpec(train=write_jsonl(rows), eval_fraction=0.5, max_train_examples=1)
    said = {show_record(share, tokenizer, number).said for number in range(1, 6)}
    assert {"held out for evaluation, not trained", "not drawn (max_train_examples)", "trained"} <= said


def test_a_character_split_by_a_mark_is_still_shown(make_tokenizer: Any, write_jsonl: Any) -> None:
    spec = DataSpec(train=write_jsonl([{"text": "é" * 9}, {"text": "a"}]), eval_fraction=0.5, max_length=4)
    shown = [show_record(spec, make_tokenizer(), number) for number in (1, 2)]
    assert all(piece.text for record in shown for piece in chain(*(s.pieces for s in record.sequences)))
