"""The Optuna study: opened, recognised, searched."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna import pruners, samplers
from optuna.trial import TrialState

from search_spaces import SearchSpace
from sweeps.errors import StorageUnreachable, StudyMismatch

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a database storage; StorageUnreachable never shows the password."""
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=_engine_options(url))
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        raise StorageUnreachable(f"storage {masked(url)} cannot be opened: {_reason(error, url)}") from None


def check_reachable(url: str) -> None:
    """Connect once, writing nothing. A SQLite file need not exist yet."""
    if url.startswith("sqlite"):
        return
    try:
        engine = sqlalchemy.create_engine(url, **_engine_options(url))
        with engine.connect():
            pass
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        raise StorageUnreachable(f"storage {masked(url)} cannot be reached: {_reason(error, url)}") from None


def _engine_options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        # Readers such as `sweeps status` hold the lock for moments only.
        return {"connect_args": {"timeout": 60}}
    return {"pool_pre_ping": True, "pool_recycle": 1800}


def masked(url: str) -> str:
    """The URL with its password hidden, for messages."""
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return f"{url.partition('://')[0]}://..."


def _reason(error: Exception, url: str) -> str:
    try:
        password = sqlalchemy.engine.make_url(url).password
    except sqlalchemy.exc.ArgumentError:
        password = None
    text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    return text.replace(str(password), "***") if password else text


def peek(url: str, name: str, identity: Mapping[str, Any] | None = None) -> optuna.Study | None:
    """The study for reading, or None where there is none yet; StudyMismatch when `identity` is given and differs."""
    file = sqlalchemy.engine.make_url(url).database if url.startswith("sqlite") else None
    if file is not None and not Path(file).exists():
        return None  # opening would create the file
    storage = open_storage(url)
    if name not in {s.study_name for s in optuna.get_all_study_summaries(storage, include_best_trial=False)}:
        return None
    if identity is None:
        return optuna.load_study(storage=storage, study_name=name)
    return open_study(storage, name, identity)[0]


def open_study(
    storage: optuna.storages.BaseStorage, name: str, identity: Mapping[str, Any]
) -> tuple[optuna.Study, bool]:
    """The sweep's study and whether it is new. StudyMismatch lists every field that differs from `identity`."""
    known = {summary.study_name for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    if name not in known:
        study = optuna.create_study(storage=storage, study_name=name, direction="minimize")
        study.set_user_attr("identity", dict(identity))
        return study, True
    study = optuna.load_study(storage=storage, study_name=name)
    theirs = study.user_attrs.get("identity")
    if not isinstance(theirs, Mapping):
        raise StudyMismatch(f"the storage already holds a study named {name!r} that no sweep made; choose another name")
    differing = list(_differences(theirs, identity))
    if study.direction != optuna.study.StudyDirection.MINIMIZE:
        differing.append("direction: the study maximizes")
    if differing:
        raise StudyMismatch(
            f"the study {name!r} belongs to another sweep; give this one another name, or undo the change:\n"
            + "\n".join(f"  {line}" for line in differing)
        )
    return study, False


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], at: str = "") -> list[str]:
    lines = []
    for key in sorted({*theirs, *ours}):
        path = f"{at}.{key}" if at else key
        old, new = theirs.get(key), ours.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += _differences(old, new, path)
        elif old != new:
            lines.append(f"{path}: the study has {old!r}, this sweep {new!r}")
    return lines


class GridSampler(samplers.GridSampler):
    """Optuna's grid, for ask and tell: the end of the grid is asked for (`is_exhausted`), never raised."""

    def after_trial(self, *arguments: Any, **named: Any) -> None:
        """Optuna's own would stop an optimize loop, and raises where there is none."""


def make_sampler(search: Mapping[str, Any], space: SearchSpace, number: int) -> samplers.BaseSampler:
    """The sampler for trial `number`.

    Its seed is derived from the search's seed and the number, so that a sweep that was interrupted draws what an
    uninterrupted one would, and never draws the same trial twice because a generator was started anew.
    """
    seed = derived_seed(search["seed"], number)
    options = dict(search["sampler_options"])
    startup = search["startup_trials"]
    if startup is not None:
        options["n_startup_trials"] = startup
    match search["sampler"]:
        case "tpe":
            # group: conditional dimensions keep their own joint model (optuna's plain multivariate TPE drops them).
            return samplers.TPESampler(seed=seed, **{"multivariate": True, "group": True, **options})
        case "random":
            return samplers.RandomSampler(seed=seed)
        case "gp":
            return samplers.GPSampler(seed=seed, **options)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False, **options)
        case "grid":
            points = options.get("points_per_dimension", 5)
            # One order for all numbers: the grid sampler itself remembers in the study which points are taken.
            return GridSampler(space.grid(points), seed=search["seed"])
    raise ValueError(f"unknown sampler {search['sampler']!r}")


def make_pruner(search: Mapping[str, Any], report_at: tuple[int, ...]) -> pruners.BasePruner:
    """The pruner; resources are percents of a trial's budget, whole numbers, so rungs never drift.

    Successive halving's first rung is the first report, unless the file says otherwise.
    """
    options = dict(search["pruner_options"])
    match search["pruner"]:
        case "successive_halving":
            defaults = {"min_resource": report_at[0], "reduction_factor": 2}
            return pruners.SuccessiveHalvingPruner(**{**defaults, **options})
        case "hyperband":
            defaults = {"min_resource": report_at[0], "max_resource": 100, "reduction_factor": 2}
            return pruners.HyperbandPruner(**{**defaults, **options})
        case "median":
            return pruners.MedianPruner(**options)
        case "none":
            return pruners.NopPruner()
    raise ValueError(f"unknown pruner {search['pruner']!r}")


def derived_seed(seed: int, number: int) -> int:
    """A 32-bit seed from the search's seed and a trial's number."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
