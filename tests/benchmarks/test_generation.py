"""Generation with and without a cache is timed on the same answers."""

from __future__ import annotations

import pytest

from benchmarks import generation
from benchmarks.generation import answers, compare, prompts
from benchmarks.harness.report import Report
from benchmarks.training_steps.case import PackTrials
from lora_runner.layout.kv_cache import KeyValueCache
from tests.benchmarks.cases import CASE


def test_only_one_side_keeps_keys_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "NEW_TOKENS", 4)
    trials, asked = PackTrials(CASE, 2, CASE.new_pack()), prompts(CASE)
    assert trials.pack.generator.uncached_reason == ""
    made: list[KeyValueCache] = []
    make = KeyValueCache.__init__
    monkeypatch.setattr(KeyValueCache, "__init__", lambda c, *a, **k: (made.append(c), make(c, *a, **k))[1])
    kept = answers(trials, asked, cached=True)
    assert len(made) == 1
    assert answers(trials, asked, cached=False) == kept
    assert len(made) == 1
    assert [len(new) for seat in kept for new in seat] == [4] * 2 * len(asked)


def test_both_are_reported_in_tokens_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "NEW_TOKENS", 4)
    report = Report(name="nothing", fixed="", command="")
    compare(CASE, 2, 1, report)
    assert report.notes == []
    ((_, _, rows),) = report.tables
    assert [row[0] for row in rows] == ["kept", "computed again"]
    kept, again, ratio = report.figures.values()
    assert ratio == pytest.approx(kept / again)
    assert kept > 0
