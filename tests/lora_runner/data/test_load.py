"""From a DataSpec to training and evaluation sets."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lora_runner.data import DataSpec, TokenizedSet, load_data
from lora_runner.errors import DataError

PAIRS = [{"prompt": f"what is {n}?", "completion": f" it is {n}"} for n in range(60)]


def ids(of: TokenizedSet) -> list[tuple[int, ...]]:
    return [tuple(example.input_ids) for example in of.examples]


def test_a_share_is_held_out(make_tokenizer: Any, write_jsonl: Any) -> None:
    path = write_jsonl(PAIRS)
    bundle = load_data(DataSpec(train=path, eval_fraction=0.1), make_tokenizer())
    assert (len(bundle.train), len(bundle.eval)) == (54, 6)
    assert not set(ids(bundle.train)) & set(ids(bundle.eval))
    assert bundle.format == "prompt_completion"
    assert bundle.train.source == path
    assert "by content hash" in bundle.eval.source


def test_the_held_out_share_depends_on_content_not_on_order(make_tokenizer: Any, write_jsonl: Any) -> None:
    shuffled = PAIRS[:]
    random.Random(1).shuffle(shuffled)
    tokenizer = make_tokenizer()
    digests = [
        load_data(DataSpec(train=write_jsonl(rows, name)), tokenizer).eval.digest
        for rows, name in ((PAIRS, "a.jsonl"), (shuffled, "b.jsonl"))
    ]
    assert digests[0] == digests[1]
    other = load_data(DataSpec(train=write_jsonl(PAIRS), seed=1), tokenizer).eval.digest
    assert other != digests[0]


def test_copies_of_evaluation_records_never_train(make_tokenizer: Any, write_jsonl: Any) -> None:
    bundle = load_data(DataSpec(train=write_jsonl(PAIRS * 3), eval_fraction=0.2), make_tokenizer())
    assert len(bundle.eval) == len(set(ids(bundle.eval))) == 12
    assert not set(ids(bundle.train)) & set(ids(bundle.eval))
    assert (len(bundle.train), bundle.train.counts.num_in_eval) == (48 * 3, 12 * 2)


def test_an_own_evaluation_file(make_tokenizer: Any, write_jsonl: Any) -> None:
    train, other = write_jsonl(PAIRS[:50]), write_jsonl([*PAIRS[45:], PAIRS[59]], "eval.jsonl")
    bundle = load_data(DataSpec(train=train, eval=other), make_tokenizer())
    assert (len(bundle.train), bundle.train.counts.num_in_eval) == (45, 5)
    assert (len(bundle.eval), bundle.eval.counts.num_copies) == (15, 1)
    assert not set(ids(bundle.train)) & set(ids(bundle.eval))


def test_an_evaluation_split_of_the_same_folder(make_tokenizer: Any, write_jsonl: Any, tmp_path: Any) -> None:
    write_jsonl(PAIRS[:40], "set/train.jsonl")
    write_jsonl(PAIRS[40:50], "set/test.jsonl")
    folder = str(tmp_path / "set")
    bundle = load_data(DataSpec(train=folder, eval_split="test"), make_tokenizer())
    assert (len(bundle.train), len(bundle.eval)) == (40, 10)
    with pytest.raises(DataError, match="eval_split 'test' needs a folder or a hub id"):
        load_data(DataSpec(train=f"{folder}/train.jsonl", eval_split="test"), make_tokenizer())


def test_limits_draw_by_hash(make_tokenizer: Any, write_jsonl: Any) -> None:
    path, tokenizer = write_jsonl(PAIRS), make_tokenizer()
    spec = DataSpec(train=path, eval_fraction=0.5, max_eval_examples=4, max_train_examples=20)
    bundle = load_data(spec, tokenizer)
    assert (len(bundle.train), len(bundle.eval)) == (20, 4)
    assert ids(bundle.train) != ids(
        load_data(DataSpec(train=write_jsonl(PAIRS[:20], "b.jsonl")), tokenizer).train
    )
    whole = load_data(DataSpec(train=path, eval_fraction=0.5, max_eval_examples=None), tokenizer)
    assert (len(whole.train), len(whole.eval)) == (30, 30)
    assert ids(whole.eval)[:4] == ids(bundle.eval)


def test_sample_prompts_end_where_the_answer_begins(make_tokenizer: Any, write_jsonl: Any) -> None:
    tokenizer = make_tokenizer()
    bundle = load_data(DataSpec(train=write_jsonl(PAIRS), num_sample_prompts=2), tokenizer)
    first = tokenizer.decode(bundle.eval.examples[0].input_ids)
    assert tokenizer.decode(bundle.sample_prompts[0]) == first.split("?")[0] + "?"
    assert tokenizer.decode(bundle.sample_answers[0]) == first.split("?")[1]
    assert len(bundle.sample_prompts) == 2
    texts = write_jsonl([{"text": f"the answer is {n}"} for n in range(20)], "t.jsonl")
    bundle = load_data(DataSpec(train=texts), tokenizer)
    assert bundle.sample_prompts[0] == ids(bundle.eval)[0][: len(ids(bundle.eval)[0]) // 2]
    assert (*bundle.sample_prompts[0], *bundle.sample_answers[0]) == ids(bundle.eval)[0]


def test_conversations_with_the_built_in_template(
    make_tokenizer: Any, write_jsonl: Any, targets: Any
) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": f"it is {n}"}]}
        for n in range(10)
    ]
    tokenizer = make_tokenizer()
    path = write_jsonl(rows)
    bundle = load_data(DataSpec(train=path, chat_template="chatml"), tokenizer)
    (answer,) = targets(tokenizer, bundle.eval.examples[0])
    assert answer in {f"it is {n}<|im_end|>" for n in range(10)}
    assert tokenizer.decode(bundle.sample_prompts[0]).endswith("<|im_start|>assistant\n")
    with pytest.raises(DataError, match="conversations need a chat template"):
        load_data(DataSpec(train=path), tokenizer)


def test_sets_without_anything_to_learn(make_tokenizer: Any, write_jsonl: Any) -> None:
    tokenizer = make_tokenizer()
    long = write_jsonl([{"prompt": "x" * (90 + n), "completion": "y"} for n in range(5)], "long.jsonl")
    short = write_jsonl(PAIRS)
    nothing = r"the evaluation set must .* none of its 5 .*5 of them were cut at max_length 40"
    with pytest.raises(DataError, match=nothing):
        load_data(DataSpec(train=short, eval=long, max_length=40), tokenizer)
    with pytest.raises(DataError, match="the training set must hold at least one token with loss"):
        load_data(DataSpec(train=long, eval=short, max_length=40), tokenizer)
    with pytest.raises(DataError, match="all 60 training records are also in the evaluation set"):
        load_data(DataSpec(train=short, eval=short), tokenizer)
    with pytest.raises(DataError, match="at least two different records"):
        load_data(DataSpec(train=write_jsonl(PAIRS[:1] * 5, "same.jsonl")), tokenizer)


def test_two_records_give_one_for_each(make_tokenizer: Any, write_jsonl: Any) -> None:
    bundle = load_data(DataSpec(train=write_jsonl(PAIRS[:2]), eval_fraction=0.9), make_tokenizer())
    assert (len(bundle.train), len(bundle.eval)) == (1, 1)


def test_all_problems_of_a_spec_come_at_once() -> None:
    with pytest.raises(DataError) as caught:
        DataSpec(
            train=" ", format="alpcaa", eval_fraction=1.0, max_length=1, max_train_examples=0,
            max_eval_examples=-1, num_sample_prompts=-1,
        )  # fmt: skip
    problems = str(caught.value).splitlines()
    assert len(problems) == 7
    assert "Did you mean 'alpaca'?" in problems[1]
