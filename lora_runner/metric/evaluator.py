"""The metric of each seat of a pack: all answer at once, each is scored separately."""

from __future__ import annotations

from collections.abc import Sequence

from lora_runner.data import EvalPrompt, decode_text
from lora_runner.errors import Fault, is_device_error
from lora_runner.metric.lm_eval_task import TaskEvaluator
from lora_runner.metric.scores import Metric, MetricSpec
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import Seat
from lora_runner.pack.seat_by_seat import for_each_seat


def make_evaluator(
    pack: Pack, spec: MetricSpec, prompts: Sequence[EvalPrompt], batch_size: int
) -> PromptEvaluator | TaskEvaluator:
    """The evaluator of this metric. Raises MetricError when it cannot be loaded on this machine."""
    if spec.is_task:
        return TaskEvaluator(pack, spec, batch_size)
    return PromptEvaluator(pack, Metric(spec, prompts), batch_size)


class PromptEvaluator:
    """Scores answers to the evaluation set's prompts; every seat answers `batch_size` prompts at a time."""

    def __init__(self, pack: Pack, metric: Metric, batch_size: int) -> None:
        self._pack, self._metric, self._batch_size = pack, metric, batch_size

    def measure(self, seats: Sequence[Seat | None]) -> list[float | Fault]:
        """The value of each seat, or a Fault where its answers or their scoring raised."""
        return [
            texts if isinstance(texts, Fault) else self._scored(texts)
            for texts in for_each_seat(self.answers, seats)
        ]

    def answers(self, seats: Sequence[Seat | None], /) -> list[list[str]]:
        """Each seat's answers to the prompts, as text without special tokens."""
        tokenizer = self._pack.base.tokenizer
        found = self._pack.generate(
            seats,
            [prompt.ids for prompt in self._metric.prompts],
            self._metric.spec.max_new_tokens,
            stop_token_ids=self._metric.stop_token_ids(tokenizer.eos_token_id),
            batch_size=self._batch_size,
        )
        return [[decode_text(tokenizer, ids) for ids in seat] for seat in found]

    def _scored(self, texts: Sequence[str]) -> float | Fault:
        try:
            return self._metric.score(texts)
        except (Exception, SystemExit) as error:  # a user's function: only its trial fails
            if is_device_error(error):
                raise
            return Fault.of(error)
