"""What the driver sends to the keeper and to the workers: frozen data, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lora_runner.config import TrialConfig
from lora_runner.errors import ModelError
from lora_runner.metric.scores import MetricSpec
from lora_runner.protocol import SessionOptions, UnquantizedBase
from search_spaces import SearchSpace
from sweeps.artifacts.checkpoint_store import CheckpointStore
from sweeps.artifacts.worker_files import Call, model_folder
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.plan.replicate_plan import ReplicatePlan
from sweeps.plan.trial_config import trial_config
from sweeps.study.pruning.rungs import early_rung_warning, first_pruning_percent, pruning_percents
from sweeps.study.stages import Stages

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lora_runner.base.load_model import BaseSpec
    from lora_runner.certificate.decision import Decision
    from lora_runner.certificate.model_sizes import ModelSizes
    from lora_runner.data import DataBundle
    from lora_runner.memory.sizes import Workload
    from lora_runner.pack.options import PackOptions
    from lora_runner.pack.pack import Pack
    from lora_runner.session import Session


@dataclass(frozen=True, kw_only=True)
class CheckpointSize:
    """Bytes of one checkpoint: the trained parameters in fp32 and both moments."""

    per_rank: int = 0
    """For each unit of the LoRA rank."""
    embeddings: int = 0

    @classmethod
    def of(cls, model: PreTrainedModel, workload: Workload) -> CheckpointSize:
        """`model` may be on the meta device. ModelError when nothing matches `target_modules`."""
        from lora_runner.memory.sizes import checkpoint_bytes  # imports torch

        per_rank, embeddings = checkpoint_bytes(model, workload)
        return cls(per_rank=per_rank, embeddings=embeddings)

    def gib(self, lora_r: int) -> float:
        """Of a trial of this rank, in GiB."""
        return (self.per_rank * lora_r + self.embeddings) / 2**30


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """What the keeper needs to draw trials and to recognize its study."""

    name: str
    run_folder: str
    space: SearchSpace
    trials: int
    """Finished trials of the whole sweep."""
    search: dict[str, Any]
    """The sweep file's `search` section."""
    report_at: tuple[int, ...]
    """Percents of the budget at which every trial reports."""
    constants: dict[str, Any]
    """Fields of a TrialConfig that the space does not vary; `max_steps` is for the configured batch size."""
    scheduler_kwargs: dict[str, dict[str, Any]]
    identity: dict[str, Any]
    """What must be equal for two runs to share a study; compared when the study is opened again."""
    context: dict[str, Any]
    """The conditions under which the results hold."""
    guidelines: list[dict[str, Any]]
    versions: dict[str, str] = field(default_factory=dict)
    reliability: ReliabilitySection = field(default_factory=ReliabilitySection)
    metric: MetricSpec | None = None
    """What is measured besides the loss, or instead of it."""
    checkpoint_size: CheckpointSize = field(default_factory=CheckpointSize)
    """Of a trial, for the disk that frozen ones take."""
    measure_unquantized: bool = False
    """Whether the untouched base is also measured without quantization, once."""
    replicates: ReplicatePlan | None = None
    """Instead of a sampler, for a confirm study."""

    def checkpoint_store(self) -> CheckpointStore | None:
        """Where checkpoints are kept if not in the run folder. Raises StorageUnreachable."""
        url = self.reliability.checkpoints
        return None if url is None else CheckpointStore(url, self.name)

    @property
    def first_pruning_percent(self) -> int:
        """The percent of the budget before which no trial is compared with others."""
        return first_pruning_percent(self.space, self.constants)

    @property
    def pruning_percents(self) -> tuple[int, ...]:
        """The reports at which the pruner may stop a trial."""
        return pruning_percents(self.search, self.report_at, self.first_pruning_percent)

    @property
    def pruning_warning(self) -> str | None:
        """Why the user's own first rung comes too early; None where it does not."""
        return early_rung_warning(self.search, self.report_at, self.first_pruning_percent)

    def frozen_gib(self, lora_r: int) -> float:
        """What a frozen trial keeps of this rank, in GiB: a store at a URL has two slots for each trial."""
        return self.checkpoint_size.gib(lora_r) * (1 if self.reliability.checkpoints is None else 2)

    def trial_config(self, params: Mapping[str, Any]) -> TrialConfig:
        """A trial's full configuration from its parameters in the study. Raises TrialConfigError."""
        return trial_config(params, self.constants, self.scheduler_kwargs)


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What a worker needs to train: base, data, pack and session options."""

    base: BaseSpec
    sizes: ModelSizes
    """Of the base's layers, for which a certificate is made on a machine that needs one."""
    model_fingerprint: str | None
    """Tells a worker whether it sees the same model folder; None for a hub id."""
    data: DataBundle
    """Tokenized once, by the driver, so that every worker trains and evaluates on the same tokens."""
    pack: PackOptions
    session: SessionOptions
    seats: int
    stall_seconds: float
    """A worker that completes no step and no evaluation for this long is ended."""
    memory_share: float = 1.0
    """This worker's share of the memory of its device."""

    def measure_unquantized(
        self, num_threads: int, call: Call, alive: Callable[[], None], stages: Stages
    ) -> UnquantizedBase:
        """The untouched base without quantization, before `open_session`; its arguments are the same."""
        with stages.stage("importing torch"):
            from lora_runner.pack.unquantized_base import unquantized_loss

        base, _ = self._prepared(num_threads, call, alive, stages)
        batch_size, share = self.session.per_device_eval_batch_size, self.memory_share
        with stages.stage("measuring the base without quantization", unit="weights") as set_done:
            try:
                loss = unquantized_loss(
                    base, self.data.eval, batch_size, share=share, loaded=set_done, alive=alive
                )
            except ModelError as error:
                return UnquantizedBase(reason=str(error))
        return UnquantizedBase(loss=loss)

    def open_session(
        self, num_threads: int, call: Call, alive: Callable[[], None], stages: Stages
    ) -> Session:
        """Load the base in this process and evaluate it untouched; no seat is taken yet.

        `num_threads`: torch's, on a machine without a GPU. `call` asks the file server for files that only
        the driver's machine has. `alive` is called while another worker fetches them, `stages` is told what
        is done. Raises ModelError.
        """
        # torch takes seconds to import; the driver and the keeper handle specs without it.
        with stages.stage("importing torch"):
            from lora_runner.session import Session

        pack = self.open_pack(num_threads, call, alive, stages)
        with stages.stage("evaluating the base"):
            return Session(pack, self.data, self.session, num_seats=self.seats)

    def open_pack(self, num_threads: int, call: Call, alive: Callable[[], None], stages: Stages) -> Pack:
        """Load the base in this process, without evaluating it; as `open_session`."""
        with stages.stage("importing torch"):
            from lora_runner.base.load_model import load_base
            from lora_runner.fused.compute_path import Machine
            from lora_runner.pack.pack import Pack

        spec, decision = self._prepared(num_threads, call, alive, stages)
        with stages.stage("loading the base", unit="weights") as set_done:
            base = load_base(spec, set_done)
        return Pack(base, self.pack, Machine.of(base.device, base.compute_dtype, decision))

    def _prepared(
        self, num_threads: int, call: Call, alive: Callable[[], None], stages: Stages
    ) -> tuple[BaseSpec, Decision]:
        """The base with its folder here, and what the device's certificate allows."""
        import torch

        from lora_runner.base.load_model import resolve_dtype
        from lora_runner.certificate.decision import decide_here

        if not torch.cuda.is_available():
            torch.set_num_threads(num_threads)
        with stages.stage("fetching the base"):
            folder = model_folder(self.base.model, self.model_fingerprint, call, alive=alive)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Before the base is loaded: cuBLAS reads its settings when it is first used.
        with stages.stage("certificate of the device"):
            decision = decide_here(self.sizes, resolve_dtype(self.base.compute_dtype, device), alive=alive)
        return replace(self.base, folder=folder), decision
