"""Builds the blueprint: reads the model's configuration and the data, and estimates what fits.

Imports torch and transformers, which takes seconds: import this module only where a sweep is planned.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from files_and_text.problems import Problem
from files_and_text.yaml_lines import ProblemAt
from lora_runner.base.load_model import (
    BaseSpec,
    check_weights,
    load_tokenizer,
    meta_model,
    num_parameters_of,
    vocabulary_size,
)
from lora_runner.base.model_structure import text_config
from lora_runner.base.quantization import quantization_of
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.data import check_token_ids, load_data, steps_for_epochs
from lora_runner.memory.estimate import choose_seats
from lora_runner.memory.planned_device import PlannedDevice
from lora_runner.protocol import SessionOptions
from search_spaces import load_guidelines
from sweeps.artifacts.file_server import fingerprint
from sweeps.config import SweepConfig, space_of
from sweeps.errors import ConfigError
from sweeps.plan.blueprint import Blueprint
from sweeps.plan.expected_path import expected_path
from sweeps.plan.metric_setup import check_prompts, metric_of
from sweeps.plan.schedule_rules import schedule_findings
from sweeps.plan.specs import CheckpointSize, StudySpec, WorkerSpec
from sweeps.plan.study_identity import package_versions, study_context, study_identity
from sweeps.plan.trained_tokens import trained_tokens
from sweeps.plan.workload import workload_of
from sweeps.study.edges.stored_space import space_of_study
from sweeps.study.stages import Stages

MAX_SEATS = {"cuda": 32, "cpu": 8}
"""More seats gain nothing: the cost of the base's forward pass per seat is small by then."""


def base_spec(config: SweepConfig) -> BaseSpec:
    """The base that the sweep file names."""
    return BaseSpec(
        model=config.model.name,
        revision=config.model.revision,
        trust_remote_code=config.model.trust_remote_code,
        compute_dtype=config.model.compute_dtype,
        device_map=config.model.device_map,
    )


def build_blueprint(
    config: SweepConfig,
    problem_at: ProblemAt = lambda _, message: Problem(message),
    stages: Stages | None = None,
    *,
    on: PlannedDevice | None = None,
) -> Blueprint:
    """Read the model's configuration and the data, build the space, and estimate what fits. Writes nothing.

    `problem_at` finds the file and line of a key, `stages` hold what is being done. `on`: the device of the
    estimates, by default this machine's. Raises ConfigError, ModelError or DataError for anything that would
    fail later.
    """
    stages = stages or Stages()
    base = base_spec(config)
    with stages.stage("reading the model"):
        check_weights(base)
        meta = meta_model(base)
        quantization = quantization_of(meta.config, base.model, base.quantization)
        size = config.model.size or num_parameters_of(meta)
        tokenizer = load_tokenizer(base)
    token_ids = trained_tokens(config, meta, tokenizer, problem_at)
    max_positions = getattr(text_config(meta), "max_position_embeddings", None)
    metric = metric_of(config, problem_at, tokenizer, max_positions)
    num_prompts = metric.num_prompts if metric is not None and not metric.is_task else 0
    with stages.stage("reading the data"):
        data = load_data(config.data, tokenizer, num_prompts=num_prompts)
        check_token_ids(data, tokenizer, vocabulary_size(meta))
    check_prompts(metric, data, problem_at)
    training = config.training
    max_steps = training.max_steps or steps_for_epochs(
        len(data.train),
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
        training.num_train_epochs or 1,
    )
    space = space_of_study(config, space_of(config, model_size=float(size), max_steps=max_steps))
    constants = _constants(config, max_steps)
    if found := list(schedule_findings(space, constants, training.lr_scheduler_kwargs)):
        raise ConfigError(problem_at(key, message) for key, message in found)
    workload = workload_of(config, space, data, token_ids, metric, problem_at)
    on = on or PlannedDevice.here()
    device, dtype = on.torch_device, on.dtype(base.compute_dtype)
    with stages.stage("estimating memory"):
        memory = choose_seats(
            base,
            workload,
            most=min(MAX_SEATS[device.type], config.trials),
            seats=None if config.seats == "auto" else config.seats,
            available=_share_of_device(config, device) * on.memory,
            on=on,
        )
    context = study_context(
        config,
        space,
        data,
        meta,
        quantization,
        metric,
        model_size=float(size),
        max_steps=max_steps,
        compute_dtype=str(dtype).removeprefix("torch."),
        token_ids=token_ids,
    )
    study_spec = StudySpec(
        name=config.name,
        run_folder=str(config.run_folder.absolute()),
        space=space,
        trials=config.trials,
        search=config.search.model_dump(),
        report_at=training.report_percents,
        constants=constants,
        scheduler_kwargs=training.lr_scheduler_kwargs,
        identity=study_identity(config, space, base, context, metric, train_digest=data.train.digest),
        context=context,
        guidelines=load_guidelines(*config.guidelines).to_list(),
        versions=package_versions(),
        reliability=config.reliability,
        metric=metric,
        checkpoint_size=CheckpointSize.of(meta, workload),
        # A folder of quantized weights has no others.
        measure_unquantized=bool(quantization)
        and not quantization.is_stored
        and config.model.measure_unquantized,
    )
    sizes = ModelSizes.of_model(meta, base.model)
    worker_spec = WorkerSpec(
        base=base,
        sizes=sizes,
        model_fingerprint=fingerprint(Path(base.model)) if Path(base.model).is_dir() else None,
        data=data,
        pack=replace(workload.options(), resident_weights=memory.resident_weights),
        session=SessionOptions(
            report_at=training.report_percents,
            per_device_eval_batch_size=training.per_device_eval_batch_size,
            checkpoint_seconds=config.reliability.checkpoint_seconds,
            disk_patience_seconds=config.reliability.outage_seconds,
            metric=metric,
        ),
        stall_seconds=config.reliability.stall_seconds,
        seats=memory.seats,
        memory_share=_share_of_device(config, device),
    )
    return Blueprint(
        config=config,
        study_spec=study_spec,
        worker_spec=worker_spec,
        tokenizer=tokenizer,
        memory_gib=memory.estimate.peak(memory.seats) / 2**30,
        memory_available_gib=memory.estimate.available / 2**30,
        memory_reason=memory.reason,
        compute_path=expected_path(base, sizes, on, dtype, memory.estimate.path),
        device=on,
        base_gib=memory.smallest_base / 2**30,
        base_kind=quantization.description,
        base_unquantized=memory.unquantized,
    )


def _share_of_device(config: SweepConfig, device: torch.device) -> float:
    """What a worker may use of the memory of one GPU, or of the machine, as a factor."""
    if device.type == "cuda":
        return config.gpus_per_worker
    return 1 / (1 if config.workers == "auto" else config.workers)  # the workers share one machine's memory


def _constants(config: SweepConfig, steps: int) -> dict[str, Any]:
    names = {
        *("per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay", "max_grad_norm"),
        *("adam_beta1", "adam_beta2", "adam_epsilon", "seed"),
    }
    return {**config.training.model_dump(include=names), **config.lora.trial_values, "max_steps": steps}
