"""Scores of answers: built-in rules, a user's function, and a session that measures them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_runner.base.load_model import BaseSpec, load_tokenizer
from lora_runner.config import TrialConfig
from lora_runner.data import DataBundle, DataSpec, EvalPrompt, load_data
from lora_runner.errors import MetricError
from lora_runner.metric.scores import Metric, MetricSpec
from lora_runner.pack.pack import Pack
from lora_runner.protocol import COMPLETE, FAILED, Assignment, SeatReport, SessionOptions
from lora_runner.session import Session

Reports = dict[int, list[SeatReport]]
PROMPTS = [
    EvalPrompt(ids=(1,), reference=" yes\n", record={"id": 0}),
    EvalPrompt(ids=(2,), reference="no", record={"id": 1}),
    EvalPrompt(ids=(3,), reference='{"a": 1}', record={"id": 2}),
    EvalPrompt(ids=(4,), reference="42", record={"id": 3}),
]


def function(body: str, direction: Any = "maximize") -> MetricSpec:
    """A metric by a function `scoring:score` with this body."""
    source = f"import math\n\ndef score(records, completions):\n    {body}\n"
    return MetricSpec(name="scoring:score", direction=direction, source=source, file="scoring.py")


@pytest.mark.parametrize(
    ("name", "expected"), [("exact_match", 0.5), ("contains", 0.75), ("json_valid", 0.5)]
)
def test_built_in_rules_are_means(name: str, expected: float) -> None:
    completions = ["yes", "\nno ", "no", "so 42."]
    if name == "json_valid":
        completions = ['{"a": [1]}', "{'a': 1}", " 3 ", "yes"]
    assert Metric(MetricSpec(name=name), PROMPTS).score(completions) == expected


def test_a_function_gets_records_and_completions_and_gives_one_number_or_one_each() -> None:
    completions = ["a", "bb", "", "dd"]
    whole = function("assert [r['id'] for r in records] == [0, 1, 2, 3]; return len(completions[1])")
    assert Metric(whole, PROMPTS).score(completions) == 2.0
    each = function("return [len(c) for c in completions]")
    assert Metric(each, PROMPTS).score(completions) == 1.25
    array = function("import numpy; return numpy.array([1.0, 2.0, 3.0, 4.0])")
    assert Metric(array, PROMPTS).score(completions) == 2.5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return math.nan", "must return a finite number, or one for each of 4 records; got nan"),
        ("return [1, 2]", "one for each of 4 records; got 2 of them"),
        ("return [1, 2, math.inf, 4]", "got inf"),
        ("return 'good'", "got 'good'"),
        ("return None", "got None"),
    ],
)
def test_what_is_no_number_is_refused_with_what_was_returned(body: str, said: str) -> None:
    with pytest.raises(MetricError, match="metric scoring:score") as error:
        Metric(function(body), PROMPTS).score(["", "", "", ""])
    assert said in str(error.value)


def test_a_function_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(MetricError, match="has no function 'scores'") as missing:
        Metric(replace(function("return 1"), name="scoring:scores"), PROMPTS)
    assert "score" in missing.value.known
    with pytest.raises(MetricError, match="cannot be imported: ModuleNotFoundError: No module named 'nil'"):
        Metric(replace(function("return 1"), source="import nil\n"), PROMPTS)


def test_prompts_end_where_the_loss_begins_and_carry_answer_and_record(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    records = [{"prompt": f"say {i}: ", "completion": f"<{i}>", "id": i} for i in range(20)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    spec = DataSpec(train=str(tmp_path / "data.jsonl"), eval_fraction=0.5)
    tokenizer = load_tokenizer(BaseSpec(model=str(tiny_model("llama"))))
    prompts = load_data(spec, tokenizer, num_prompts=4).eval_prompts
    assert len(prompts) == 4
    for prompt in prompts:
        record = records[prompt.record["id"]]
        assert tokenizer.decode(prompt.ids, clean_up_tokenization_spaces=False).replace(" ", "") == record[
            "prompt"
        ].replace(" ", "")
        assert prompt.reference.replace(" ", "") == record["completion"]
        assert prompt.stop_token_ids == {1}
    assert load_data(spec, tokenizer).eval_prompts == ()


# --- in a session -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asking(bundle: DataBundle) -> DataBundle:
    """The bundle's evaluation examples as prompts."""
    prompts = tuple(
        EvalPrompt(ids=tuple(e.input_ids[:3]), reference=chr(e.input_ids[3]), record={"id": i})
        for i, e in enumerate(bundle.eval.examples)
    )
    return replace(bundle, eval_prompts=prompts)


