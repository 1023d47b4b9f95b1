"""The driver of a rehearsed sweep, to be killed: `python -m tests.chaos.driver SWEEP.yaml [--address A]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import ray.cloudpickle
from rich.console import Console

from sweeps.errors import SweepError
from tests.chaos import rehearsal


def main() -> int:
    """Run the sweep, or go on with it; the command line's exit codes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--address")
    options = parser.parse_args()
    # Workers cannot import a test: they get the classes themselves.
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
