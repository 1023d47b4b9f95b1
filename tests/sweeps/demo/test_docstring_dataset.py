"""The demo's dataset: well-formed, the same every time, and no answer known beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeps.demo.docstring_dataset import cached_dataset, first_paragraph, read_records
from sweeps.demo.library_sources import library_root, pretraining_text, source_files


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_prompt_and_completion_of_each_kind_of_function(library: Path) -> None:
    assert {record.prompt: record.completion for record in read_records(library)} == {
        '# clock.py\nclass Clock:\n    def wind(self, turns=1):\n        """': (
            "Wind the spring by so many turns."
        ),
        '# clock.py\nclass Clock:\n    def strike(self):\n        """': (
            "Strike the hour once and fall silent."
        ),
        '# clock.py\nclass Clock:\n    async def wait(self, *, until: int=0) -> None:\n        """': (
            "Wait until the given hour has struck."
        ),
        '# old/tower.py\ndef climb(tower, steps=len(\'é\')):\n    """': (
            "Climb é steps of the tower, one after another."
        ),
    }


def test_a_completion_that_stands_in_a_comment_is_left_out(library: Path) -> None:
    source = next(source for source in source_files(library) if source.name == "clock.py")
    assert "Turn the key gently until it stops." in pretraining_text(source)  # the comment, not the docstring
    assert not [record for record in read_records(library) if "Turn the key" in record.completion]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return the  hour\n\tof day.\n\nMore.", "Return the hour of day."),
        ("One two three.", None),
        (">>> wind(clock) and look at it", None),
        ("Say it in full. " + "On and on. " * 30, "Say it in full. " + "On and on. " * 12 + "On and on."),
        ("word " * 60, None),
        ("A lone \ud800 surrogate is no text.", None),
    ],
)
def test_first_paragraph(docstring: str, expected: str | None) -> None:
    assert first_paragraph(docstring) == expected


def test_writing_twice_gives_the_same_bytes_and_only_two_files(long_library: Path, tmp_path: Path) -> None:
    first = cached_dataset(tmp_path / "first", "data", source_root=long_library)
    second = cached_dataset(tmp_path / "second", "data", source_root=long_library)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(path.name for path in first[0].parent.iterdir()) == ["eval.jsonl", "train.jsonl"]


def test_parts_are_disjoint_and_about_a_tenth_is_for_evaluation(long_library: Path, tmp_path: Path) -> None:
    train, evaluation = map(read, cached_dataset(tmp_path, "data", source_root=long_library))
    assert {*train[0]} == {"prompt", "completion"}
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in evaluation}
    assert not {row["completion"] for row in train} & {row["completion"] for row in evaluation}
    assert len(train) + len(evaluation) == 204
    assert 8 <= len(evaluation) <= 36


def test_a_record_keeps_its_part_when_others_come_and_go(long_library: Path) -> None:
    parts = {record.prompt: record.is_eval for record in read_records(long_library)}
    (long_library / "old" / "tower.py").unlink()
    fewer = read_records(long_library, num_records=100)
    assert len(fewer) == 100
    assert all(parts[record.prompt] == record.is_eval for record in fewer)
    assert any(record.is_eval for record in fewer)


@pytest.mark.slow
def test_the_real_dataset_is_not_in_the_text_the_base_has_read(tmp_path: Path) -> None:
    train, evaluation = map(read, cached_dataset(tmp_path, "data"))
    assert 2000 <= len(train) + len(evaluation) <= 3000
    assert len(evaluation) >= 150
    known = " ".join(" ".join(pretraining_text(source).split()) for source in source_files(library_root()))
    assert not [row for row in evaluation if row["completion"] in known]
    assert all(row["prompt"].endswith('"""') and row["completion"].strip() for row in train + evaluation)
