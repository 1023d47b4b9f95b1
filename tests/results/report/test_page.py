"""What the report's page holds, whatever the state of the study."""

from __future__ import annotations

import json
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

from search_spaces import Dimension, SearchSpace
from tests.results.report.conftest import SWEEP_FILE, XSS, many_trials

Page = Callable[..., Path]
SECTIONS = ["answer", "verdict", "rates", "ratio", "curves", "importance", "parallel", "timeline"]
SECTIONS += ["signs", "failures", "data", "next", "reproduce"]


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
        if tag in ("td", "th"):
            self.texts.append(" ")  # cells have a column between them

    def handle_data(self, data: str) -> None:
        if self._open not in (["script"], ["style"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All words, with spaces as they are read."""
        return " ".join("".join(self.texts).split())


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def plots_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="plots">(.*?)</script>', path.read_text(), re.S)
    assert found is not None
    plots: dict[str, Any] = json.loads(found[1])["plots"]
    return plots


def test_the_sections_stand_in_order_and_the_answer_comes_first(rich_page: Path) -> None:
    ids = [attrs["id"] for tag, attrs in read(rich_page).tags if tag == "section"]
    assert ids == SECTIONS


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
    assert text.count(f"About the data: training: too long {XSS}.") == 1  # among what limits the answer
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
    before = make_study(make_trial(2.5, lr=2e-4))
    assert "made before they were kept" in read(page(before)).text


def test_the_answer_names_best_gain_and_doubt(make_trial: Any, make_study: Any, page: Page) -> None:
    study = make_study(
        make_trial(2.5, lr=2e-4, label="guideline default"), make_trial(2.0, lr=1e-3), base=4.0
    )
    text = read(page(study)).text
    assert "Use learning_rate 1e-3" in text
    assert "20.0% lower" in text
    assert "0.5000 nats per token lower than trial 0, 2.5000" in text
    assert "50.0% lower" in text
    assert "How sure: not yet." in text


def test_the_same_study_gives_the_same_bytes(rich: optuna.Study, rich_page: Path, page: Page) -> None:
    assert page(rich, target=40).read_bytes() == rich_page.read_bytes()


def test_nothing_on_the_page_points_outside_of_it(rich_page: Path) -> None:
    reader = read(rich_page)
    for tag, attrs in reader.tags:
        assert "src" not in attrs, tag
        assert (attrs.get("href") or "#").startswith(("#", "data:,")), attrs
    policy = next(attrs["content"] for tag, attrs in reader.tags if tag == "meta" and "content" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline'; img" in policy  # for styles alone
    assert "unsafe-eval" not in policy


def test_names_and_reasons_are_text_and_never_elements(rich_page: Path) -> None:
    reader = read(rich_page)
    assert not [tag for tag, _ in reader.tags if tag in ("img", "b")]
    assert reader.text.count(" ".join(XSS.split())) >= 3
    assert "<img" not in json.dumps(plots_of(rich_page))  # plotly has an HTML of its own


def test_numbers_that_are_none_never_reach_a_plot(rich_page: Path) -> None:
    text = json.dumps(plots_of(rich_page))
    assert "NaN" not in text
    assert "Infinity" not in text
    cells = re.findall(r"<td[^>]*>(.*?)</td>", rich_page.read_text(encoding="utf-8"))
    assert len(cells) > 100
    assert not {"nan", "inf", "-inf", "NaN"} & set(cells)


def test_every_plot_has_a_caption_a_label_and_a_table(rich_page: Path) -> None:
    reader, plots = read(rich_page), plots_of(rich_page)
    drawn = [attrs for _, attrs in reader.tags if attrs.get("class") == "plot"]
    assert {attrs["id"] for attrs in drawn} == set(plots)
    assert set(plots) == {
        f"plot-{name}" for name in ("rates", "ratio", "curves", "importance", "parallel", "timeline")
    }
    assert all(attrs["role"] == "img" and len(attrs["aria-label"] or "") > 60 for attrs in drawn)
    figures = page_text_between(rich_page, "<figure>", "</figure>")
    assert len(figures) == len(plots)
    assert all("<figcaption>" in figure and "<table>" in figure for figure in figures)


def page_text_between(path: Path, begin: str, end: str) -> list[str]:
    return re.findall(f"{begin}(.*?){end}", path.read_text(encoding="utf-8"), re.S)


def test_axes_have_titles_with_units(rich_page: Path) -> None:
    layouts = {name: plot["spec"]["layout"] for name, plot in plots_of(rich_page).items()}
    titles = {
        name: [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis") if "title" in layout[axis]]
        for name, layout in layouts.items()
    }
    assert titles["plot-rates"] == [
        "learning rate (peak, per optimizer step)",
        "evaluation loss (nats per token)",
    ]
    assert titles["plot-curves"] == ["share of the budget (%)", "evaluation loss (nats per token)"]
    assert titles["plot-timeline"][0] == "time since the first trial began (min)"


def test_the_guideline_band_is_drawn_where_the_tables_put_it(
    make_trial: Any, make_study: Any, page: Page
) -> None:
    space = SearchSpace(
        dimensions=(
            Dimension(
                name="learning_rate",
                kind="float",
                low=1e-5,
                high=2e-3,
                log=True,
                default=2e-4,
                guideline_low=1e-4,
                guideline_high=3e-4,
            ),
        )
    )
    study = make_study(*(make_trial(2 + i / 10, lr=1e-4 * 2**i) for i in range(4)), space=space)
    path = page(study)
    plot = plots_of(path)["plot-rates"]["spec"]
    band = next(shape for shape in plot["layout"]["shapes"] if shape["type"] == "rect")
    assert (band["x0"], band["x1"]) == (1e-4, 3e-4)
    strip = {tuple(trace["x"]): trace["name"] for trace in plot["data"] if trace.get("yaxis") == "y2"}
    assert strip[(2e-4,)].endswith("rows: 2e-4")
    assert "1e-4 to 3e-4" in read(path).text


def test_trials_stopped_early_are_no_points_on_the_loss_axis(rich_page: Path) -> None:
    data = plots_of(rich_page)["plot-rates"]["spec"]["data"]
    early = [trace for trace in data if trace["name"] in ("pruned", "diverged", "out of memory", "failed")]
    assert len(early) == 4
    assert all(trace["yaxis"] == "y3" for trace in early)


def test_pruned_trials_are_marked_where_their_curve_ends(
    make_trial: Any, make_study: Any, page: Page
) -> None:
    study = make_study(make_trial(2.0), make_trial(outcome="pruned", reports={20: 2.9, 40: 2.7}))
    data = plots_of(page(study))["plot-curves"]["spec"]["data"]
    ends = next(trace for trace in data if trace["name"] == "pruned" and trace["mode"] == "markers")
    assert (ends["x"], ends["y"]) == ([40], [2.7])


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
def test_an_unfinished_sweep_says_so_at_the_top(
    make_trial: Any, make_study: Any, page: Page, ended: int, target: int | None, said: bool
) -> None:
    text = read(page(make_study(*(make_trial(2.0 + n) for n in range(ended))), target=target)).text
    assert ("This sweep is not finished: 3 of 5 trials ended." in text) == said
    assert ("`sweeps run runs/demo` goes on" in text) == said


def test_a_running_trial_makes_a_sweep_unfinished(make_trial: Any, make_study: Any, page: Page) -> None:
    study = make_study(make_trial(2.0), make_trial(outcome="running", reports={20: 2.5}))
    assert "1 trial ended, 1 running. Everything below can still change." in read(page(study)).text


def test_without_any_trial_there_is_a_page_that_says_so(make_study: Any, page: Page) -> None:
    text = read(page(make_study())).text
    assert "No trial has been tried yet, so there is nothing to say." in text


def test_failed_trials_alone_leave_their_reasons(make_trial: Any, make_study: Any, page: Page) -> None:
    study = make_study(*(make_trial(outcome="failed", reason=f"no such file {n}") for n in range(3)))
    path = page(study)
    text = read(path).text
    assert "There is no best config" in text
    assert "(3 failed)" in text
    assert "no such file 2" in text
    assert set(plots_of(path)) == {"plot-timeline"}


def test_without_trained_embeddings_there_is_no_map_but_a_reason(
    make_trial: Any, make_study: Any, page: Page
) -> None:
    trials = [make_trial(2.0 + n) for n in range(3)]
    for trial in trials:
        for source in (trial.params, trial.distributions, trial.user_attrs["config"]):
            source.pop("embedding_lr_ratio", None), source.pop("embedding_learning_rate", None)
    space = SearchSpace(
        dimensions=(
            Dimension(name="learning_rate", kind="float", low=1e-5, high=2e-3, log=True, default=2e-4),
        )
    )
    path = page(make_study(*trials, space=space, context={"train_embeddings": False}))
    assert "does not train embeddings, so there is no embedding rate to map" in read(path).text
    assert "plot-ratio" not in plots_of(path)


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
    assert "No finished trial has a learning rate" in read(path).text
    assert set(plots_of(path)) == {"plot-importance", "plot-parallel"}


def test_a_best_at_the_end_of_its_range_asks_for_a_wider_one(
    make_trial: Any, make_study: Any, page: Page
) -> None:
    study = make_study(make_trial(2.5, lr=1e-4), make_trial(2.0, lr=2e-3))
    text = read(page(study)).text
    assert "Widen learning_rate: the best, 2e-3, lies at the high end of what was searched (2e-3)" in text
    assert "space: learning_rate: {low: 1.0e-05, high: 8.0e-03, log: true}" in text


def test_hundreds_of_trials_stay_light_and_quick(make_study: Any, page: Page) -> None:
    study = make_study(*many_trials(500))
    page(make_study())  # imports and the template are no part of it
    begin = time.process_time()
    path = page(study)
    assert time.process_time() - begin < 5
    assert path.stat().st_size < 6_000_000
    assert all(len(plot["spec"]["data"]) < 25 for plot in plots_of(path).values())
