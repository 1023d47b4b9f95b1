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
from results.best import BEST_FOLDER, MERGED, best_config
from results.errors import ExportError, WouldOverwrite
from results.export.config_values import base_kind
from results.export.merge_script import MERGE_SCRIPT
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

    Needs memory for the whole base. Raises WouldOverwrite for a folder with files in it, ExportError when
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
    config = best_config(sweep.study(), answer=sweep.read_answer())
    result = config["result"]
    loss, reason = _measured(sweep, target, config["data"]["eval_digest"]) if measure else (None, "as asked")
    return Merged(
        folder=target,
        dtype=dtype,
        base_kind=base_kind(config),
        adapter_loss=result.get("adapter_eval_loss", result["eval_loss"]),
        loss=loss,
        reason=reason,
    )


def _measured(sweep: Sweep, folder: Path, eval_digest: str | None) -> tuple[float | None, str]:
    """The loss of the model in a folder on the sweep's evaluation records, or why there is none."""
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
            return None, "the evaluation records are not those of the sweep any more"
        batch_size = sweep.config.training.per_device_eval_batch_size
        return unquantized_loss(spec, data.eval, batch_size), ""
    except (ExpectedError, OSError) as error:
        return None, str(error).rstrip(".")
