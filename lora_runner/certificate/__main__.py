"""`python -m lora_runner.certificate`: `sweeps certify` for a machine that has `lora_runner` alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_runner.base.load_model import BaseSpec
from lora_runner.certificate.command import certify_and_print
from lora_runner.errors import RunnerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: every kind has an invariant way; 1: one has none; 2: bad input."""
    parser = argparse.ArgumentParser(prog="python -m lora_runner.certificate", description=__doc__)
    parser.add_argument("--model", help="take the layer sizes of this model: hub id or local folder")
    parser.add_argument("--device", help="cuda, cuda:N or cpu; default: the first GPU, else the CPU")
    parser.add_argument("--seed", type=int, help="repeat the random inputs of a certificate")
    parser.add_argument("--output", type=Path, help="file to write the certificate to, as JSON")
    given = parser.parse_args(arguments)
    model = None if given.model is None else BaseSpec(model=given.model)
    try:
        return certify_and_print(model, device=given.device, seed=given.seed, output=given.output)
    except (RunnerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
