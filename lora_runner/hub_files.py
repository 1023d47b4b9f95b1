"""Whether the Hugging Face hub has a model or a dataset: asked once, briefly, before anything is loaded.

The libraries ask again and again for most of a minute when the hub does not answer, and then show their own
tracebacks. Here a hub that does not answer is given up at once: this process, and those that it starts, use
the cache alone from then on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    get_token,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from files_and_text.nearest_name import did_you_mean

Kind = Literal["model", "dataset"]
SECONDS = 5.0
"""How long the hub may take to answer."""
_GIVEN_UP = "SWEEPS_HUB_GIVEN_UP"
"""Set with HF_HUB_OFFLINE, where it was not the user who set that."""
_ASKED_FOR = {"model": "config.json", "dataset": "README.md"}


@lru_cache(maxsize=64)
def hub_problem(name: str, kind: Kind, revision: str | None = None) -> str | None:
    """Why a hub id cannot be loaded, in two lines: what is missing, and what to do. None if it can be.

    None too for a dataset while the hub is not asked or does not answer: `datasets` alone knows its cache.
    """
    file = _ASKED_FOR[kind]
    try:
        is_cached = isinstance(try_to_load_from_cache(name, file, repo_type=kind, revision=revision), str)
    except HFValidationError as error:
        return _problem(f"{kind} {name!r} is no hub id ({error})", "give owner/name, or a path")
    if constants.is_offline_mode():
        return None if is_cached or kind == "dataset" else offline_problem(name, kind)
    try:
        url = hf_hub_url(name, file, repo_type=kind, revision=revision)
        get_hf_file_metadata(url, timeout=SECONDS)
    except GatedRepoError:
        return _gated(name, kind)
    except RevisionNotFoundError:
        return _problem(
            f"{kind} {name!r} has no revision {revision!r} on the hub", "give a branch, tag or commit"
        )
    except RepositoryNotFoundError:
        return _unknown(name, kind)
    except EntryNotFoundError:
        if kind == "model":
            what = f"model {name!r} has no {file} on the hub: it is no model for transformers"
            return _problem(what, "give the base model, not an adapter or a GGUF repository")
    except Exception as error:  # of the hub, or of whichever HTTP package its library uses
        use_cache_alone()
        if not is_cached and kind == "model":
            return offline_problem(name, kind, because=error)
    return None


def offline_problem(name: str, kind: Kind, because: Exception | None = None) -> str:
    """The two lines about something that is not in the cache while the hub cannot be asked."""
    if because is not None:
        reason = f"{constants.ENDPOINT} does not answer ({type(because).__name__})"
    elif os.environ.get(_GIVEN_UP) == "1":
        reason = f"{constants.ENDPOINT} does not answer"
    else:
        reason = "HF_HUB_OFFLINE is set"
    hint = did_you_mean(name, _cached_names(kind))
    key = "a local folder as `model`" if kind == "model" else "a local file or folder"
    download = f"hf download {name}" + (" --repo-type dataset" if kind == "dataset" else "")
    return _problem(
        f"{kind} {name!r} is not in this machine's cache, and {reason}",
        f"give {key}, or run `{download}` where there is a network.{hint}",
    )


def use_cache_alone() -> None:
    """Ask the hub for nothing more, neither in this process nor in those that it starts."""
    os.environ["HF_HUB_OFFLINE"] = os.environ[_GIVEN_UP] = "1"
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def _gated(name: str, kind: Kind) -> str:
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    token = "the token that is used has no access" if get_token() else "no token is set"
    return _problem(
        f"{kind} {name!r} is gated, and {token}",
        f"accept its terms at {page}, then set HF_TOKEN or `hf auth login`",
    )


def _unknown(name: str, kind: Kind) -> str:
    private = "" if get_token() else ", or it is private and needs HF_TOKEN"
    hint = did_you_mean(name, [*_names_of_owner(name, kind), *_cached_names(kind)])
    return _problem(
        f"{kind} {name!r} is not on {constants.ENDPOINT}{private}",
        f"check the name, or give a local path.{hint}",
    )


def _names_of_owner(name: str, kind: Kind) -> Iterable[str]:
    owner, slash, _ = name.partition("/")
    if not slash:
        return []
    try:
        answer = get_session().get(
            f"{constants.ENDPOINT}/api/{kind}s",
            params={"author": owner, "limit": 200},
            headers={"authorization": f"Bearer {token}"} if (token := get_token()) else {},
            timeout=SECONDS,
        )
        return [str(found["id"]) for found in answer.json()] if answer.is_success else []
    except Exception:  # a hint is worth no error
        return []


def _cached_names(kind: Kind) -> list[str]:
    folders = Path(constants.HF_HUB_CACHE).glob(f"{kind}s--*")
    return ["/".join(folder.name.split("--")[1:]) for folder in folders]


def _problem(what: str, to_do: str) -> str:
    # The colon at the end of the first line makes one error of both.
    return f"{what}:\n{to_do}"
