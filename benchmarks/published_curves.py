"""Losses that were hidden from the curve model, and how well it foretells them.

    python -m benchmarks.published_curves TABLE.csv [--fit] [--save]

TABLE is the table of `results/reference/published-lora-sft.md`, which is not in the repository. Each of its
models is foretold with hyperparameters that were fitted on the others. `--fit` fits them again and
writes `results/curve_model/fitted.json` (three minutes), else those of that file are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.curves.hidden_rates import Foretold, foretell, hidden_rank_errors, summary
from benchmarks.curves.simulated import SHAPES, simulate
from benchmarks.harness.report import Report, arguments
from files_and_text.atomic_files import atomic_write_json
from results.curve_model.fit import fit
from results.curve_model.hyperparameters import FITTED, Hyperparameters, fitted, fitted_without
from results.curve_model.points import CurvePoints, points_of
from results.published.table import PublishedTable, parse_columns, read_table

COLUMNS = "model=model,learning_rate=lr,rank=rank,eval_loss=test_nll"
MODELS_PER_SHAPE = 60
HEADER = ("models", "judged", "decided", "wrong", "95% covers", "median error, %", "a line is wrong")


def models_of(table: PublishedTable) -> dict[str, CurvePoints]:
    """The runs of each model as points of its curve."""
    return {
        model: points_of((run.values, run.eval_loss) for run in table.runs if run.model == model)
        for model in table.models
    }


def fit_all(table: PublishedTable) -> None:
    """Fit on all models, and without each one, and write the file."""
    models = models_of(table)
    together = fit(list(models.values()))
    without = {
        hidden: fit([m for name, m in models.items() if name != hidden], start=together, rounds=1, steps=15)
        for hidden in models
    }
    atomic_write_json(
        FITTED,
        {
            "command": f"python -m benchmarks.published_curves {table.name} --fit",
            "sha256": table.sha256,
            "all": together.to_dict(),
            "without": {model: h.to_dict() for model, h in without.items()},
        },
    )
    fitted.cache_clear()


def hidden_rates(models: dict[str, CurvePoints]) -> list[Foretold]:
    """Every rate of every model, hidden, by hyperparameters that were fitted on the other models."""
    return [found for name, points in models.items() for found in foretell(fitted_without(name), points)]


def on_simulated(h: Hyperparameters, shape: str, count: int, seed: int = 0) -> list[Foretold]:
    """The same on simulated models of one shape, with their true curves."""
    rng = np.random.default_rng(seed)
    return [found for _ in range(count) for found in foretell(h, *simulate(shape, rng))]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = arguments(__doc__ or "")
    parser.add_argument("table", type=Path, help="the published table, CSV")
    parser.add_argument("--fit", action="store_true", help="fit the hyperparameters again")
    args = parser.parse_args(argv)
    table = read_table(args.table, parse_columns(COLUMNS))
    if args.fit:
        fit_all(table)
    report = Report(
        name="published-curves",
        fixed="All runs of a model at one rate are hidden; what each config there costs against the best of "
        "its rank at the other rates is foretold. A word (more than 0.5%, or not) needs a probability of "
        "95%; it is wrong where the loss that was hidden says otherwise (simulated models: where the true "
        "curve does). A line: through the two neighbouring rates.",
    )
    with report.finished(save=args.save):
        models = models_of(table)
        found = hidden_rates(models)
        report.table("Hidden rates", HEADER, [summary(f"{len(models)} published", found)])
        errors = np.array(
            [e for name, m in models.items() for e in hidden_rank_errors(fitted_without(name), m)]
        )
        model, line = errors.mean(axis=0)
        report.table(
            "Hidden ranks",
            ("losses", "mean error, %", "mean error of a line through two ranks, %"),
            [(len(errors), float(model), float(line))],
        )
        rows = [
            summary(shape, on_simulated(fitted(), shape, 3 if args.quick else MODELS_PER_SHAPE))
            for shape in SHAPES
        ]
        report.table("Hidden rates of models simulated otherwise", HEADER, rows)
        decided = [each for each in found if each.decided]
        report.figure("decided_share", len(decided) / len(found))
        report.figure("wrong_share", sum(each.wrong for each in decided) / len(decided))


if __name__ == "__main__":
    main()
