"""Token ids beyond the model's embeddings are rejected, in either set."""

from __future__ import annotations

from typing import Any

import pytest

from lora_runner.data import DataSpec, check_token_ids, load_data
from lora_runner.errors import DataError


@pytest.mark.parametrize("where", ["train", "eval"])
def test_one_rare_token_beyond_the_embeddings_is_found_in_either_set(
    make_tokenizer: Any, write_jsonl: Any, where: str
) -> None:
    tokenizer = make_tokenizer()
    size = len(tokenizer)
    tokenizer.add_tokens(["ZZZ", "YYY"])
    rows = {
        name: [{"prompt": f"{name} {n}", "completion": " yes"} for n in range(9)]
        for name in ("train", "eval")
    }
    paths = {name: write_jsonl(records, f"{name}.jsonl") for name, records in rows.items()}
    check_token_ids(load_data(DataSpec(**paths), tokenizer), tokenizer, size)  # what nobody uses harms nobody
    rows[where][7]["completion"] = " yesZZZ"
    paths[where] = write_jsonl(rows[where], f"{where}.jsonl")
    bundle = load_data(DataSpec(**paths), tokenizer)
    check_token_ids(bundle, tokenizer, size + 1)
    with pytest.raises(DataError) as caught:
        check_token_ids(bundle, tokenizer, size)
    role = {"train": "training", "eval": "evaluation"}[where]
    assert str(caught.value).startswith(f"{paths[where]}: every token must have an embedding")
    assert f"makes 'ZZZ' (id {size}) of 1 of 9 {role} sequences. Add rows" in str(caught.value)


@pytest.mark.parametrize("all_but_the_end", [False, True])
def test_an_end_token_beyond_the_embeddings_is_in_every_sequence(
    make_tokenizer: Any, write_jsonl: Any, all_but_the_end: bool
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<the end>"})
    rows = [{"prompt": f"what is {n}?", "completion": f" it is {n}"} for n in range(20)]
    bundle = load_data(DataSpec(train=write_jsonl(rows), eval_fraction=0.2), tokenizer)
    with pytest.raises(DataError, match="of 16 of 16 training sequences and 4 of 4 evaluation") as caught:
        check_token_ids(bundle, tokenizer, len(tokenizer) - 1 if all_but_the_end else 10)
    assert ("makes '<the end>' (id" in str(caught.value)) is all_but_the_end
    assert (" more of 16 of 16" in str(caught.value)) is not all_but_the_end
