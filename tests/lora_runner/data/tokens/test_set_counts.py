"""Every record is counted; what is lost is reported or an error."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_runner.data import DataBundle, DataSpec, SetCounts, load_data
from lora_runner.data.tokens.set_counts import SetCounter
from lora_runner.errors import DataError

Rows = list[dict[str, Any]]
OK: Rows = [{"prompt": f"q {n}?", "completion": f" short {n}."} for n in range(10)]
EVAL: Rows = [{"prompt": f"e {n}?", "completion": f" short {n}."} for n in range(6)]


@pytest.fixture
def load(make_tokenizer: Any, write_jsonl: Any) -> Callable[..., DataBundle]:
    """`load(training rows, evaluation rows, **options)` with a byte-level tokenizer."""

    def run(
        train: Rows, held_out: Rows | None = EVAL, *, tokenizer: Any = None, **options: Any
    ) -> DataBundle:
        other = None if held_out is None else write_jsonl(held_out, "eval.jsonl")
        spec = DataSpec(train=write_jsonl(train), eval=other, **options)
        return load_data(spec, tokenizer or make_tokenizer())

    return run


def notice_text(bundle: DataBundle) -> str:
    return "\n".join(notice.text for notice in bundle.notices)


def kept_records(counts: SetCounts) -> int:
    return sum(
        getattr(counts, f"num_{name}")
        for name in ("used", "dropped", "empty", "held_out", "in_eval", "copies", "not_drawn")
    )


def test_there_is_no_notice_if_nothing_is_lost(load: Callable[..., DataBundle]) -> None:
    bundle = load(OK)
    assert bundle.notices == bundle.warnings == ()
    counts = bundle.train.counts
    assert (counts.num_records, counts.num_used, counts.num_sequences, counts.lost_share) == (10, 10, 10, 0.0)
    assert counts.num_target_tokens == bundle.train.num_target_tokens
    assert counts.max_length_for_all == max(len(example.input_ids) for example in bundle.train.examples)


def test_dropped_and_cut_records_and_their_tokens_are_counted(
    make_tokenizer: Any, load: Callable[..., DataBundle]
) -> None:
    long = [{"prompt": f"context {n} " + "x" * 100, "completion": f" answer {n}."} for n in range(18)]
    cut = [{"prompt": f"q {n}?", "completion": f" answer {n} " + "y" * 100} for n in range(3)]
    bundle = load([*long, *cut, *OK], max_length=64)
    counts = bundle.train.counts
    assert (counts.num_records, counts.num_used, counts.num_dropped) == (31, 13, 18)
    assert (counts.num_truncated, counts.num_cut) == (21, 3)
    tokenizer = make_tokenizer()
    lengths = [
        (len(tokenizer(row["prompt"]).input_ids), len(tokenizer(row["completion"]).input_ids) + 1)
        for row in (*long, *cut, *OK)
    ]
    total = sum(answer for _, answer in lengths)
    kept = sum(max(0, min(prompt + answer, 64) - prompt) for prompt, answer in lengths)
    assert (counts.num_target_tokens, counts.num_lost_target_tokens) == (kept, total - kept)
    assert bundle.train.num_target_tokens == kept
    assert counts.max_length_for_all == max(map(sum, lengths))
    (warning,) = bundle.warnings
    assert warning.startswith(
        f"training: max_length 64 loses {1 - kept / total:.0%} of the tokens with loss: of "
    )
    lost = "of 31 records, 18 dropped (nothing of their answers is left) and 3 cut (the end of their answer"
    assert lost in warning
    assert f"max_length {counts.max_length_for_all} loses nothing" in warning
    # The advice is true: with it nothing is lost, and with the other at most a tenth.
    assert load([*long, *cut, *OK], max_length=counts.max_length_for_all).notices == ()
    most = load([*long, *cut, *OK], max_length=counts.max_length_for_most)
    assert 0 < most.train.counts.lost_share <= 0.1
    assert most.warnings == ()
    assert "loses" in notice_text(most)
    shorter = load([*long, *cut, *OK], max_length=counts.max_length_for_most - 1)
    assert shorter.train.counts.lost_share > 0.1


def test_an_evaluation_set_that_loses_more_than_half_is_refused(load: Callable[..., DataBundle]) -> None:
    gone = [{"prompt": "z" * 100, "completion": f" gone {n}"} for n in range(7)]
    with pytest.raises(DataError, match=r"eval.jsonl: the evaluation set may lose at most half") as caught:
        load(OK, [*EVAL, *gone], max_length=64)
    assert "of 13 records, 7 dropped" in str(caught.value)
    length = int(str(caught.value).split("Set max_length to ")[1].split(" ")[0])
    assert "training set" not in str(caught.value)
    with pytest.raises(DataError, match=r"The training set: max_length 64 loses .* of 17 records, 7 dropped"):
        load([*OK, *({**row, "completion": " yes"} for row in gone)], [*EVAL, *gone], max_length=64)
    assert load(OK, [*EVAL, *gone], max_length=length).eval.counts.lost_share <= 0.1
    load(OK, [*EVAL, *gone[:6]], max_length=64)  # half is not more than half
    # Every record is there, but most of what they teach is not.
    with pytest.raises(DataError, match=r"loses 5\d% of the tokens with loss: of 6 records, 6 cut"):
        load(OK, [{"prompt": f"{n}?", "completion": "y" * 120} for n in range(6)], max_length=60)


def test_duplicates_and_records_not_drawn_are_reported_with_the_reason(
    load: Callable[..., DataBundle],
) -> None:
    bundle = load([*OK, *EVAL[:2], *OK[:3]], [*EVAL, *EVAL[:4]], max_eval_examples=5)
    train, held_out = bundle.train.counts, bundle.eval.counts
    assert (held_out.num_records, held_out.num_used, held_out.num_copies, held_out.num_not_drawn) == (
        10,
        5,
        4,
        1,
    )
    assert train.num_records == 15
    assert train.num_repeated == 3
    assert train.num_in_eval in (1, 2)  # which of the six is not drawn, its hash decides
    assert "evaluation: left out of 10 records: 4 duplicates" in notice_text(bundle)
    assert f"training: left out of 15 records: {train.num_in_eval} also in the evaluation set" in notice_text(
        bundle
    )
    assert "evaluation: 1 record not drawn (max_eval_examples)" in notice_text(bundle)
    assert "training: 3 records repeated" in notice_text(bundle)
    share = load(OK, None, eval_fraction=0.2, max_train_examples=5).train.counts
    assert (share.num_held_out, share.num_not_drawn, share.num_used) == (2, 3, 5)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("blank", [None, "", " \n"])
def test_empty_answers_are_left_out_alike_in_every_kind_of_file(
    make_tokenizer: Any, tmp_path: Path, kind: str, blank: str | None
) -> None:
    rows = [*OK, {"prompt": "empty?", "completion": blank}]
    path = tmp_path / f"data.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "completion"])
            writer.writeheader()
            writer.writerows(rows)  # None becomes an empty cell
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = load_data(DataSpec(train=str(path), eval_fraction=0.2), make_tokenizer()).train.counts
    assert (counts.num_records, counts.num_empty, counts.num_held_out, counts.num_used) == (11, 1, 2, 8)


CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.mark.parametrize(
    "empty",
    [
        {"text": " "},
        {"instruction": "do", "output": ""},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": " "}]},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a", "weight": 0}]},
        {"prompt": [{"role": "user", "content": "hi"}], "completion": None},
    ],
)
def test_records_without_an_answer_are_empty_in_every_format(
    make_tokenizer: Any, load: Callable[..., DataBundle], empty: dict[str, Any]
) -> None:
    full: dict[str, Any] = {
        "text": lambda n: f"text {n}",
        "output": lambda n: f"out {n}",
        "completion": lambda n: f"c {n}",
        "messages": lambda n: [{"role": "user", "content": "hi"}, {"role": "assistant", "content": f"a {n}"}],
    }
    name = next(name for name in full if name in empty)
    rows = [empty | {name: full[name](n)} for n in range(10)]
    bundle = load([*rows, empty], None, tokenizer=make_tokenizer(chat_template=CHAT), eval_fraction=0.2)
    assert (bundle.train.counts.num_empty, bundle.train.counts.num_used) == (1, 8)
    left_out = "2 held out for evaluation, 1 empty (no answer to learn)"
    assert f"training: left out of 11 records: {left_out}" in notice_text(bundle)
    with pytest.raises(DataError, match="none of the 3 records has anything to learn"):
        load([empty] * 3, None, tokenizer=make_tokenizer(chat_template=CHAT))


def test_one_empty_turn_of_several_is_trained_and_reported(
    make_tokenizer: Any, load: Callable[..., DataBundle]
) -> None:
    def turns(*answers: str) -> dict[str, Any]:
        return {
            "messages": [
                turn
                for answer in answers
                for turn in ({"role": "user", "content": "q"}, {"role": "assistant", "content": answer})
            ]
        }

    tokenizer = make_tokenizer(chat_template=CHAT)
    bundle = load([turns("a", ""), turns("b", "c")], [turns("d")], tokenizer=tokenizer)
    assert (bundle.train.counts.num_used, bundle.train.counts.num_blank_turns) == (2, 1)
    assert "1 record in which one of the assistant's turns is empty" in notice_text(bundle)


@pytest.mark.parametrize("label", [False, "False"])
def test_answers_that_are_marked_as_bad_are_refused(load: Callable[..., DataBundle], label: Any) -> None:
    rows = [row | {"label": n % 2 == 0 or label} for n, row in enumerate(OK)]
    with pytest.raises(DataError, match=r"the column 'label' is false for 5 of 10 records.*train.jsonl:2"):
        load(rows)
    with pytest.raises(DataError, match=r"eval.jsonl: the column 'label' is false for 1 of 1 records"):
        load(OK, [EVAL[0] | {"label": label}])
    liked = load([row | {"label": True} for row in OK])
    assert notice_text(liked) == "columns not used: label"
    # A class beside a text is no judgement of it.
    texts = load([{"text": f"t {n}", "label": False} for n in range(10)], None)
    assert notice_text(texts) == "columns not used: label"


def test_preference_pairs_are_refused_by_name(load: Callable[..., DataBundle]) -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    with pytest.raises(
        DataError, match=r"train.jsonl:1: the record is a pair of a chosen and a rejected answer"
    ):
        load([pair])
    bundle = load([row | {"chosen": "b", "rejected": "c"} for row in OK])
    assert notice_text(bundle) == "columns not used: chosen, rejected"


def test_unread_columns_are_named_once(load: Callable[..., DataBundle]) -> None:
    rows: Rows = [row | {"id": n, "tools": None, "empty": None} for n, row in enumerate(OK)]
    rows[3]["system"] = "be brief"
    bundle = load(rows)
    assert bundle.columns_not_used == ("id", "system")
    many = load([row | {f"c{n}": 1 for n in range(11)} for row in OK])
    assert notice_text(many).endswith("c6, c7 and 3 more")


def test_image_placeholders_are_an_error_with_an_image_column_and_reported_without(
    load: Callable[..., DataBundle],
) -> None:
    rows: Rows = [*OK, {"prompt": "<image> what?", "completion": " a cat"}]
    bundle = load(rows)
    assert bundle.train.counts.num_placeholders == 1
    assert bundle.warnings[0].startswith("training: 1 record with a placeholder for an image")
    rows[-1]["images"] = ["cat.png"]
    with pytest.raises(DataError, match=r"train.jsonl:11: the text contains <image>, .* column 'images'"):
        load(rows)
    rows[-1]["prompt"] = "what?"
    assert notice_text(load(rows)) == "columns not used: images"


def test_answers_that_read_as_missing_values_are_reported(load: Callable[..., DataBundle]) -> None:
    rows = [
        *OK,
        *({"prompt": f"{n}?", "completion": text} for n, text in enumerate(("nan", " None", "nano"))),
    ]
    bundle = load(rows)
    assert (bundle.train.counts.num_used, bundle.train.counts.num_missing_texts) == (13, 2)
    assert bundle.warnings[0].startswith("training: 2 records with the answer nan, None or null")


def test_tokens_across_prompt_and_answer_are_counted(
    make_tokenizer: Any, load: Callable[..., DataBundle]
) -> None:
    tokenizer = make_tokenizer()
    rows = [
        {"prompt": prompt, "completion": answer}
        for prompt in ("the answer is", "the answer is ", "hel", "hello", "a\n", "is  ")
        for answer in ("hello", " hello", "lo", "\n\nhello")
    ]
    apart = sum(
        tokenizer(row["prompt"] + row["completion"]).input_ids
        != tokenizer(row["prompt"]).input_ids + tokenizer(row["completion"]).input_ids
        for row in rows
    )
    assert 0 < apart < len(rows)
    bundle = load(rows)
    assert bundle.train.counts.num_merging == apart
    assert bundle.warnings[0].startswith(f"in {apart} training records the tokenizer would merge")
    both = load(rows, [{"prompt": f"hel{n}hel", "completion": "lo"} for n in range(2)])
    (warning,) = [text for text in both.warnings if "would merge" in text]
    merging = both.eval.counts.num_merging
    assert merging
    assert warning.startswith(f"in {apart} training and {merging} evaluation record")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_record_is_counted_once(data: Any, load: Callable[..., DataBundle]) -> None:
    row = st.builds(
        lambda prompt, answer: {"prompt": prompt, "completion": answer},
        st.sampled_from(["a", "b?", "x" * 30]),
        st.sampled_from([None, "", " y", " yes", "z" * 25, "nan"]),
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=20))
    held_out = data.draw(st.one_of(st.none(), st.lists(row, min_size=1, max_size=8)))
    limit = data.draw(st.one_of(st.none(), st.integers(1, 5)))
    try:
        bundle = load(
            rows, held_out, max_length=data.draw(st.sampled_from([20, 40, 100])), max_train_examples=limit
        )
    except DataError:
        return
    for counts in (bundle.train.counts, bundle.eval.counts):
        assert kept_records(counts) == counts.num_records, asdict(counts)
    assert bundle.train.counts.num_records == len(rows)
    if held_out is not None:
        assert bundle.eval.counts.num_records == len(held_out)
    assert bundle.train.counts.num_sequences == len(bundle.train)
    assert bundle.train.counts.num_target_tokens == bundle.train.num_target_tokens


def test_max_length_for_most_loses_at_most_a_tenth() -> None:
    counter = SetCounter(4)
    for example in range(9):
        counter.add(example, 5, [(4, 5)], merges=False)
    counter.add(9, 50, [(49, 50)], merges=False)
    counts = counter.counts(10, Counter())
    assert (counts.max_length_for_most, counts.max_length_for_all, counts.num_dropped) == (5, 50, 10)
