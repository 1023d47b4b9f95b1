"""A user's own rows: new ones, changes of built-in ones, and all problems at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from files_and_text.problems import InputError
from search_spaces import load_guidelines, space_for


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_a_new_row_and_a_changed_one(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
sources:
  wiki: {document: Team wiki, url: "https://example.org/wiki"}
rows:
  scenario.law:
    topic: scenario
    parameter: learning_rate
    low: 3e-4
    high: "6e-4"
    condition: our contracts
    when: {scenario: law, method: qlora}
    source: {name: wiki, section: Rates}
  size.7-8b: {value: 4e-4}
  scenario.instruction: {high: 3e-4, note: seen here}
""",
    )
    guidelines = load_guidelines(file)
    assert len(guidelines) == len(load_guidelines()) + 1
    law = guidelines["scenario.law"]
    assert (law.low, law.high, law.source.document, law.source.section) == (3e-4, 6e-4, "Team wiki", "Rates")
    changed = guidelines["size.7-8b"]
    assert (changed.low, changed.high, changed.condition) == (4e-4, 4e-4, "7-8B")
    assert changed.source.document == "mine.yaml"
    assert "Learning Rate Guidelines" in changed.source.section
    partly = guidelines["scenario.instruction"]
    assert (partly.low, partly.high, partly.note) == (1e-4, 3e-4, "seen here")
    space = space_for(
        scenario="law", model_size=8e9, max_steps=600, train_embeddings=False, guidelines=guidelines
    )
    assert space["learning_rate"].rows == ("scenario.law", "size.7-8b")
    assert space["learning_rate"].guideline_high == 6e-4
    assert space["learning_rate"].default == 4e-4


def test_later_files_win_and_the_built_in_rows_stay(tmp_path: Path) -> None:
    one = write(tmp_path, "rows:\n  method.qlora: {value: 1e-4}\n", "one.yaml")
    two = write(tmp_path, "rows:\n  method.qlora: {value: 3e-4}\n", "two.yaml")
    assert load_guidelines(one, two)["method.qlora"].low == 3e-4
    assert load_guidelines(str(two), one)["method.qlora"].low == 1e-4
    assert load_guidelines()["method.qlora"].low == 2e-4


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    one = write(
        tmp_path,
        """rows:
  scenario.genral: {value: 1e-4}
  size.13b:
    low: 3e-4
    high: 1e-4
  mine.a:
    topic: senario
    parameter: learning_rat
    value: fast
  mine.b:
    topic: scheduler
    parameter: lr_scheduler_type
    choices: [cosin]
    when: {max_step: {low: 3}, method: lora, model_size_billions: {low: 9, high: 8}, max_steps: {low: 1.5}}
    colour: red
  mine.c: {topic: warmup, value: 1, low: 2}
  mine.d: {topic: warmup, parameter: warmup_ratio, low: 0.1}
  mine.e: 3
""",
    )
    two = write(tmp_path, "row: {}\n", "two.yaml")
    with pytest.raises(InputError) as caught:
        load_guidelines(one, two)
    text = str(caught.value).replace(str(tmp_path) + "/", "")
    for line in (
        "mine.yaml:2: there is no row 'scenario.genral', and a new row needs a topic.",
        "Did you mean 'scenario.general'?",
        "mine.yaml:4: the row 'size.13b' needs low <= high",
        "mine.yaml:7: rows.mine.a.topic: 'senario' is not known. Did you mean 'scenario'?",
        "mine.yaml:8: rows.mine.a.parameter: 'learning_rat' is not known. Did you mean 'learning_rate'?",
        "mine.yaml:9: rows.mine.a.value must be a finite number; got 'fast'.",
        "mine.yaml:13: rows.mine.b.choices[0]: 'cosin' is not known. Did you mean 'cosine'?",
        "mine.yaml:14: rows.mine.b.when has no key 'max_step'. Did you mean 'max_steps'?",
        "mine.yaml:14: rows.mine.b.when.method: 'lora' is not known. Did you mean 'qlora'?",
        "mine.yaml:14: model_size_billions needs low <= high; got 9 > 8.",
        "mine.yaml:14: rows.mine.b.when.max_steps.low must be a whole number; got 1.5.",
        "mine.yaml:15: rows.mine.b has no key 'colour'.",
        "mine.yaml:16: the row 'mine.c' gives either value, or low and high; not both.",
        "mine.yaml:17: the row 'mine.d' needs both low and high (or value for a point).",
        "mine.yaml:18: rows.mine.e must be a mapping of keys to values; got 3.",
        "two.yaml:1: the input has no key 'row'. Did you mean 'rows'?",
        "two.yaml:1: a guidelines file needs rows",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows:\n  method.full: {source: {name: wiki}}\n", "not known"),
        ("rows:\n  method.full: {source: {section: x}}\n", "needs a document"),
        ("sources: {a: {url: x}}\nrows: {}\n", "needs a document"),
        ("rows:\n  scheduler.short: {choices: linear}\n", "must be a list"),
        ("rows:\n  scheduler.short: {when: {train_embeddings: 'no'}}\n", "true or false"),
        ("rows:\n  scheduler.short: {note: 3}\n", "must be text"),
        ("- 1\n", "must be a mapping"),
        ("", "needs rows"),
    ],
)
def test_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_guidelines(write(tmp_path, text))


def test_a_new_size_row_is_the_nearest_one(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "rows:\n  size.32b:\n    topic: model_size\n    parameter: learning_rate\n    value: 1e-4\n"
        "    condition: 30-34B\n    when: {method: qlora, model_size_billions: {low: 30, high: 34}}\n",
    )
    space = space_for(
        model_size=32e9, max_steps=600, train_embeddings=False, guidelines=load_guidelines(file)
    )
    assert "size.32b" in space["learning_rate"].rows
    assert space["learning_rate"].note == ""
