"""`sweeps merge`: the best adapter merged into its base, with the script that exports include."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from files_and_text.atomic_files import whole_folder
from results.best import BEST_FOLDER, MERGED
from results.errors import ExportError, WouldOverwrite
from results.export.merge_script import MERGE_SCRIPT
from sweeps.sweep import Sweep


def merge_best(sweep: Sweep, output: Path | None = None) -> Path:
    """Write the base with the best adapter merged into it, in 16 bits; returns the folder (`best/merged`).

    Needs memory for the whole base. Raises WouldOverwrite for a folder with files in it, ExportError when
    there is no best adapter or the merge fails.
    """
    target = (output or sweep.run_folder / BEST_FOLDER / MERGED).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WouldOverwrite([target])
    with tempfile.TemporaryDirectory(prefix="sweeps-merge-") as scratch:
        sweep.export("peft", Path(scratch) / "peft")
        with whole_folder(target) as fresh:
            command = [sys.executable, str(Path(scratch) / "peft" / MERGE_SCRIPT), "--output", str(fresh)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
                raise ExportError(f"the best adapter could not be merged into its base: {reason}")
    return target
