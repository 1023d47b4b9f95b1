"""The usual stack: Ray Tune and OptunaSearch over transformers' Trainer, peft and bitsandbytes.

`python -m benchmarks.peers.usual_stack OUTCOME WORKLOAD --processes N`: one process per trial, Ray Tune's
default, `N` at once, each with its share of the cores and its own base.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peers.local_ray import start_local_ray
from benchmarks.peers.sweep_workload import Workload

IGNORED = -100


def tokenize(path: str, tokenizer: Any, max_length: int) -> list[dict[str, list[int]]]:
    """Join prompt, completion and EOS, with loss on the completion only."""
    examples = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        prompt = tokenizer(record["prompt"])["input_ids"]
        completion = tokenizer(record["completion"], add_special_tokens=False)["input_ids"]
        ids = [*prompt, *completion, tokenizer.eos_token_id][:max_length]
        labels = [IGNORED] * len(prompt) + ids[len(prompt) :]
        examples.append({"input_ids": ids, "labels": labels[: len(ids)]})
    return [example for example in examples if any(label != IGNORED for label in example["labels"])]


def train(config: dict[str, Any], work: Workload, data: dict[str, Any], threads: int) -> None:
    """Run one trial: load the base, train and save the adapter, report every evaluation.

    `clock`: when the trial began, had imported, and had loaded its base, in seconds since the epoch.
    """
    clock = [time.time()]
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    torch.set_num_threads(threads)
    clock.append(time.time())
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32  # slow on CPUs without instructions for it
    base = AutoModelForCausalLM.from_pretrained(
        work.model,
        dtype=dtype,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        device_map={"": "cuda:0" if cuda else "cpu"},
    )
    base.config.use_cache = False
    model = get_peft_model(
        prepare_model_for_kbit_training(base, use_gradient_checkpointing=False),
        LoraConfig(
            r=work.lora_r,
            lora_alpha=work.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            modules_to_save=["embed_tokens", "lm_head"] if work.train_embeddings else None,
            task_type="CAUSAL_LM",
        ),
    )
    clock.append(time.time())

    class Report(TrainerCallback):  # type: ignore[misc]
        """Reports every evaluation to Ray Tune, with times for the benchmark's table."""

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
            tune.report(
                {"eval_loss": metrics["eval_loss"], "step": state.global_step, "clock": [*clock, time.time()]}
            )

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="trainer",
            max_steps=work.max_steps,
            per_device_train_batch_size=work.batch_size,
            per_device_eval_batch_size=work.eval_batch_size,
            learning_rate=config["learning_rate"],
            lr_scheduler_type=work.lr_scheduler_type,
            warmup_steps=round(work.warmup_ratio * work.max_steps),
            max_grad_norm=work.max_grad_norm,
            weight_decay=0.0,
            eval_strategy="steps",
            eval_steps=work.max_steps // work.evaluations,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=cuda,
            use_cpu=not cuda,
            seed=work.seed,
        ),
        train_dataset=data["train"],
        eval_dataset=data["eval"],
        data_collator=DataCollatorForSeq2Seq(
            AutoTokenizer.from_pretrained(work.model), padding="longest", label_pad_token_id=IGNORED
        ),
        callbacks=[Report()],
    )
    trainer.train()
    model.save_pretrained("adapter")


def main() -> None:
    """Run the sweep and write its trials' results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("workload", type=json.loads, help="a Workload as JSON")
    parser.add_argument("--processes", type=int, required=True, help="trials at once")
    parser.add_argument("--reuse-actors", action="store_true", help="one process for many trials")
    options = parser.parse_args()
    work = Workload(**options.workload)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work.model)
    data = {name: tokenize(getattr(work, name), tokenizer, work.max_length) for name in ("train", "eval")}
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // options.processes)
    start_local_ray()
    gpus = ray.cluster_resources().get("GPU", 0)
    share = {"cpu": threads} | ({"gpu": gpus / options.processes} if gpus else {})
    results = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, work=work, data=data, threads=threads), share),
        param_space={"learning_rate": tune.loguniform(work.learning_rate_low, work.learning_rate_high)},
        tune_config=tune.TuneConfig(
            metric="eval_loss",
            mode="min",
            num_samples=work.trials,
            search_alg=OptunaSearch(seed=work.seed),
            reuse_actors=options.reuse_actors,
        ),
        run_config=tune.RunConfig(storage_path=str(Path.cwd() / "tune"), name="sweep", verbose=0),
    ).fit()
    if results.errors:
        raise SystemExit(f"{len(results.errors)} trials failed; the first: {results.errors[0]}")
    trials = [{name: result.metrics[name] for name in ("eval_loss", "step", "clock")} for result in results]
    options.outcome.write_text(json.dumps(trials))


if __name__ == "__main__":
    main()
