"""The sweep file as a whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sweeps.config.fields import (
    Finding,
    all_wrong,
    check_list_of,
    check_text,
    check_whole,
    shown,
    wrong,
)
from sweeps.config.sections.base import Section
from sweeps.config.sections.embeddings import EMBEDDING_MODULES, TrainedTokens, check_embeddings
from sweeps.config.sections.metric import MetricSection
from sweeps.config.sections.model import DataSection, ModelSection
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.config.sections.search import SearchSection
from sweeps.config.sections.storage import check_storage
from sweeps.config.sections.tracking import TrackingSection
from sweeps.config.sections.training import LoraSection, TrainingSection

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def _name(value: Any) -> str:
    text: str = check_text()(value)
    if not _NAME.fullmatch(text) or text.endswith("."):
        rule = "must be at most 80 letters, digits, '.', '_' and '-' (it names the run folder and the study)"
        raise wrong(f"{rule}; got {shown(text)}")
    return text


def _method(value: Any) -> str:
    if value == "qlora":
        return "qlora"
    if value == "full":
        raise wrong(
            "must be qlora; got 'full': full fine-tuning stands in the tables, but is not trained here yet"
        )
    raise wrong(f"must be qlora (adapters on a 4-bit base); got {shown(value)}")


def _auto_or_whole(value: Any) -> Any:
    if value == "auto":
        return value
    try:
        return check_whole(1)(value)
    except ValueError:
        raise wrong(f"must be auto or a whole number, at least 1; got {shown(value)}") from None


def _space(value: Any) -> dict[str, dict[str, Any]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(f"must be a mapping from dimensions to their ranges; got {shown(value)}")
    found: list[Finding] = [
        ((key,), f"must be a mapping such as {{low: 1e-5, high: 1e-3}} or {{value: 2e-4}}; got {shown(item)}")
        for key, item in value.items()
        if not isinstance(item, dict)
    ]
    if found:
        raise all_wrong(found)
    return value


class SweepConfig(Section):
    """One sweep: a base model, data, a space, a way to search it, and where it runs.

    Paths in a config made by `load_sweep` are absolute. Whether files and rows exist is checked there.
    """

    name: Annotated[str, BeforeValidator(_name)]
    """Of the run folder and the Optuna study."""
    model: ModelSection
    """Hub id or local folder, or a mapping."""
    data: DataSection
    """Training file or hub id, or a mapping."""
    scenario: Annotated[str, BeforeValidator(check_text())] = "general"
    """The scenario of the guideline tables that the ranges start from."""
    method: Annotated[Literal["qlora"], BeforeValidator(_method)] = "qlora"
    train_embeddings: Annotated[bool | tuple[str, ...] | TrainedTokens, BeforeValidator(check_embeddings)] = (
        False
    )
    """true: embed_tokens and lm_head; or a list of them; or {tokens: [...]}, the rows of a few tokens (of
    embed_tokens, and of an lm_head tied to it). They get a learning rate of their own."""
    space: Annotated[dict[str, dict[str, Any]], BeforeValidator(_space)] = Field(default_factory=dict)
    """Ranges that replace the tables' own, per dimension."""
    training: TrainingSection
    """The budget of a trial (max_steps or num_train_epochs) and its optimizer."""
    lora: LoraSection = LoraSection()
    metric: MetricSection | None = None
    """A score of the trials' answers, watched or searched by; null: the loss alone."""
    search: SearchSection = SearchSection()
    reliability: ReliabilitySection = ReliabilitySection()
    """How long the sweep bears with what fails around it, and what it keeps on disk."""
    trials: Annotated[int, BeforeValidator(check_whole(1))] = 32
    """Finished trials of the whole sweep, failed ones not counted; running it again adds what is missing."""
    seats: Annotated[int | Literal["auto"], BeforeValidator(_auto_or_whole)] = "auto"
    """Trials that share one base on a worker; auto: what its memory holds."""
    workers: Annotated[int | Literal["auto"], BeforeValidator(_auto_or_whole)] = "auto"
    """Workers of the fleet; auto: one per GPU of the cluster, or one on a machine without GPUs."""
    gpus_per_worker: Annotated[int, BeforeValidator(check_whole(1))] = 1
    """More than 1 only with model.device_map: auto."""
    tracking: TrackingSection = TrackingSection()
    """One run per trial in TensorBoard, MLflow or Weights & Biases."""
    storage: Annotated[str | None, BeforeValidator(check_storage)] = None
    """Database URL without a password, or env:NAME; null: SQLite in the run folder."""
    output: Annotated[str, BeforeValidator(check_text())] = "runs"
    """The folder that holds the run folder."""
    guidelines: Annotated[tuple[str, ...], BeforeValidator(check_list_of(check_text(), what="files"))] = ()
    """Files with guideline rows of the user's own, over the built-in ones."""

    @model_validator(mode="after")
    def _gpus_are_used(self) -> Self:
        if self.gpus_per_worker > 1 and self.model.device_map is None:
            rule = "must be 1 unless model.device_map is auto, which spreads the base"
            raise wrong(
                f"{rule}; got {self.gpus_per_worker}",
                "gpus_per_worker",
                involves=("gpus_per_worker", "model"),
            )
        return self

    @model_validator(mode="after")
    def _moments_of_single_rows_are_exact(self) -> Self:
        if self.embedding_tokens and self.training.embedding_optimizer_bits == 8:
            # 8-bit moments share a scale with neighbouring rows, so a row without gradient drifts.
            raise wrong(
                "must be 32 beside train_embeddings: {tokens: ...}, where 8 saves nothing; got 8",
                "training",
                "embedding_optimizer_bits",
                involves=("train_embeddings", "training"),
            )
        return self

    @property
    def run_folder(self) -> Path:
        """`output`/`name`: everything that the sweep writes stands below it."""
        return Path(self.output) / self.name

    @property
    def embedding_modules(self) -> tuple[str, ...]:
        """The embeddings that are trained in full; empty when none is."""
        if isinstance(self.train_embeddings, tuple):
            return self.train_embeddings
        return EMBEDDING_MODULES if self.train_embeddings is True else ()

    @property
    def embedding_tokens(self) -> tuple[str | int, ...]:
        """Tokens whose embeddings alone are trained; empty when none are, or all."""
        return self.train_embeddings.tokens if isinstance(self.train_embeddings, TrainedTokens) else ()

    @property
    def trains_embeddings(self) -> bool:
        """Whether there is anything for an embedding learning rate to govern."""
        return bool(self.embedding_modules or self.embedding_tokens)
