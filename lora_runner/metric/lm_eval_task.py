"""An lm-eval task as the metric: the package asks and scores, a seat of the pack answers.

The package is an optional dependency, imported only when a task is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_runner.errors import Fault, MetricError, first_line
from lora_runner.metric.lm_eval_model import TaskModel, answer_length
from lora_runner.metric.scores import TASK_PREFIX, Direction, MetricSpec, finite
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import Seat
from lora_runner.pack.seat_by_seat import for_each_seat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTALL = 'pip install "lm-eval>=0.4.13"'
FEWSHOT_SEED = 1234
"""lm-eval's own default, from which few-shot examples are drawn."""
MOST_NAMES = 5
"""Task names that an error lists, of thousands."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A loaded task, and the metric of it that is used."""

    name: str
    metric: str
    """Its name, as "METRIC" or, if answers are filtered in several ways, "METRIC,FILTER"."""
    direction: Direction
    num_documents: int
    """Documents evaluated."""
    max_new_tokens: int
    """Most tokens of an answer; 0 for a task that compares likelihoods."""
    task: Any = field(repr=False)
    """lm-eval's object."""

    def longest(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Tokens of the longest text, without its answer."""
        self.task.set_fewshot_seed(seed=FEWSHOT_SEED)
        self.task.build_all_requests(limit=self.num_documents, rank=0, world_size=1)
        texts = (
            "".join(text for text in request.args if isinstance(text, str)) for request in self.task.instances
        )
        return max((len(tokenizer.encode(text)) for text in texts), default=0)

    def evaluate(self, model: TaskModel) -> float:
        """The metric of this model's answers."""
        from lm_eval.evaluator import evaluate

        # Few-shot examples are drawn anew each time.
        self.task.set_fewshot_seed(seed=FEWSHOT_SEED)
        found = evaluate(
            lm=model,
            task_dict={"tasks": {self.name: self.task}, "groups": {}},
            limit=self.num_documents,
            bootstrap_iters=0,
            log_samples=False,
        )
        values = {key: value for key, value in found["results"][self.name].items() if "," in key}
        for key, value in values.items():
            if self.metric in (key, key.partition(",")[0]):
                return float(value)
        known = sorted(key for key in values if "_stderr," not in key)
        raise MetricError(
            f"task {self.name} gave no {self.metric}; it gave {', '.join(known)}", known=tuple(known)
        )


def load_task(name: str, source: str, *, num_documents: int, max_new_tokens: int) -> Task:
    """The task of "lm_eval:TASK" or "lm_eval:TASK:METRIC".

    `source` is the YAML text of the user's own task, empty for one of the package. The first metric that the
    task lists is used if none is named. Raises MetricError, with known names, for a missing package, task or
    metric.
    """
    wanted, _, metric = name.removeprefix(TASK_PREFIX).partition(":")
    task = _loaded(wanted, source)
    kind = "takes images or sound" if getattr(task, "MULTIMODAL", False) else ""
    if getattr(task, "UNSAFE_CODE", False):
        kind = "runs code that a model wrote"
    arguments = task.get_config("generation_kwargs") or {}
    if arguments.get("do_sample"):
        kind = "draws its answers at random (do_sample); here they are greedy"
    if kind:
        raise MetricError(f"task {wanted} {kind}, which is not supported")
    better: dict[str, bool] = dict(task.higher_is_better())
    metric = metric or next(iter(better))
    if metric.partition(",")[0] not in better:
        known = tuple(better)
        raise MetricError(f"task {wanted} has no metric {metric!r}; it has {', '.join(known)}", known=known)
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    answers = task.get_config("output_type") == "generate_until"
    return Task(
        name=wanted,
        metric=metric,
        direction="maximize" if better[metric.partition(",")[0]] else "minimize",
        num_documents=min(num_documents, len(task.eval_docs)),
        max_new_tokens=answer_length(arguments, max_new_tokens) if answers else 0,
        task=task,
    )


def _loaded(name: str, source: str) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MetricError(
            f"tasks of lm-eval need the package ({first_line(error)}); install it with: {INSTALL}"
        ) from error
    with _folder_of(source) as folder:
        manager = TaskManager(include_path=folder, include_defaults=folder is None)
        tasks: Sequence[str] = manager.all_subtasks
        if name not in tasks:
            is_group = name in manager.all_tasks
            reason = (
                "is a group of tasks, of which one must be named" if is_group else "is not a task of lm-eval"
            )
            if folder is not None:
                reason = f"is not the task of the file, which is {', '.join(tasks) or 'none'}"
            parts = [task for task in tasks if is_group and task.startswith(f"{name}_")]
            known = parts or get_close_matches(name, tasks, n=MOST_NAMES)
            raise MetricError(f"{name!r} {reason}", known=tuple(known[:MOST_NAMES]))
        try:
            return manager.load([name])["tasks"][name]
        except Exception as error:  # anything from its code or the download of its data
            raise MetricError(
                f"task {name} cannot be loaded: {type(error).__name__}: {first_line(error)}"
            ) from error


@contextmanager
def _folder_of(source: str) -> Iterator[str | None]:
    """A temporary folder with only the user's task; None for the package's tasks."""
    if not source:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "task.yaml").write_text(source, encoding="utf-8")
        yield folder


def _model_class() -> type[TaskModel]:
    """TaskModel as a subclass of lm-eval's model class."""
    from lm_eval.api.model import LM

    class SeatModel(TaskModel, LM):  # type: ignore[misc]
        """TaskModel's three methods; all else is lm-eval's own."""

    return SeatModel


class TaskEvaluator:
    """Evaluates a task on the seats of one pack, one after the other."""

    def __init__(self, pack: Pack, spec: MetricSpec, batch_size: int) -> None:
        self._pack, self._spec, self._batch_size = pack, spec, batch_size
        self._task = load_task(
            spec.name, spec.source, num_documents=spec.num_prompts, max_new_tokens=spec.max_new_tokens
        )
        self._model_class = _model_class()

    def measure(self, seats: Sequence[Seat | None]) -> list[float | Fault]:
        """The value of each seat, or a Fault where its answers or their scoring raised."""
        return [value for seat in seats for value in for_each_seat(self._values, [seat])]

    def _values(self, seats: Sequence[Seat | None], /) -> list[float]:
        sizes = {"batch_size": self._batch_size, "max_new_tokens": self._spec.max_new_tokens}
        values = [self._task.evaluate(self._model_class(self._pack, seat, **sizes)) for seat in seats]
        return [finite(value, f"task {self._task.name} must give a finite number") for value in values]
