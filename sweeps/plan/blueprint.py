"""Everything a sweep decides before it starts: one typed value from the config, the data and the tables.

The driver builds it and sends it on: the job to the workers, the ledger to the keeper, without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from files_and_text.problems import Problem
from files_and_text.yaml_lines import KeyPath
from lora_runner.config import TrialConfig
from lora_runner.metric.scores import MetricSpec, objective_of
from lora_runner.protocol import SessionOptions
from search_spaces import SearchSpace, load_guidelines
from sweeps.artifacts.checkpoint_store import CheckpointStore
from sweeps.artifacts.file_server import fingerprint
from sweeps.artifacts.worker_files import Call, model_folder
from sweeps.config import ReliabilitySection, SweepConfig, space_of
from sweeps.errors import ConfigError
from sweeps.plan.metric_text import metric_account
from sweeps.plan.replicate_plan import ReplicatePlan
from sweeps.plan.schedule_rules import schedule_findings
from sweeps.plan.trained_tokens import trained_tokens
from sweeps.plan.trial_config import trial_config
from sweeps.study.same_base import WEIGHTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lora_runner.base.load_model import BaseSpec
    from lora_runner.data import DataBundle
    from lora_runner.pack.pack import PackOptions
    from lora_runner.session import Session

MAX_SEATS = {"cuda": 32, "cpu": 8}
"""More seats than this gain nothing: the shared work is already spread thin."""
REPORTED_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "optuna",
    "ray",
    "triton",
    "lm-eval",
    "qlora-sweeps",
)


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """What the keeper needs to draw trials and to know its study again."""

    name: str
    run_folder: str
    space: SearchSpace
    trials: int
    """Finished trials of the whole sweep."""
    search: dict[str, Any]
    """The sweep file's `search` section."""
    report_at: tuple[int, ...]
    constants: dict[str, Any]
    """Fields of a TrialConfig that the space does not vary; the budget is for the configured batch size."""
    scheduler_kwargs: dict[str, dict[str, Any]]
    trains_embeddings: bool
    identity: dict[str, Any]
    """What makes two sweeps the same study; compared when a study is opened again."""
    context: dict[str, Any]
    guidelines: list[dict[str, Any]]
    versions: dict[str, str] = field(default_factory=dict)
    reliability: ReliabilitySection = field(default_factory=ReliabilitySection)
    metric: MetricSpec | None = None
    """What is measured beside the loss, or in its place."""
    replicates: ReplicatePlan | None = None
    """In the place of a sampler, for a confirm study."""

    def checkpoint_store(self) -> CheckpointStore | None:
        """Where checkpoints lie when not in the run folder. Raises StorageUnreachable."""
        url = self.reliability.checkpoints
        return None if url is None else CheckpointStore(url, self.name)

    def trial_config(self, params: Mapping[str, Any]) -> TrialConfig:
        """A trial's full configuration from its parameters in the study. Raises TrialConfigError."""
        return trial_config(params, self.constants, self.scheduler_kwargs)


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What a worker needs to train: the base, the data, the pack."""

    base: BaseSpec
    model_fingerprint: str | None
    """Of a model folder, by which a worker knows whether it sees the same one; None for a hub id."""
    data: DataBundle
    """Tokenised once, by the driver: every worker trains and evaluates on the same tokens."""
    pack: PackOptions
    session: SessionOptions
    seats: int
    stall_seconds: float
    """A worker whose pack ends neither a step nor an evaluation for this long is ended."""

    def open_session(self, num_threads: int, call: Call, alive: Callable[[], None]) -> Session:
        """Load the base in this process and measure it untouched; no seat is taken yet.

        `num_threads` are this process's on a machine without a GPU; `call` asks the depot for what only the
        driver's machine has; `alive` is called while another worker fetches that. Raises ModelError.
        """
        # torch and transformers take seconds to import; the driver and the keeper send a job on without them.
        import torch

        from lora_runner.base.load_model import load_base
        from lora_runner.pack.pack import Pack
        from lora_runner.session import Session

        if not torch.cuda.is_available():
            torch.set_num_threads(num_threads)
        folder = model_folder(self.base.model, self.model_fingerprint, call, alive=alive)
        base = load_base(replace(self.base, folder=folder))
        return Session(Pack(base, self.pack), self.data, self.session, num_seats=self.seats)


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A sweep, ready to start."""

    config: SweepConfig
    study_spec: StudySpec
    worker_spec: WorkerSpec
    tokenizer: PreTrainedTokenizerBase
    """The base's own, whatever template the trials were given."""
    memory_gib: float
    """Estimated peak of a full pack."""
    memory_available_gib: float
    memory_reason: str
    """Why so many seats, and whether the dequantised base stays in memory."""
    base_gib: float
    """Of the base alone, at its smallest: where this does not fit, no batch does."""
    base_kind: str
    """How its linear layers are kept, in words after "parameters"."""
    base_unquantised: str
    """What of it stays in the compute dtype, in words."""
    num_train_examples: int
    num_train_tokens: int
    num_eval_tokens: int
    """Predicted tokens of the frozen evaluation set."""

    @property
    def data(self) -> DataBundle:
        """The tokenised sets: `data.train.counts` and `data.eval.counts` say what became of the records,
        `data.warnings` and `data.notices` what a user should know of them."""
        return self.worker_spec.data


