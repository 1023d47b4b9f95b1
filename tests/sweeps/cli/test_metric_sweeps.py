"""A metric in a sweep: read, found, searched by or watched, and told beside the loss."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lora_runner.base.load_model import BaseSpec
from lora_runner.config import TrialConfig
from lora_runner.memory.estimate import Workload, estimate
from lora_runner.metric.scores import MetricSpec
from lora_runner.protocol import FAILED
from results.best import best_config
from results.comparison.arms import Replicate
from results.render.json_data import verdict_data
from results.render.markdown import to_markdown
from results.render.trials_table import trials_table
from results.sweep_result import read_study
from results.tables import parameters_of, reports_frame, trials_frame
from results.text.metric import metric_sentences
from results.verdict.metric_comparison import compare_metric
from results.verdict.replicates import Replicates
from results.verdict.verdict import verdict
from sweeps.config import load_sweep, load_text, resolved
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.confirm.arms import choose_arms
from sweeps.dashboard.study_view import _name_of_value
from sweeps.errors import ConfigError, StudyMismatch
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.trials.recorder import adapters_to_keep
from sweeps.plan.metric_setup import metric_of
from sweeps.plan.view.overview import metric_lines
from sweeps.study.read_status import read_status
from sweeps.sweep import Sweep
from sweeps.tracking.trial_record import read_records
from sweeps.view.screen import Screen
from tests.results.conftest import answer_of
from tests.sweeps.conftest import SimulatedPack, bowl

HEAD = "name: small\nmodel: some/model\ndata: some/data\ntraining: {max_steps: 100}\n"


# --- the sweep file ----------------------------------------------------------------------------------


def test_a_name_alone_and_a_mapping_are_read_and_written_down(tmp_path: Path) -> None:
    config = load_text(HEAD + "metric: exact_match\n", tmp_path / "sweep.yaml")
    assert config.metric is not None
    assert (config.metric.name, config.metric.objective, config.metric.num_prompts) == (
        "exact_match",
        False,
        64,
    )
    text = HEAD + "metric: {name: contains, max_new_tokens: 5, every: 2, objective: true, num_prompts: 7}\n"
    config = load_text(text, tmp_path / "sweep.yaml")
    assert load_text(resolved(config), tmp_path / "sweep.yaml") == config
    assert load_text(HEAD, tmp_path / "sweep.yaml").metric is None


@pytest.mark.parametrize(
    ("given", "line", "said"),
    [
        ("metric: exact_mach", 5, ["got 'exact_mach'", "Did you mean 'exact_match'?", "module:function"]),
        (
            "metric:\n  name: contains\n  every: 0",
            7,
            ["metric.every must be a whole number, at least 1; got 0"],
        ),
        ("metric:\n  name: contains\n  direction: up", 7, ["got 'up'", "Known: maximize, minimize"]),
        ("metric:\n  name: contains\n  direction: minimize", 7, ["contains is better when higher"]),
        ("metric: scoring:score", 5, ["is needed for a function: maximize or minimize"]),
        ("metric:\n  name: contains\n  objectiv: true", 7, ["Did you mean 'objective'?"]),
        ("metric:\n  name: contains\n  file: a.py", 7, ["contains is built in"]),
        ("metric: {objective: true}", 5, ["metric", "name"]),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, given: str, line: int, said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_text(f"{HEAD}{given}\n", tmp_path / "sweep.yaml")
    (problem,) = error.value.problems
    assert problem.line == line, str(problem)
    for words in said:
        assert words in problem.message


def test_a_function_is_found_beside_the_file_and_its_text_is_its_identity(tmp_path: Path) -> None:
    (tmp_path / "scoring.py").write_text("def score(records, completions):\n    return 1\n")
    file = tmp_path / "sweep.yaml"
    text = HEAD + "metric: {name: 'scoring:score', direction: minimize}\n"
    config = load_text(text, file)
    assert config.metric is not None
    assert config.metric.file == str(tmp_path / "scoring.py")
    spec = metric_of(config, None)  # type: ignore[arg-type]
    assert spec is not None
    assert spec.source == (tmp_path / "scoring.py").read_text()
    # From a run folder, where no such file stands beside.
    (tmp_path / "elsewhere").mkdir()
    assert load_text(resolved(config), tmp_path / "elsewhere" / "sweep.yaml").metric == config.metric
    before = spec.identity()
    (tmp_path / "scoring.py").write_text("def score(records, completions):\n    return 2\n")
    after = metric_of(config, None)  # type: ignore[arg-type]
    assert after is not None
    assert {k for k in before if before[k] != after.identity()[k]} == {"source"}


def test_a_module_on_pythons_path_is_found_at_every_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "answers_scored.py").write_text("def score(records, completions):\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    text = HEAD + "metric: {name: 'answers_scored:score', direction: maximize}\n"
    config = load_text(text, tmp_path / "sweep.yaml")
    first, second = (metric_of(config, None) for _ in range(2))  # type: ignore[arg-type]
    assert first is not None
    assert first == second
    assert first.file == str(tmp_path / "path" / "answers_scored.py")


@pytest.mark.parametrize(
    ("name", "module", "said"),
    [
        ("scoring:scor", "def score(records, completions): return 1\n", "Did you mean 'score'?"),
        ("scoring:score", "import nothing_like_it\n", "cannot be imported: ModuleNotFoundError"),
        ("scoring:score", "def score(:\n", "cannot be imported: SyntaxError"),
        ("nowhere:score", "", "there is no module 'nowhere'"),
    ],
)
def test_a_function_that_is_not_to_be_had_is_told_at_plan(
    tmp_path: Path, tiny_model: Callable[..., Path], name: str, module: str, said: str
) -> None:
    (tmp_path / "scoring.py").write_text(module)
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, tiny_model, f"{{name: '{name}', direction: maximize}}").plan()
    (problem,) = error.value.problems
    assert said in problem.message
    assert problem.path == str(tmp_path / "sweep.yaml")
    assert problem.line == 5


def test_a_task_without_its_package_is_told_with_how_to_install_it(
    tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.tasks", raising=False)
    with pytest.raises(ConfigError, match=r'install it with: pip install "lm-eval>=') as error:
        planned(tmp_path, tiny_model, "lm_eval:hellaswag:acc_norm").plan()
    assert error.value.problems[0].line == 5
    for wrong in ("'lm_eval:'", "'lm_eval:a:b:c'"):
        with pytest.raises(ConfigError, match=r"or lm_eval:TASK\[:METRIC\]"):
            load_text(f"{HEAD}metric: {wrong}\n", tmp_path / "s.yaml")


def planned(folder: Path, tiny_model: Callable[..., Path], metric: str, **record: str) -> Sweep:
    key, *_ = record or ("prompt",)
    records = [
        {key: f"{i}:", "completion": "a"} if key == "prompt" else {key: f"text {i}"} for i in range(40)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "sweep.yaml").write_text(
        f"name: small\nmodel: {tiny_model('llama')}\ndata: data.jsonl\ntraining: {{max_steps: 10}}\n"
        f"metric: {metric}\n"
    )
    return Sweep.load(folder / "sweep.yaml")


def test_texts_without_prompts_are_refused_at_plan(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="needs evaluation records with a prompt and an answer") as error:
        planned(tmp_path, tiny_model, "contains", text="x").plan()
    assert error.value.problems[0].line == 5


def test_the_plan_says_what_makes_the_study_another_one(
    tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    study_spec = planned(tmp_path, tiny_model, "{name: contains, objective: true}").plan().study_spec
    assert study_spec.identity["metric"] == "contains"
    assert study_spec.identity["measured"]["num_prompts"] == 2  # a twentieth of 40 records
    watched = planned(tmp_path, tiny_model, "contains").plan()
    assert watched.study_spec.identity["metric"] == "eval_loss"
    first, second, third = metric_lines(watched)
    assert first == "contains (maximize): recorded beside the loss"
    assert second.startswith(
        "2 evaluation prompts (of the 64 asked for, there are no more), answers of at most 32 tokens; "
        "measured at 20%"
    )
    assert third.startswith("measured once on the untouched base; keys and values are cached")
    account = watched.summary()["metric"]
    assert (account["objective"], account["num_prompts"], account["measured_at"][-1]) == (False, 2, 100)
    assert len(watched.worker_spec.data.eval_prompts) == 2
    assert watched.worker_spec.session.metric == watched.study_spec.metric


# --- the study ------------------------------------------------------------------------------------------


def score(config: TrialConfig, percent: int) -> float:
    """Highest at a rate of 1e-4, where the loss (lowest at 1e-3) is not at its best."""
    return percent / 100 / (1 + abs(config.learning_rate / 1e-4 - 1))


class ScoringPack(SimulatedPack):
    """Reports a metric beside the loss, at every `every`-th report and at the last."""

    def reports(self) -> list[Any]:
        metric, assignments = self.keeper.study_spec.metric, {a.number: a for a in self.seats.values()}
        assert metric is not None
        return [
            replace(r, metric=score(assignments[r.number].config, r.percent))
            if metric.is_measured(r.percent, self.report_at)
            else r
            for r in super().reports()
        ]


@pytest.fixture
def measuring(make_keeper: Callable[..., Keeper]) -> Callable[..., Keeper]:
    """`measuring(metric, ...)`: a keeper of a sweep with this metric."""

    def make(metric: MetricSpec, **options: Any) -> Keeper:
        import tests.sweeps.conftest as plain

        build = plain.build_study_spec

        def with_metric(*arguments: Any, **named: Any) -> Any:
            study_spec = build(*arguments, **named)
            identity = metric.identity()
            return replace(
                study_spec,
                metric=metric,
                context=study_spec.context | {"metric": identity},
                identity=study_spec.identity | {"measured": identity},
            )

        plain.build_study_spec = with_metric
        try:
            return make_keeper(**options)
        finally:
            plain.build_study_spec = build

    return make


OBJECTIVE = MetricSpec(name="exact_match", objective=True)


def test_the_objective_is_searched_pruned_and_ranked_by(measuring: Callable[..., Keeper]) -> None:
    keeper = measuring(OBJECTIVE, trials=12)
    ScoringPack(keeper).run()
    trials = keeper.study.get_trials()
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    rates = {t.number: TrialConfig.from_dict(t.user_attrs["config"]) for t in complete}
    for trial in complete:
        assert trial.value == -score(rates[trial.number], 100)  # a study minimises
        assert trial.user_attrs["eval_loss"] == bowl(rates[trial.number], 100)
    pruned = [t for t in trials if t.state == TrialState.PRUNED]
    assert pruned
    assert all("exact_match 0." in t.user_attrs["stop_reason"] for t in pruned)
    best = max(complete, key=lambda t: t.user_attrs["metric"])
    status = read_status(keeper.study, 12)
    assert status.best is not None
    assert (status.best["number"], status.best["metric"]) == (best.number, best.user_attrs["metric"])
    assert status.best["eval_loss"] == best.user_attrs["eval_loss"]
    assert keeper.study.user_attrs["metric"] == "exact_match"
    assert best_config(keeper.study)["sweep"]["trial"] == best.number
    page = to_markdown(verdict(keeper.study), answer_of(keeper.study))
    assert f"| best (trial {best.number}) |" in page
    assert f": exact_match {best.user_attrs['metric']:.3g}, loss" in page


def test_the_untouched_bases_value_is_asked_for_once_and_told(measuring: Callable[..., Keeper]) -> None:
    keeper = measuring(replace(OBJECTIVE, objective=False), trials=4, pruner="none")
    assert keeper.register(0, 3.25).measure_base
    reply = keeper.register(1, 3.25, None, [0, 1])
    assert reply.measure_base  # nobody has answered yet
    assert reply.start == ()
    keeper.record_base_metric(0, 0.125)
    assert [placed.seat for placed in keeper.record_base_metric(1, 0.25, [0, 1]).start] == [0, 1]
    keeper.give_back(1)
    assert not keeper.register(2, 3.25).measure_base
    ScoringPack(keeper).run()
    status = read_status(keeper.study, 4)
    assert status.base_metric == 0.125
    shown = "\n".join(line.plain for line in Screen().lines(status, width=120, height=40))
    assert "untouched base 3.250, exact_match 0.125" in shown
    said = verdict(keeper.study).by_metric
    assert said is not None
    assert said.base == 0.125
    assert "The untouched base has exact_match 0.1250." in metric_sentences(said)


def test_a_sweep_without_a_metric_asks_nothing_of_the_base(make_keeper: Callable[..., Keeper]) -> None:
    assert not make_keeper().register(0, 3.25).measure_base


def test_the_dashboard_says_that_the_study_holds_the_negative() -> None:
    context = {"metric": OBJECTIVE.identity()}
    assert _name_of_value({"metric": "exact_match", "context": context}) == "negative exact_match"
    watched = {"metric": replace(OBJECTIVE, objective=False).identity()}
    assert _name_of_value({"metric": "eval_loss", "context": watched}) == "eval_loss"
    assert _name_of_value({}) is None


def test_a_minimised_function_ranks_the_other_way(measuring: Callable[..., Keeper]) -> None:
    spec = MetricSpec(name="scoring:score", direction="minimize", objective=True)
    keeper = measuring(spec, trials=6, pruner="none")
    ScoringPack(keeper).run()
    values = {t.number: t.user_attrs["metric"] for t in keeper.study.get_trials()}
    assert best_config(keeper.study)["sweep"]["trial"] == min(values, key=values.__getitem__)
    assert keeper.study.best_value == min(values.values())


def test_a_function_that_gave_no_value_yet_may_be_mended(measuring: Callable[..., Keeper]) -> None:
    spec = MetricSpec(name="scoring:score", objective=True, source="raises", file="scoring.py")
    options = {"trials": 4, "reliability": ReliabilitySection(max_failures=2)}
    broken = measuring(spec, **options)
    broken.record_base_metric(0, 0.5)
    SimulatedPack(broken, loss=lambda config, percent: FAILED).run()
    broken.leave()
    mended = replace(spec, source="mended")
    keeper = measuring(mended, **options)
    assert keeper.study.user_attrs["identity"]["measured"] == mended.identity()
    assert keeper.study.user_attrs["context"]["metric"] == mended.identity()
    assert keeper.register(0, 3.25).measure_base  # the base's value was the old one's
    ScoringPack(keeper).run()
    assert read_status(keeper.study, 4).finished == 4
    keeper.leave()
    with pytest.raises(StudyMismatch, match=r"measured\.source: the study has"):
        measuring(replace(spec, source="another"), **options)
    with pytest.raises(StudyMismatch, match=r"measured\.max_new_tokens"):
        measuring(replace(mended, max_new_tokens=5), **options)


def test_of_equal_values_everybody_takes_the_trial_with_the_lowest_loss(
    measuring: Callable[..., Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "score", lambda config, percent: 0.0)
    keeper = measuring(OBJECTIVE, trials=6, pruner="none")
    ScoringPack(keeper).run()
    trials = keeper.study.get_trials()
    lowest = min(trials, key=lambda t: t.user_attrs["eval_loss"]).number
    assert lowest not in (0, 1), "the first of equal ones should be another"
    status = read_status(keeper.study, 6)
    assert status.best is not None
    assert status.best["number"] == best_config(keeper.study)["sweep"]["trial"] == lowest
    assert lowest in adapters_to_keep(trials, 1)


def test_a_report_without_the_metric_prunes_nobody(measuring: Callable[..., Keeper]) -> None:
    keeper = measuring(replace(OBJECTIVE, every=2), trials=8)
    ScoringPack(keeper).run()
    trials = keeper.study.get_trials()
    assert {p for t in trials for p in t.intermediate_values} <= {40, 80, 100}
    assert all(t.last_step in (40, 80, 100) for t in trials)
    frame = reports_frame(keeper.study)
    assert set(frame["percent"]) == {20, 40, 60, 80, 100}
    assert frame[frame["percent"] == 20]["metric"].isna().all()
    assert frame["eval_loss"].notna().all()


def test_verdict_and_tables_say_both_values(measuring: Callable[..., Keeper]) -> None:
    keeper = measuring(replace(OBJECTIVE, objective=False), trials=10, pruner="none")
    ScoringPack(keeper).run()
    trials = keeper.study.get_trials()
    by_loss = min(trials, key=lambda t: t.value or 0.0)
    by_metric = max(trials, key=lambda t: t.user_attrs["metric"])
    assert by_loss.number != by_metric.number
    assert by_loss.value == by_loss.user_attrs["eval_loss"]
    said = verdict(keeper.study).by_metric
    assert said is not None
    assert said.differs
    assert (said.by_loss.number, said.by_metric.number) == (by_loss.number, by_metric.number)
    text = " ".join(metric_sentences(said))
    assert f"The best by loss is not the best by exact_match: trial {by_loss.number} has loss" in text
    assert f"trial {by_metric.number} with {by_metric.user_attrs['metric']:.4f}" in text
    assert verdict_data(verdict(keeper.study), answer_of(keeper.study))["measured"]["differs"] is True
    assert best_config(keeper.study)["sweep"]["trial"] == by_loss.number
    frame = trials_frame(keeper.study)
    assert list(frame["metric"]) == [t.user_attrs["metric"] for t in trials]
    assert "metric" not in parameters_of(frame)
    header = trials_table(frame, width=100)[0].plain
    assert header.split()[:4] == ["trial", "loss", "metric", "outcome"]
    record = read_records(keeper.study, keeper.folder)[0]
    assert record.final["metric"] == trials[0].user_attrs["metric"]
    assert [point.values["metric"] for point in record.points][-1] == trials[0].user_attrs["metric"]


def test_a_confirmation_runs_the_best_by_the_metric_too_and_tells_the_interval(
    measuring: Callable[..., Keeper],
) -> None:
    keeper = measuring(replace(OBJECTIVE, objective=False), trials=10, pruner="none")
    ScoringPack(keeper).run()
    sweep = read_study(keeper.study)
    assert sweep.best_by_metric is not None
    arms = choose_arms(sweep, keeper.study_spec, rows=False)
    name = next(arm.name for arm in arms if dict(arm.values) == dict(sweep.best_by_metric.params))
    runs = [
        Replicate(arm=arm, seed=seed, eval_loss=2.0, metric=value + 0.01 * seed)
        for seed in range(4)
        for arm, value in (("best", 0.5), (name, 0.75 + 0.001 * seed))
    ]
    said = compare_metric(sweep, Replicates(arms=arms, runs=runs))
    assert said is not None
    assert said.comparison is not None
    differences = [0.25 + 0.001 * seed for seed in range(4)]
    assert said.comparison.effect == pytest.approx(sum(differences) / 4)
    assert said.comparison.pairs == 4
    assert said.comparison.low is not None
    assert 0 < said.comparison.low < 0.25 + 0.0015
    text = " ".join(metric_sentences(said))
    assert f"On 4 common seeds trial {said.by_metric.number} against trial {said.by_loss.number}" in text
    assert "exact_match +0.2515 (+0." in text


def test_memory_counts_the_keys_and_values_of_the_answers(tiny_model: Callable[..., Path]) -> None:
    plain = Workload(lora_r=4, batch_size=1, length=8, eval_batch_size=1, eval_length=8)
    asking = replace(plain, num_prompts=16, prompt_length=50, max_new_tokens=70)
    spec = BaseSpec(model=str(tiny_model("llama")))
    extra = estimate(spec, asking).total(4) - estimate(spec, plain).total(4)
    # 2 layers, keys and values, 2 heads of 16, fp32, 120 tokens padded to 120, 16 prompts, 4 seats.
    assert extra > 2 * 2 * 2 * 16 * 4 * 120 * 16 * 4


def test_a_sweep_without_a_metric_has_no_column_of_it(make_keeper: Callable[..., Keeper]) -> None:
    keeper = make_keeper(trials=2)
    SimulatedPack(keeper).run()
    assert "metric" not in trials_frame(keeper.study).columns
    assert "metric" not in reports_frame(keeper.study).columns
    assert verdict(keeper.study).by_metric is None
    assert "measured" not in verdict_data(verdict(keeper.study), answer_of(keeper.study))


def test_the_resolved_file_is_read_from_the_run_folder(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(HEAD + "metric: exact_match\n")
    config = load_sweep(file, overrides={"metric.objective": True}, check_files=False)
    assert config.metric is not None
    assert (config.metric.name, config.metric.objective) == ("exact_match", True)
