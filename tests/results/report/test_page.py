"""What the report's page holds, whatever the state of the study."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from results.answer.read_answer import read_answer
from results.sweep_result import read_study
from results.text.answer import done_text, headline, next_text, sure_text, use_text
from results.text.parameters import best_text, parameter_title, table_lines
from results.verdict.verdict import verdict
from search_spaces import Dimension, SearchSpace
from tests.results.report.conftest import SWEEP_FILE, XSS, many_trials

Page = Callable[..., Path]
SECTIONS = ["answer", "next", "parameters", "curves", "embedding", "importance", "signs", "early", "details"]
CHARTS = [
    f"chart-{name}"
    for name in ("learning-rate", "curves", "embedding-ratio", "importance", "parallel", "timeline")
]


class Reader(HTMLParser):
    """The page's own elements and text, without its scripts' and styles'."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = [tag]

    def handle_endtag(self, tag: str) -> None:
        self._open = []
        if tag not in ("span", "b", "a"):
            self.texts.append(" ")  # blocks and cells stand apart from each other

    def handle_data(self, data: str) -> None:
        if self._open not in (["script"], ["style"], ["title"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All words, with spaces as they are read."""
        return " ".join("".join(self.texts).split())


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def sections_of(path: Path) -> list[str]:
    return [str(attrs["id"]) for tag, attrs in read(path).tags if tag == "section"]


def charts_of(path: Path) -> list[str]:
    return [str(attrs["id"]) for tag, attrs in read(path).tags if attrs.get("class") == "chart"]


def test_the_sections_stand_in_order_and_the_answer_comes_first(rich_page: Path) -> None:
    assert sections_of(rich_page) == SECTIONS


def test_the_plot_of_the_rate_follows_the_answer_and_the_commands_follow_it(rich_page: Path) -> None:
    page = rich_page.read_text(encoding="utf-8")
    order = ["How sure?", 'id="chart-learning-rate"', 'id="next"', "sweeps run runs/demo", 'id="parameters"']
    found = [page.index(wanted) for wanted in order]
    assert found == sorted(found)


def test_every_number_is_the_answers(rich: optuna.Study, rich_page: Path) -> None:
    reader = read(rich_page)
    found = read_answer(read_study(rich), verdict(rich), run_folder="runs/demo", target=40)
    assert found.best is not None
    commands = [command.command for command in found.next]
    wanted = [
        headline(found),
        use_text(found),
        f"How sure? {sure_text(found)}",
        done_text(found.run),
        *commands,
        *map(next_text, found.next),
    ]
    for parameter in found.parameters:
        first = table_lines(parameter, found)[0]
        cells = (
            parameter_title(parameter.parameter),
            best_text(parameter, found),
            f"{first.value} ({first.rows})",
        )
        wanted.append(" ".join((*cells, first.position, first.cost, first.word)))
    for text in wanted:
        assert " ".join(text.split()) in reader.text, text
    assert [attrs["aria-label"] for tag, attrs in reader.tags if tag == "button"] == [
        f"Copy: {command}" for command in commands
    ]


COUNTS = {"num_records": 2000, "num_used": 1800, "num_sequences": 1800, "num_target_tokens": 90_000}


def test_what_became_of_the_records_is_told_and_warnings_stand_with_the_answer(
    make_trial: Any, make_study: Any, page: Page
) -> None:
    account = {
        "train": COUNTS | {"num_dropped": 200, "num_lost_target_tokens": 10_000, "lost_share": 0.1},
        "eval": COUNTS | {"num_empty": 0, "lost_share": 0.0, "max_length_for_all": 812},
        "warnings": [f"training: too long {XSS}"],
        "notices": ["columns not used: id"],
    }
    study = make_study(make_trial(2.5, lr=2e-4), context={"data_account": account})
    text = read(page(study)).text
    assert text.count(f"Data: training: too long {XSS}.") == 1  # among what limits the answer
    assert text.index("Data: training") < text.index("What became of the records")
    assert "1,800 of 2,000 training records used, 90,000 tokens with loss" in text
    _, table = text.split("What became of the records")
    for fact in (
        "records read 2,000 2,000",
        "dropped: nothing to learn lies within max_length 200 0",
        "tokens with loss beyond max_length 10,000 0",
        "share of the tokens with loss that is lost 10.0% 0.0%",
        "max_length that loses nothing 0 812",
        "columns not used: id",
    ):
        assert fact in table, table
    assert "empty: no answer" not in table
    assert "data" not in sections_of(page(make_study(make_trial(2.5, lr=2e-4))))


def test_three_tiles_say_loss_cost_and_base(make_trial: Any, make_study: Any, page: Page) -> None:
    study = make_study(
        make_trial(2.5, lr=2e-4, label="guideline default"), make_trial(2.0, lr=1e-3), base=4.0
    )
    text = read(page(study)).text
    assert "Use learning_rate 1e-3" in text
    assert "Best loss, nats per token 2.000 trial 1" in text
    assert "The guideline default costs +25.0% +0.500 nats, loss 2.500" in text
    assert "The untouched base 4.000 +100% against the best, +2.000 nats" in text
    assert "How sure? Not yet: one run per configuration." in text


@pytest.mark.parametrize(
    ("default", "said"),
    [
        ({"outcome": "failed", "reason": "no such file"}, "unknown failed: no such file"),
        ({"loss": 1.9}, "nothing it is the best"),
        (None, "unknown not tried"),
    ],
)
def test_a_default_that_cannot_be_compared_says_why(
    make_trial: Any, make_study: Any, page: Page, default: dict[str, Any] | None, said: str
) -> None:
    trials = [make_trial(2.0, lr=1e-3)]
    trials += [] if default is None else [make_trial(label="guideline default", **default)]
    assert f"The guideline default costs {said}" in read(page(make_study(*trials))).text


def test_a_best_by_the_metric_is_named_by_it(make_trial: Any, make_study: Any, page: Page) -> None:
    spec = {"name": "exact_match", "direction": "maximize", "objective": True}
    trials = [
        make_trial(2.0, lr=1e-3, attrs={"metric": 0.25, "eval_loss": 2.0}),
        make_trial(2.2, lr=4e-4, attrs={"metric": 0.75, "eval_loss": 2.2}),
    ]
    study = make_study(*trials, context={"metric": spec})
    text = read(page(study)).text
    assert "Use learning_rate 4e-4" in text
    assert "exact_match 0.75, loss 2.200" in text
    assert "Best exact_match 0.75 loss 2.200" in text
    assert "Best loss" not in text
    assert "Searched by exact_match (maximize)" in text


SAMPLES = {"prompts": ["1 + 1 ="], "answers": [" 2"], "generations": [" 1" * 400]}


def test_base_default_and_best_write_beside_the_reference(
    make_trial: Any, make_study: Any, page: Page
) -> None:
    study = make_study(
        make_trial(2.5, label="guideline default", attrs={"generations": [XSS]}),
        make_trial(2.0, lr=1e-3, attrs={"generations": ["\n"]}),
    )
    assert "samples" not in sections_of(page(study))
    study.set_user_attr("base_samples", SAMPLES)
    path = page(study)
    text = read(path).text
    assert "Prompt 1 + 1 = Reference answer 2 Untouched base 1 1 1" in text
    assert f"1 … Guideline default {XSS} Best (nothing)" in text
    assert " 1" * 165 not in text  # cut
    assert not [tag for tag, _ in read(path).tags if tag in ("img", "b")]


def test_a_long_prompt_shows_its_end(make_trial: Any, make_study: Any, page: Page) -> None:
    study = make_study(make_trial(2.0, attrs={"generations": ["x"]}))
    long = "\n".join(f"line {n}" for n in range(300)) + "\nquestion?"
    study.set_user_attr("base_samples", SAMPLES | {"prompts": [long]})
    text = read(page(study)).text
    assert "question? Reference answer" in text
    assert "line 0" not in text
    assert "Prompt … " in text


def test_the_same_study_gives_the_same_bytes(rich: optuna.Study, rich_page: Path, page: Page) -> None:
    assert page(rich, target=40).read_bytes() == rich_page.read_bytes()


def test_nothing_on_the_page_points_outside_of_it(rich_page: Path) -> None:
    reader = read(rich_page)
    for tag, attrs in reader.tags:
        assert "src" not in attrs, tag
        assert (attrs.get("href") or "#").startswith(("#", "data:image/svg+xml;")), attrs
    policy = next(attrs["content"] for tag, attrs in reader.tags if tag == "meta" and "content" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline'; img" in policy  # for styles alone
    assert "unsafe-eval" not in policy


def test_names_and_reasons_are_text_and_never_elements(rich_page: Path) -> None:
    reader = read(rich_page)
    assert not [tag for tag, _ in reader.tags if tag in ("img", "b")]
    assert reader.text.count(" ".join(XSS.split())) >= 3


def test_numbers_that_are_none_never_reach_the_page(rich_page: Path) -> None:
    page = rich_page.read_text(encoding="utf-8")
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert len(cells) > 100
    assert not {"nan", "inf", "-inf", "NaN"} & set(cells)
    drawn = " ".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert not re.search(r'="[^"]*(nan|inf\b)', drawn, re.I)


def test_every_chart_has_a_caption_and_a_label(rich_page: Path) -> None:
    assert charts_of(rich_page) == CHARTS
    figures = re.findall("<figure>(.*?)</figure>", rich_page.read_text(encoding="utf-8"), re.S)
    assert len(figures) == len(CHARTS)
    assert all(len(re.findall("<figcaption>(.+?)</figcaption>", figure, re.S)) == 1 for figure in figures)
    pictures = [attrs for tag, attrs in read(rich_page).tags if tag == "svg"]
    assert all(attrs["role"] == "img" and len(attrs["aria-label"] or "") > 40 for attrs in pictures)


def test_how_to_reproduce_holds_the_file_seeds_versions_and_hashes(rich_page: Path) -> None:
    text = read(rich_page).text
    for wanted in (" ".join(SWEEP_FILE.split()), "seed of the search 13", "seed of the data 11"):
        assert wanted.replace(" ", "") in text.replace(" ", ""), wanted
    for wanted in ("transformers", "5.23.0", "d1", "sweeps run sweep.yaml", "sweeps report runs/demo"):
        assert wanted in text, wanted


def test_how_to_reproduce_says_how_the_workers_computed(make_trial: Any, make_study: Any, page: Page) -> None:
    study = make_study(make_trial(2.0))
    assert "How the workers computed" not in read(page(study)).text
    path = {"device": "NVIDIA H200", "path": "general", "certificate": {"format": 1}}
    notes = ["the fused path is not taken: norms differ"]
    study.set_user_attr("compute_paths", [path | {"details": ["general: norms differ"], "notes": notes}])
    text = read(page(study)).text
    assert "How the workers computed" in text
    for wanted in ("NVIDIA H200", "general: norms differ; the fused path is not taken: norms differ"):
        assert wanted in text, wanted


@pytest.mark.parametrize(
    ("ended", "target", "said"),
    [(3, 3, False), (3, 5, True), (3, None, False)],
)
def test_an_unfinished_sweep_says_so_first(
    make_trial: Any, make_study: Any, page: Page, ended: int, target: int | None, said: bool
) -> None:
    text = read(page(make_study(*(make_trial(2.0 + n) for n in range(ended))), target=target)).text
    first = "The answer This sweep is not finished: 3 of 5 trials so far."
    assert (first in text) == said
    assert ("Everything below can still change." in text) == said
    assert ("sweeps run runs/demo" in text.split("Details")[0]) == said


def test_a_running_trial_makes_a_sweep_unfinished(make_trial: Any, make_study: Any, page: Page) -> None:
    study = make_study(make_trial(2.0), make_trial(outcome="running", reports={20: 2.5}))
    assert "This sweep is not finished: 1 trial so far." in read(page(study)).text


def test_without_any_trial_there_is_a_page_that_says_so(make_study: Any, page: Page) -> None:
    path = page(make_study())
    assert "No trial has been tried yet." in read(path).text
    assert (sections_of(path), charts_of(path)) == (["answer", "details"], [])


def test_failed_trials_alone_leave_their_reasons(make_trial: Any, make_study: Any, page: Page) -> None:
    study = make_study(*(make_trial(outcome="failed", reason=f"no such file {n}") for n in range(3)))
    text = read(page(study)).text
    assert "No trial finished its full budget with a finite loss." in text
    assert "(3 failed)" in text
    assert "no such file 2" in text
    assert "3 trials failed: mend the reason below" in text
    assert "Best loss" not in text


def test_nothing_is_said_of_what_was_not_done(make_trial: Any, make_study: Any, page: Page) -> None:
    """Frozen embeddings, no signs, no failures, no samples: no section for any of them."""
    trials = [make_trial(2.0 + n, lr=1e-4 * (n + 1)) for n in range(3)]
    for trial in trials:
        for source in (trial.params, trial.distributions, trial.user_attrs["config"]):
            source.pop("embedding_lr_ratio", None), source.pop("embedding_learning_rate", None)
    space = SearchSpace(
        dimensions=(
            Dimension(name="learning_rate", kind="float", low=1e-5, high=2e-3, log=True, default=2e-4),
        )
    )
    path = page(make_study(*trials, space=space, context={"train_embeddings": False}))
    assert not {"ratio", "signs", "early", "samples", "data"} & set(sections_of(path))
    assert "mbedding" not in read(path).text.split("Details")[0]


def test_no_parameter_is_called_best_where_the_best_does_not_use_it(
    make_trial: Any, make_study: Any, page: Page
) -> None:
    study = make_study(
        make_trial(2.5, lr=2e-4, label="guideline default"), make_trial(2.0, lr=1e-3, scheduler="constant")
    )
    text = read(page(study)).text
    assert "scheduler constant, no warmup: loss 2.000" in text
    assert "Warmup, share of the steps none beside constant" in text


def test_a_space_of_names_alone_still_has_a_page(make_study: Any, page: Page) -> None:
    kinds = ("linear", "constant", "cosine")
    space = SearchSpace(
        dimensions=(Dimension(name="lr_scheduler_type", kind="categorical", choices=kinds, default="linear"),)
    )
    trials = [
        create_trial(
            state=TrialState.COMPLETE,
            params={"lr_scheduler_type": kinds[n % 3]},
            distributions={"lr_scheduler_type": CategoricalDistribution(kinds)},
            value=2.0 + n % 3,
        )
        for n in range(12)
    ]
    path = page(make_study(*trials, space=space, guidelines=[]))
    assert "chart-learning-rate" not in charts_of(path)
    assert "importance" in sections_of(path)
    assert "parameters" not in sections_of(path)


def test_a_best_at_the_end_of_its_range_asks_for_a_wider_one(
    make_trial: Any, make_study: Any, page: Page
) -> None:
    study = make_study(make_trial(2.5, lr=1e-4), make_trial(2.0, lr=2e-3))
    text = read(page(study)).text
    assert "Widen learning_rate: the best, 2e-3, lies at the high end of what was searched (2e-3)" in text
    assert "space: learning_rate: {low: 1.0e-05, high: 8.0e-03, log: true}" in text


def test_a_page_is_light(rich_page: Path) -> None:
    assert rich_page.stat().st_size < 500_000


def test_hundreds_of_trials_stay_light_and_quick(make_study: Any, page: Page) -> None:
    study = make_study(*many_trials(500))
    page(make_study())  # imports and the template are no part of it
    begin = time.process_time()
    path = page(study)
    assert time.process_time() - begin < 5
    assert path.stat().st_size < 1_500_000