def trial(seed: int, learning_rate: float = 3e-2, lora_r: int = 4) -> TrialConfig:
    return TrialConfig(
        learning_rate=learning_rate,
        embedding_learning_rate=learning_rate,
        max_steps=4,
        per_device_train_batch_size=4,
        lora_r=lora_r,
        lora_alpha=8,
        seed=seed,
    )


TRIALS = [trial(1), trial(2, 1e-2, 32), trial(3, 1e-3)]


@pytest.fixture(scope="module")
def session_of(pack: Pack, asking: DataBundle) -> Callable[..., Session]:
    def make(metric: MetricSpec, seats: int = 3) -> Session:
        options = SessionOptions(
            report_at=(25, 50, 75, 100), per_device_eval_batch_size=4, sample_tokens=0, metric=metric
        )
        return Session(pack, asking, options, num_seats=seats)

    return make


def test_a_trials_metric_is_the_same_alone_and_beside_others(
    session_of: Callable[..., Session], run: Callable[..., Reports], assign: Callable[..., Assignment]
) -> None:
    metric = replace(function("return [len(set(c)) for c in completions]"), max_new_tokens=6, every=2)
    together = run(session_of(metric), [assign(i, config) for i, config in enumerate(TRIALS)])
    for i, config in enumerate(TRIALS[:2]):
        alone = run(session_of(metric, 1), [assign(10 + i, config)])[10 + i]
        assert [r.metric for r in together[i]] == [r.metric for r in alone]
    values = {r.metric for reports in together.values() for r in reports if r.metric is not None}
    assert len(values) > 2


def test_it_is_measured_at_every_nth_report_and_at_the_last(
    session_of: Callable[..., Session], run: Callable[..., Reports], assign: Callable[..., Assignment]
) -> None:
    spec = MetricSpec(name="exact_match", max_new_tokens=2, every=3)
    reports = run(session_of(spec, 1), [assign(0, TRIALS[0])])[0]
    assert [(r.percent, r.metric is not None) for r in reports] == [
        (25, False),
        (50, False),
        (75, True),
        (100, True),
    ]
    # The losses of single records are in a file of their own.
    last = replace(reports[-1], record_losses=None)
    assert SeatReport.from_dict(json.loads(json.dumps(reports[-1].to_dict()))) == last


def test_the_untrained_base_is_measured_too(
    session_of: Callable[..., Session], pack: Pack, asking: DataBundle
) -> None:
    metric = replace(function("return [len(set(c)) for c in completions]"), max_new_tokens=6)
    session = session_of(metric)
    prompts = [prompt.ids for prompt in asking.eval_prompts]
    stops = Metric(metric, asking.eval_prompts).stop_token_ids(pack.base.tokenizer.eos_token_id)
    [answers] = pack.generate([None], prompts, 6, stop_token_ids=stops)
    texts = [pack.base.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
    assert session.measure_base() == sum(len(set(text)) for text in texts) / len(texts)
    assert session.take_notes() == []
    failing = session_of(function("raise ZeroDivisionError('no answer')"))
    assert failing.measure_base() is None
    assert failing.take_notes() == ["untouched base: has no scoring:score (ZeroDivisionError: no answer)"]


@pytest.mark.parametrize(
    "body", ["raise ZeroDivisionError('no answer')", "raise SystemExit(3)", "return math.nan"]
)
def test_a_function_that_fails_ends_its_trial_and_no_other(
    session_of: Callable[..., Session],
    run: Callable[..., Reports],
    assign: Callable[..., Assignment],
    body: str,
) -> None:
    calls = "score.calls = getattr(score, 'calls', 0) + 1"
    metric = function(f"{calls}\n    if score.calls == 2:\n        {body}\n    return 0.5")
    metric = replace(metric, max_new_tokens=2, every=4)
    reports = run(session_of(metric), [assign(i, config) for i, config in enumerate(TRIALS)])
    ends = {number: of[-1] for number, of in reports.items()}
    failed = [end for end in ends.values() if end.outcome == FAILED]
    assert len(failed) == 1
    assert [end.outcome for end in ends.values()].count(COMPLETE) == 2
    assert failed[0].error is not None
    if "raise" in body:
        assert failed[0].stop_reason in ("ZeroDivisionError: no answer", "SystemExit: 3")
        assert "scoring.py" in failed[0].error
        assert body in failed[0].error
    else:
        assert failed[0].stop_reason is not None
        assert "must return a finite number" in failed[0].stop_reason
