"""The sweep file as a whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo

from sweeps.config.field_types import PositiveInt, Text
from sweeps.config.sections.base import Section
from sweeps.config.sections.data import Data
from sweeps.config.sections.embeddings import EMBEDDING_MODULES, TrainedTokens, TrainEmbeddings
from sweeps.config.sections.metric import MetricSection
from sweeps.config.sections.model import ModelSection
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.config.sections.search import SearchSection
from sweeps.config.sections.tracking import TrackingSection
from sweeps.config.sections.training import LoraSection, TrainingSection
from sweeps.config.storage_url import check_storage
from sweeps.config.validation import refusal, shown

NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_-])?$"


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text) or text.endswith("\n"):
        rule = "must be at most 80 letters, digits, '.', '_' and '-' (it names the run folder and the study)"
        raise ValueError(f"{rule}; got {shown(text)}")
    return text


def _method(value: Any) -> Any:
    if value == "full":
        raise ValueError(
            "must be qlora; got 'full': the tables cover full fine-tuning, but it is not trained here yet"
        )
    if value != "qlora":
        raise ValueError(f"must be qlora (adapters on a 4-bit base); got {shown(value)}")
    return value


def _space(value: Any) -> Any:
    if isinstance(value, dict):
        rule = "must be a mapping such as {low: 1e-5, high: 1e-3} or {value: 2e-4}"
        found = [
            ((key,), f"{rule}; got {shown(item)}")
            for key, item in value.items()
            if not isinstance(item, dict)
        ]
        if found:
            raise refusal(found)
    elif value is not None:
        raise ValueError(f"must be a mapping from dimensions to their ranges; got {shown(value)}")
    return value or {}


def _exact_moments_of_rows(training: TrainingSection, info: ValidationInfo) -> TrainingSection:
    if (
        isinstance(info.data.get("train_embeddings"), TrainedTokens)
        and training.embedding_optimizer_bits == 8
    ):
        # 8-bit moments share a scale with neighbouring rows, so a row without gradient drifts.
        rule = "must be 32 beside train_embeddings: {tokens: ...}, where 8 saves nothing; got 8"
        raise refusal([(("embedding_optimizer_bits",), rule)])
    return training


def _used_gpus(count: int, info: ValidationInfo) -> int:
    model = info.data.get("model")
    if count > 1 and model is not None and model.device_map is None:
        raise ValueError(f"must be 1 unless model.device_map is auto, which spreads the base; got {count}")
    return count


class SweepConfig(Section):
    """One sweep: a base model, data, a space, a way to search it, and where it runs.

    Paths in a config from `load_sweep` are absolute. Whether files and rows exist is checked there.
    """

    name: Annotated[Text, AfterValidator(_name)]
    """Name of the run folder and of the Optuna study."""
    model: ModelSection
    """Hub id or local folder, or a mapping."""
    data: Data
    """Training file or hub id, or a mapping."""
    scenario: Text = "general"
    """The scenario of the guideline tables that the ranges start from."""
    method: Annotated[Literal["qlora"], BeforeValidator(_method)] = "qlora"
    """How every trial is trained: adapters on a base in 4 bits."""
    train_embeddings: TrainEmbeddings = False
    """true: embed_tokens and lm_head; or a list of them; or {tokens: [...]}, the rows of a few tokens (of
    embed_tokens, and of an lm_head tied to it). They have a learning rate of their own."""
    space: Annotated[dict[str, dict[str, Any]], BeforeValidator(_space)] = Field(default_factory=dict)
    """Ranges that replace those of the tables, per dimension."""
    training: Annotated[TrainingSection, AfterValidator(_exact_moments_of_rows)]
    """The budget of a trial (max_steps or num_train_epochs) and its optimizer."""
    lora: LoraSection = LoraSection()
    """The adapter."""
    metric: MetricSection | None = None
    """A score of the trials' answers, shown or searched by; null: the loss alone."""
    search: SearchSection = SearchSection()
    """The sampler and the pruner."""
    reliability: ReliabilitySection = ReliabilitySection()
    """How long the sweep tolerates failures around it, and what it keeps on disk."""
    trials: PositiveInt = 32
    """Finished trials of the whole sweep, failed ones not counted; running it again adds what is missing."""
    seats: Literal["auto"] | PositiveInt = "auto"
    """Trials that share one base on a worker; auto: as many as its memory holds."""
    workers: Literal["auto"] | PositiveInt = "auto"
    """Workers of the fleet; auto: one per GPU of the cluster, or one on a machine without GPUs."""
    gpus_per_worker: Annotated[PositiveInt, AfterValidator(_used_gpus)] = 1
    """More than 1 only with model.device_map: auto."""
    tracking: TrackingSection = TrackingSection()
    """One run per trial in TensorBoard, MLflow or Weights & Biases."""
    storage: Annotated[Text, AfterValidator(check_storage)] | None = None
    """Database URL without a password, or env:NAME; null: SQLite in the run folder."""
    output: Text = "runs"
    """The folder that holds the run folder."""
    guidelines: Annotated[tuple[Text, ...], Field(title="files")] = ()
    """Files with guideline rows of your own, which take precedence over the built-in ones."""

    _folder: str | None = PrivateAttr(default=None)
    """What the run folder is called now; None: as the sweep."""

    _unwritten: Mapping[str, bytes] = PrivateAttr(default_factory=dict)

    @property
    def run_folder(self) -> Path:
        """`output`/`name`, or where it was moved to: everything that the sweep writes is below it."""
        return Path(self.output) / (self._folder or self.name)

    def in_folder(self, folder: Path) -> SweepConfig:
        """The same sweep in a run folder that may be called otherwise."""
        moved = self.model_copy(update={"output": str(folder.parent)})
        moved._folder = None if folder.name == self.name else folder.name
        return moved

    @property
    def unwritten(self) -> Mapping[str, bytes]:
        """Data files in the run folder, by their absolute paths, that are written when the sweep starts."""
        return self._unwritten

    def with_unwritten(self, files: Mapping[str, bytes]) -> SweepConfig:
        """The same sweep with data files that are yet to be written."""
        changed = self.model_copy()
        changed._unwritten = files
        return changed

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