def base_spec(config: SweepConfig) -> BaseSpec:
    """The base that the sweep file names."""
    from lora_runner.base.load_model import BaseSpec

    return BaseSpec(
        model=config.model.name,
        revision=config.model.revision,
        trust_remote_code=config.model.trust_remote_code,
        compute_dtype=config.model.compute_dtype,
        device_map=config.model.device_map,
    )


def draw_up(
    config: SweepConfig,
    problem_at: Callable[[KeyPath, str], Problem] = lambda _, message: Problem(message),
) -> Blueprint:
    """Read the model's configuration and the data, build the space, and estimate what fits. Writes nothing.

    `problem_at` finds the file and line of a key. Raises ConfigError, ModelError or DataError for anything
    that would fail later.
    """
    # torch and transformers take seconds to import; reading and refusing a sweep file must not wait for them.
    import torch

    from lora_runner.base.load_model import (
        check_weights,
        digest_of,
        load_tokenizer,
        meta_model,
        num_parameters_of,
        vocabulary_size,
    )
    from lora_runner.base.model_class import model_class
    from lora_runner.base.model_structure import text_config
    from lora_runner.base.quantization import quantization_of
    from lora_runner.base.target_modules import more_in_peft
    from lora_runner.base.untrained_parts import adapters_in_words
    from lora_runner.data import DataSpec, check_ids, load_data, steps_for_epochs
    from lora_runner.memory.estimate import available_memory, choose
    from sweeps.plan.metric_setup import check_prompts, metric_of
    from sweeps.plan.workload import workload_of

    base = base_spec(config)
    check_weights(base)
    meta = meta_model(base)
    quantization = quantization_of(meta.config, base.model, base.quantization)
    size = config.model.size or num_parameters_of(meta)
    tokenizer = load_tokenizer(base)
    tokens = trained_tokens(config, meta, tokenizer, problem_at)
    most_positions = getattr(text_config(meta), "max_position_embeddings", None)
    metric = metric_of(config, problem_at, tokenizer, most_positions)
    wanted = metric.num_prompts if metric is not None and not metric.is_task else 0
    spec = DataSpec(**config.data.model_dump())
    data = load_data(spec, tokenizer, num_prompts=wanted)
    check_ids(data, tokenizer, vocabulary_size(meta))
    check_prompts(metric, data, problem_at)
    training = config.training
    steps = training.max_steps or steps_for_epochs(
        len(data.train),
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
        training.num_train_epochs or 1,
    )
    space = space_of(config, model_size=float(size), max_steps=steps)
    constants = _constants(config, steps)
    if found := list(schedule_findings(space, constants, training.lr_scheduler_kwargs)):
        raise ConfigError(problem_at(key, message) for key, message in found)
    workload = workload_of(config, space, data, tokens, metric, problem_at)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    share: float = config.gpus_per_worker
    if device.type == "cpu":  # one machine's memory, which several workers share
        share = 1 / (1 if config.workers == "auto" else config.workers)
    memory = choose(
        base,
        workload,
        most=min(MAX_SEATS[device.type], config.trials),
        seats=None if config.seats == "auto" else config.seats,
        available=share * available_memory(device),
    )
    context = _context(config, space, size=float(size), steps=steps, eval_digest=data.eval.digest)
    context["quantization"] = quantization.name
    context["quantization_config"] = dict(quantization.settings)
    # Peft's own all-linear, which exported scripts call, would give these an adapter too, or end at them.
    context["layers_without_adapter"] = more_in_peft(meta)
    context["adapters"] = adapters_in_words(meta, config.lora.target_modules)
    context["model_class"] = model_class(meta.config, base.model).__name__
    context["trainable_token_indices"] = list(tokens)
    context["data_format"] = data.format
    context["data_forms"] = list(data.forms)
    # As text: the file may be another one tomorrow. None: the tokenizer's own, or none.
    context["chat_template"] = data.chat_template if spec.chat_template is not None else None
    if metric is not None:
        asked = metric.num_prompts if metric.is_task else len(data.eval_prompts)
        context["metric"] = metric.identity() | {"num_prompts": asked}
    context["data_account"] = data.account()
    context["num_eval_tokens"] = data.eval.num_target_tokens
    context["compute_dtype"] = str(_dtype(base)).removeprefix("torch.")
    study_spec = StudySpec(
        name=config.name,
        run_folder=str(config.run_folder.absolute()),
        space=space,
        trials=config.trials,
        search=config.search.model_dump(),
        report_at=training.report_percents,
        constants=constants,
        scheduler_kwargs=training.lr_scheduler_kwargs,
        trains_embeddings=config.trains_embeddings,
        identity=_identity(config, space, context, metric, train_digest=data.train.digest)
        | {WEIGHTS: digest_of(base)},
        context=context,
        guidelines=load_guidelines(*config.guidelines).to_list(),
        versions=_versions(),
        reliability=config.reliability,
        metric=metric,
    )
    worker_spec = WorkerSpec(
        base=base,
        model_fingerprint=fingerprint(Path(base.model)) if Path(base.model).is_dir() else None,
        data=data,
        pack=workload.options(resident_weights=memory.resident_weights),
        session=SessionOptions(
            report_at=training.report_percents,
            per_device_eval_batch_size=training.per_device_eval_batch_size,
            checkpoint_seconds=config.reliability.checkpoint_seconds,
            disk_patience_seconds=config.reliability.outage_seconds,
            metric=metric,
        ),
        stall_seconds=config.reliability.stall_seconds,
        seats=memory.seats,
    )
    return Blueprint(
        config=config,
        study_spec=study_spec,
        worker_spec=worker_spec,
        tokenizer=tokenizer,
        memory_gib=memory.estimate.peak(memory.seats) / 2**30,
        memory_available_gib=memory.estimate.available / 2**30,
        memory_reason=memory.reason,
        base_gib=memory.smallest_base / 2**30,
        base_kind=quantization.words,
        base_unquantised=memory.unquantised,
        num_train_examples=len(data.train),
        num_train_tokens=data.train.num_tokens,
        num_eval_tokens=data.eval.num_target_tokens,
    )


