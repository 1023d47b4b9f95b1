"""lm-eval tasks as a metric, if the package is importable: its own model class gives the same values.

Install it with `pip install lm-eval`, or put it on PYTHONPATH.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lora_runner.errors import Fault, MetricError
from lora_runner.metric.lm_eval_task import TaskEvaluator, load_task
from lora_runner.metric.scores import MetricSpec
from lora_runner.pack.pack import Pack
from sweeps.config import load_text
from sweeps.errors import ConfigError
from sweeps.sweep import Sweep
from tests.lora_runner.pack.test_generation import trained
from tests.lora_runner.plain_models import plain_nf4

pytestmark = [
    pytest.mark.skipif(
        find_spec("lm_eval") is None,
        reason="lm_eval cannot be imported; with `pip install lm-eval` these tests run",
    ),
    pytest.mark.filterwarnings("ignore"),  # the package's own
]
KINDS = {
    "multiple_choice": """\
output_type: multiple_choice
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
""",
    "generate_until": """\
output_type: generate_until
generation_kwargs: {until: ["x"], max_gen_toks: 4, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "loglikelihood_rolling": """\
output_type: loglikelihood_rolling
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
}


@pytest.fixture
def task(tmp_path: Path) -> Callable[[str, Pack | None], str]:
    """`task(kind, pack)`: the YAML text of a task `letters`; some answers are those of the plain base."""

    def write(kind: str, pack: Pack | None = None) -> str:
        documents = []
        for i in range(12):
            question, choices = f"{i * 7919}:", ["ab", "cd", "efg"]
            document: dict[str, Any] = {"question": question, "choices": choices, "answer": i % 3}
            if kind == "generate_until":
                assert pack is not None
                [[ids]] = pack.generate([None], [[ord(c) for c in question]], 4)
                document["answer"] = pack.base.tokenizer.decode(ids).split("x")[0] if i % 3 else "no"
            documents.append(document)
        data = tmp_path / "letters.jsonl"
        data.write_text("".join(json.dumps(d) + "\n" for d in documents))
        target = "{{question}}" if kind == "loglikelihood_rolling" else "{{answer}}"
        return (
            "task: letters\ndataset_path: json\n"
            f"dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {tmp_path / 'cache'}}}\n"
            f'test_split: test\ndoc_to_text: "{{{{question}}}}"\ndoc_to_target: "{target}"\n{KINDS[kind]}'
        )

    return write


@pytest.mark.parametrize("kind", list(KINDS))
def test_lm_evals_own_model_class_gives_the_plain_bases_value(
    pack: Pack, task: Callable[..., str], kind: str, tmp_path: Path
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    source = task(kind, pack)
    spec = MetricSpec(name="lm_eval:letters", source=source, num_prompts=9)
    [ours] = TaskEvaluator(pack, spec, batch_size=4).measure([None])
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "letters.yaml").write_text(source)
    plain = plain_nf4(pack.base.spec.model).eval()
    theirs = simple_evaluate(
        HFLM(pretrained=plain, tokenizer=pack.base.tokenizer, batch_size=1),
        tasks=["letters"],
        limit=9,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
    )
    metric = load_task("lm_eval:letters", source, num_documents=9, max_new_tokens=4).metric
    expected = theirs["results"]["letters"][f"{metric},none"]
    assert ours == pytest.approx(expected, rel=1e-4)
    assert ours not in (0.0, 1.0)


def test_every_seat_has_its_own_value_and_the_same_again(pack: Pack, task: Callable[..., str]) -> None:
    spec = MetricSpec(name="lm_eval:letters", source=task("loglikelihood_rolling"), num_prompts=5)
    measuring = TaskEvaluator(pack, spec, batch_size=2)
    seats = [trained(pack, 8, 1), None, trained(pack, 32, 2)]
    together = measuring.measure(seats)
    assert not any(isinstance(value, Fault) for value in together)
    assert len(set(together)) == 3
    assert [value for seat in seats for value in measuring.measure([seat])] == together


def test_what_is_not_there_is_told_with_what_is(task: Callable[..., str]) -> None:
    source = task("multiple_choice")

    def refused(name: str, source: str = source) -> MetricError:
        with pytest.raises(MetricError) as error:
            load_task(name, source, num_documents=2, max_new_tokens=2)
        return error.value

    assert "has no metric 'accuracy'; it has acc, acc_norm" in str(refused("lm_eval:letters:accuracy"))
    assert "not the task of the file, which is letters" in str(refused("lm_eval:letter"))
    unsafe = refused("lm_eval:letters", source + "unsafe_code: true\n")
    assert "runs code that a model wrote" in str(unsafe)
    named = load_task("lm_eval:letters:acc_norm", source, num_documents=99, max_new_tokens=2)
    assert (named.metric, named.direction, named.num_documents) == ("acc_norm", "maximize", 12)


@pytest.mark.slow
def test_an_unknown_task_is_bad_input_at_plan(
    tmp_path: Path, tiny_model: Callable[..., Path], task: Callable[..., str]
) -> None:
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": f"t {i}"}) + "\n" for i in range(40)))
    (tmp_path / "letters.yaml").write_text(task("loglikelihood_rolling"))
    head = f"name: n\nmodel: {tiny_model('llama')}\ndata: data.jsonl\ntraining: {{max_steps: 10}}\n"

    def planned(metric: str) -> Any:
        file = tmp_path / "sweep.yaml"
        file.write_text(f"{head}metric: {metric}\n")
        return Sweep.load(file).plan()

    with pytest.raises(ConfigError, match="Did you mean 'hellaswag'") as error:
        planned("lm_eval:helaswag")
    assert error.value.problems[0].line == 5
    with pytest.raises(ConfigError, match=r"metric\.direction must be minimize"):
        planned("{name: 'lm_eval:letters', file: letters.yaml, direction: maximize}")
    blueprint = planned("{name: 'lm_eval:letters', file: letters.yaml, objective: true}")
    metric = blueprint.study_spec.metric
    assert (metric.direction, metric.num_prompts, metric.max_new_tokens) == ("minimize", 12, 0)
    assert metric.prompt_length == 6
    assert blueprint.study_spec.context["metric"]["num_prompts"] == 12
    assert load_text(head + "metric: lm_eval:letters:acc\n", tmp_path / "s.yaml").metric is not None
