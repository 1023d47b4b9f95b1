"""Prompts, completions and texts -> ids and labels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lora_runner.data import IGNORED, Example, Message, TokenizedExample, TokenizedSet, num_targets
from lora_runner.data.records.convert import convert
from lora_runner.data.records.record import Origin, Record
from lora_runner.data.tokens.tokenize import tokenize
from lora_runner.errors import DataError


def run(tokenizer: Any, *examples: Example, max_length: int = 200, **options: Any) -> TokenizedSet:
    return tokenize(examples, tokenizer, source="f.jsonl", max_length=max_length, **options)


def pair(prompt: str, completion: str) -> Example:
    return Example(prompt=prompt, completion=completion)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("prompt", ["the answer is", "the answer is ", "hello\n", "", "a   ", "é"])
@pytest.mark.parametrize("completion", [" hello\n", "hello"])
def test_loss_on_completion_and_eos(
    make_tokenizer: Any, targets: Any, prompt: str, completion: str, bos: bool
) -> None:
    tokenizer = make_tokenizer(bos=bos)
    (example,) = run(tokenizer, pair(prompt, completion)).examples
    start = "<s>" if bos else ""
    assert tokenizer.decode(example.input_ids) == f"{start}{prompt}{completion}</s>"
    # What the model sees in use: the prompt tokenized alone, whatever follows it.
    alone = tokenizer(prompt).input_ids
    assert list(example.input_ids)[: len(alone)] == alone
    if alone:
        assert targets(tokenizer, example) == [f"{completion}</s>"]
        assert num_targets(example) == len(example.input_ids) - len(alone)
    else:  # nothing stands before the first token to predict it from
        assert num_targets(example) == len(example.input_ids) - 1


@pytest.mark.parametrize(
    ("prompt", "completion", "learned"),
    [("hello", " hello", " hello"), ("hello ", "hello", " hello"), ("hello", "hello", "hello")],
)
def test_a_tokenizer_that_begins_texts_with_a_space(prompt: str, completion: str, learned: str) -> None:
    # As SentencePiece does: a completion tokenized alone would get a blank that the record does not have.
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        special_tokens=["<unk>", "</s>"], vocab_size=60, min_frequency=1, show_progress=False
    )
    backend.train_from_iterator(["hello hello", "hxello"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    (example,) = run(tokenizer, pair(prompt, completion)).examples
    assert list(example.input_ids) == [*tokenizer(prompt + completion).input_ids, tokenizer.eos_token_id]
    pieces = [label for label in example.labels if label not in (IGNORED, tokenizer.eos_token_id)]
    assert "".join(tokenizer.convert_ids_to_tokens(pieces)).replace("▁", " ") == learned


def test_all_tokens_have_loss_when_asked(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(bos=True)
    (example,) = run(tokenizer, pair("hello", " you"), completion_only=False).examples
    assert list(example.labels) == [IGNORED, *list(example.input_ids)[1:]]


def test_text_has_loss_everywhere(make_tokenizer: Any, targets: Any) -> None:
    tokenizer = make_tokenizer(bos=True)
    (example,) = run(tokenizer, Example(text="hello you")).examples
    assert targets(tokenizer, example) == ["hello you</s>"]
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, Example(text="hello you")).examples
    assert num_targets(example) == len(example.input_ids) - 1


def test_bos_and_eos_are_never_doubled(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(bos=True)
    (plain, written) = run(tokenizer, pair("hello", " you"), pair("<s>hello", " you</s>")).examples
    assert list(plain.input_ids) == list(written.input_ids)
    assert list(plain.labels) == list(written.labels)


def test_a_tokenizer_without_eos_is_an_error(make_tokenizer: Any) -> None:
    with pytest.raises(DataError, match="the tokenizer has no eos_token"):
        run(make_tokenizer(eos=False), pair("a", "b"))


def test_alpaca_with_and_without_a_chat_template(make_tokenizer: Any, targets: Any) -> None:
    fields = {"instruction": "Add", "input": "1 2", "output": "3", "history": [["Hi", "Yes"]]}
    _, examples = convert([Record(fields, Origin("f.jsonl", 1))])
    tokenizer = make_tokenizer()
    (plain,) = run(tokenizer, *examples).examples
    assert tokenizer.decode(plain.input_ids).endswith("### Given\n1 2\n\n### Answer\n3</s>")
    assert targets(tokenizer, plain) == ["3</s>"]
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    (chat,) = run(tokenizer, *examples, chat_template=template).examples
    assert tokenizer.decode(chat.input_ids) == (
        "user: Hi<|im_end|>assistant: Yes<|im_end|>user: Add\n\n1 2<|im_end|>assistant: 3<|im_end|>"
    )
    assert [text.strip() for text in targets(tokenizer, chat)] == ["3<|im_end|>"]


def test_truncation_keeps_the_start_and_counts(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    long_prompt, long_answer, short = pair("x" * 50, "y"), pair("hello", " y" * 50), pair("hello", " you")
    found = run(tokenizer, long_prompt, long_answer, short, max_length=10)
    whole = run(tokenizer, long_answer).examples[0]
    assert list(found.examples[0].input_ids) == list(whole.input_ids)[:10]
    assert list(found.examples[0].labels) == list(whole.labels)[:10]
    assert (len(found), found.counts.num_dropped, found.counts.num_truncated) == (2, 1, 2)
    assert found.num_tokens == sum(len(example.input_ids) for example in found.examples)
    assert found.num_target_tokens == sum(num_targets(example) for example in found.examples)


def test_a_conversation_without_an_assistant_is_empty(make_tokenizer: Any) -> None:
    user = Example(messages=(Message(role="user", content="hi"),))
    found = run(make_tokenizer(), user, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")
    assert (len(found), found.counts.num_empty, found.counts.num_dropped) == (0, 1, 0)


def test_the_digest_depends_on_ids_labels_and_order() -> None:
    def digest(*examples: tuple[list[int], list[int]]) -> str:
        sets = (TokenizedExample(input_ids=ids, labels=labels) for ids, labels in examples)
        return TokenizedSet.of(sets, source="any").digest

    a, b = ([1, 2], [IGNORED, 2]), ([3], [IGNORED])
    base = digest(a, b)
    assert base == "e69fb1c51fc474d6dc6320fe2a59d6feacb3b5f4b0d6f83c790efa54ebe7371e"  # the same everywhere
    relabelled = digest(([1, 2], [IGNORED, IGNORED]), b)
    joined = digest(([1, 2, 3], [IGNORED, 2, IGNORED]))
    others = [digest(b, a), digest(a), relabelled, joined]
    assert base not in others
    assert len(set(others)) == len(others)


def test_many_examples_keep_their_order(make_tokenizer: Any, targets: Any) -> None:
    tokenizer = make_tokenizer()
    found = run(tokenizer, *(pair("a ", str(number)) for number in range(2100)))
    assert [targets(tokenizer, example) for example in found.examples] == [[f"{n}</s>"] for n in range(2100)]


@settings(max_examples=60, deadline=None)
@given(prompt=st.text(max_size=12), completion=st.text(max_size=12), bos=st.booleans())
def test_any_pair_of_texts(make_tokenizer: Any, prompt: str, completion: str, bos: bool) -> None:
    tokenizer = make_tokenizer(bos=bos)
    found = run(tokenizer, pair(prompt, completion), completion_only=True)
    for example in found.examples:  # none when a lone EOS has nothing before it
        ids = list(example.input_ids)
        assert tokenizer.decode(ids) == ("<s>" if bos else "") + prompt + completion + "</s>"
        start = len(tokenizer(prompt).input_ids)
        assert list(example.labels) == [IGNORED] * max(start, 1) + ids[max(start, 1) :]
