"""`sweeps certify`: what is invariant on this machine, and how fast it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.arguments import SetOption, file_errors, load_to_run
from sweeps.cli.frame.default_run import complete_run
from sweeps.errors import ConfigError

if TYPE_CHECKING:
    from lora_runner.base.load_model import BaseSpec

app = typer.Typer()


@app.command(epilog="sweeps certify --model Qwen/Qwen3-0.6B --output certificate.json")
def certify(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SWEEP]", help="sweep file or run folder, for its model", autocompletion=complete_run
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="take the layer sizes of this model instead: hub id or local folder"
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="cuda, cuda:N or cpu; default: the first GPU, else the CPU"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="repeat the random inputs of a certificate that names this seed"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="file to write the certificate to, as JSON")
    ] = None,
    settings: SetOption = None,
) -> None:
    """Check which ways to compute are invariant on this machine.

    Their speed is measured. A trial alone is compared bit by bit with the same trial in other company, on
    fresh random inputs of the model's layer sizes. Ends with 1 where a kind of
    computation has no invariant way. A run folder gets the certificate as
    certificate-DEVICE.json.
    """
    if path is not None and model is not None:
        raise ConfigError(["give a sweep file or --model, not both"])
    if path is None and settings:
        raise ConfigError(["--set overrides keys of a sweep file, and none is given"])
    from lora_runner.certificate.command import certify_and_print

    with file_errors():
        code = certify_and_print(
            _base(path, model, settings),
            device=device,
            seed=seed,
            output=output,
            beside=path if path is not None and path.is_dir() else None,
        )
    if code:
        raise typer.Exit(code)


def _base(path: Path | None, model: str | None, settings: list[str] | None) -> BaseSpec | None:
    from lora_runner.base.load_model import BaseSpec
    from sweeps.plan.build_blueprint import base_spec

    if path is not None:
        return base_spec(load_to_run(path, settings).config)
    return None if model is None else BaseSpec(model=model)
