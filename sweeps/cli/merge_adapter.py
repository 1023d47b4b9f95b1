"""`sweeps merge`: the best adapter merged into its base, with the script that exports include."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from files_and_text.atomic_files import whole_folder
from files_and_text.problems import ExpectedError
from files_and_text.trial_paths import BEST_FOLDER, MERGED
from results.best import read_best_config
from results.errors import ExportError, WouldOverwrite
from results.export.config_values import base_kind
from results.export.merge_script import MERGE_SCRIPT
from results.merged_model import MergedModel, forget_merged_model, write_merged_model
from results.text.gaps import short_loss
from sweeps.sweep import Sweep


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A merged model."""

    folder: Path
    dtype: str
    base_kind: str
    """What the adapter was trained and measured on: `NF4 base`."""
    adapter_loss: float | None
    """Evaluation loss of the adapter there, nats per token."""
    loss: float | None = None
    """Of the merged model on the same records; None where it was not measured."""
    reason: str = ""
    """Why it was not measured."""

    def lines(self) -> list[str]:
        """What was written, and what that does to the loss."""
        before = f"the adapter on the {self.base_kind} has {short_loss(self.adapter_loss)}"
        if self.loss is None:
            after = f"its loss was not measured ({self.reason}), and is another one: {before}"
        else:
            after = f"loss {short_loss(self.loss)} on the sweep's evaluation records; {before}"
        return [f"wrote {self.folder}, in {self.dtype}", after]


def merge_best(
    sweep: Sweep, output: Path | None = None, *, dtype: str = "bfloat16", measure: bool = True
) -> Merged:
    """Write the base with the best adapter merged into it, and evaluate it; by default to `best/merged`.

    Its loss is kept in `best/` in place of an earlier one, and the results are written again with it. Needs
    memory for the whole base. Raises WouldOverwrite for a folder with files in it, ExportError when
    there is no best adapter or the merge fails.
    """
    target = Path(os.path.abspath(output or sweep.run_folder / BEST_FOLDER / MERGED))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WouldOverwrite([target], advice="Name another folder with --output")
    with tempfile.TemporaryDirectory(prefix="sweeps-merge-") as scratch:
        sweep.export("peft", Path(scratch) / "peft")
        with whole_folder(target) as fresh:
            script = str(Path(scratch) / "peft" / MERGE_SCRIPT)
            command = [sys.executable, script, "--output", str(fresh), "--dtype", dtype]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
                raise ExportError(f"the best adapter could not be merged into its base: {reason}")
    config = read_best_config(sweep.run_folder / BEST_FOLDER)  # of the adapter that was exported
    result, trial = config["result"], config["sweep"]["trial"]
    digest, loss, reason = "", None, "as asked"
    if measure:
        digest, loss, reason = _measured(sweep, target, config["data"]["eval_digest"])
    _keep(sweep, trial, None if loss is None else _kept(sweep, target, trial, dtype, loss, digest))
    return Merged(
        folder=target,
        dtype=dtype,
        base_kind=base_kind(config),
        adapter_loss=result.get("adapter_eval_loss", result["eval_loss"]),
        loss=loss,
        reason=reason,
    )


def _kept(sweep: Sweep, target: Path, trial: int, dtype: str, loss: float, digest: str) -> MergedModel:
    run_folder = Path(os.path.abspath(sweep.run_folder))
    inside = target.is_relative_to(run_folder)
    folder = (target.relative_to(run_folder) if inside else target).as_posix()
    return MergedModel(trial=trial, dtype=dtype, loss=loss, folder=folder, eval_digest=digest)


def _keep(sweep: Sweep, trial: int, merged: MergedModel | None) -> None:
    """Keep what is known of the last merged model, and write the results that show it."""
    if merged is not None:
        write_merged_model(merged, sweep.run_folder)
    elif not forget_merged_model(sweep.run_folder):
        return
    best = sweep.read_answer().best
    if best is not None and trial == best.trial:  # else best/ would be that of another trial
        sweep.write_results()


def _measured(sweep: Sweep, folder: Path, eval_digest: str | None) -> tuple[str, float | None, str]:
    """The digest of the sweep's evaluation records, the loss on them of the model in a folder, and why there
    is none."""
    from lora_runner.base.load_model import BaseSpec, load_tokenizer
    from lora_runner.data import load_data
    from lora_runner.pack.unquantized_base import unquantized_loss
    from sweeps.plan.build_blueprint import base_spec

    base = base_spec(sweep.config)
    spec = BaseSpec(
        model=str(folder), trust_remote_code=base.trust_remote_code, compute_dtype=base.compute_dtype
    )
    try:
        data = load_data(sweep.config.data, load_tokenizer(base))
        if eval_digest is not None and data.eval.digest != eval_digest:
            return "", None, "the evaluation records are not those of the sweep any more"
        batch_size = sweep.config.training.per_device_eval_batch_size
        return data.eval.digest, unquantized_loss(spec, data.eval, batch_size), ""
    except (ExpectedError, OSError) as error:
        return "", None, str(error).rstrip(".")
