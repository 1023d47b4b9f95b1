"""The driver of a rehearsed sweep: `python -m tests.chaos.driver SWEEP.yaml [--address A]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import ray.cloudpickle
from rich.console import Console

from sweeps.errors import SweepError
from tests.chaos import rehearsal


def main() -> int:
    """Run or resume the sweep; returns the exit codes of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--address")
    options = parser.parse_args()
    # Workers cannot import a test module, so its classes are pickled by value.
    ray.cloudpickle.register_pickle_by_value(rehearsal)
    sweep = rehearsal.RehearsedSweep.load(options.file, check_files=False)
    try:
        result = sweep.run(address=options.address, console=Console(file=sys.stdout, width=200))
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 130 if result.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