def _dtype(base: BaseSpec) -> Any:
    import torch

    from lora_runner.base.load_model import resolve_dtype

    return resolve_dtype(base.compute_dtype, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _constants(config: SweepConfig, steps: int) -> dict[str, Any]:
    training, lora = config.training, config.lora
    return {
        "max_steps": steps,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "lora_r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.use_rslora,
        "seed": training.seed,
    }


def _context(
    config: SweepConfig, space: SearchSpace, *, size: float, steps: int, eval_digest: str
) -> dict[str, Any]:
    """The conditions under which the results hold; verdicts compare them with each row's own."""
    return {
        "model": config.model.name,
        "revision": config.model.revision,
        "trust_remote_code": config.model.trust_remote_code,
        "model_size": size,
        "scenario": config.scenario,
        "method": config.method,
        "train_embeddings": config.trains_embeddings,
        "modules_to_save": list(config.embedding_modules),
        "max_steps": steps,
        "per_device_train_batch_size": config.training.per_device_train_batch_size,
        "gradient_accumulation_steps": config.training.gradient_accumulation_steps,
        "lora_r": config.lora.r,
        "lora_alpha": config.lora.alpha,
        "alpha_convention": "alpha/sqrt(r)" if config.lora.use_rslora else "alpha/r",
        "target_modules": config.lora.target_modules,
        "embedding_optimizer_bits": config.training.embedding_optimizer_bits,
        "max_length": config.data.max_length,
        "completion_only": config.data.completion_only,
        "data": config.data.model_dump(mode="json"),
        "eval_set_hash": eval_digest,
        "seed": config.training.seed,
        "space_notes": space.context.get("notes", []),
    }


def _identity(
    config: SweepConfig,
    space: SearchSpace,
    context: Mapping[str, Any],
    metric: MetricSpec | None,
    *,
    train_digest: str,
) -> dict[str, Any]:
    """What must be equal for two runs to share a study; how it is searched and where it runs may change."""
    training = config.training.model_dump(
        mode="json",
        # What changes no number of a trial, and what stands below in its resolved form.
        exclude={
            "per_device_eval_batch_size",
            "gradient_checkpointing",
            "evaluations",
            "report_at",
            "num_train_epochs",
        },
    )
    return {
        "metric": objective_of(metric),
        **({} if metric is None else {"measured": context["metric"]}),
        "model": {
            "name": config.model.name,
            "revision": config.model.revision,
            "quantization": context["quantization"],
        },
        "compute_dtype": context["compute_dtype"],
        "train_data": train_digest,
        "eval_data": context["eval_set_hash"],
        "space": space.fingerprint(),
        # By their ids: a token and its id are the same choice.
        "train_embeddings": {"tokens": context["trainable_token_indices"]}
        if context["trainable_token_indices"]
        else list(config.embedding_modules),
        "lora": config.lora.model_dump(mode="json"),
        "training": training | {"max_steps": context["max_steps"]},
        "report_at": list(config.training.report_percents),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def summary(blueprint: Blueprint) -> dict[str, Any]:
    """The blueprint as plain values, for `sweeps plan --json`."""
    study_spec = blueprint.study_spec
    return {
        "name": study_spec.name,
        "context": study_spec.context,
        "data": study_spec.context["data_account"],
        "space": study_spec.space.to_dict(),
        "first_trials": [asdict(trial) for trial in study_spec.space.first_trials()],
        "trials": study_spec.trials,
        "metric": metric_account(blueprint),
        "seats": blueprint.worker_spec.seats,
        "memory_gib": blueprint.memory_gib,
        "memory_reason": blueprint.memory_reason,
    }
