"""The Hugging Face hub: takes a model's name and revision, returns files of it on this machine, downloaded once.

Files lie where huggingface_hub keeps them for everybody (HF_HOME).
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from sam3_build.errors import BuildError

COMMIT = r"[0-9a-f]{40}"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """One commit of a model, and the files that it has; of an unreachable hub, those in the cache."""

    repo: str
    commit: str
    names: tuple[str, ...]


def look_up(repo: str, revision: str, is_enough: Callable[[Collection[str]], bool]) -> Snapshot:
    """Return what `revision` is now. The network is not asked for a commit of which the cache has enough."""
    if re.fullmatch(COMMIT, revision):
        cached = _cached_snapshot(repo, revision)
        if is_enough(cached.names):
            return cached
    from httpx2 import TransportError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(repo, revision=revision)
    except HfHubHTTPError as error:
        raise _refusal(error, repo, revision) from error
    except (OfflineModeIsEnabled, TransportError, OSError) as error:
        cached = _cached_snapshot(repo, _known_commit(repo, revision))
        if not is_enough(cached.names):
            raise _refusal(error, repo, revision) from error
        logger.warning(
            "the hub cannot be reached (%s): taking the commit of %s of %s that was downloaded last",
            error,
            revision,
            repo,
        )
        return cached
    logger.info("%s of %s is commit %s", revision, repo, info.sha)
    return Snapshot(repo, str(info.sha), tuple(file.rfilename for file in info.siblings or ()))


def get(repo: str, commit: str, name: str) -> Path:
    """Return where a file of a commit lies, downloading it when it is not in the cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # a log is no terminal
    logger.info("%s of %s", name, repo)
    try:
        return Path(hf_hub_download(repo, name, revision=commit))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _refusal(error, repo, commit) from error


# ------------------------------------------------------------------ the cache


def _folder(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _known_commit(repo: str, revision: str) -> str:
    """Return the commit that a revision was when the hub was last asked; the revision itself when it never was."""
    try:
        return (_folder(repo) / "refs" / revision).read_text().strip()
    except OSError:
        return revision


def _cached_snapshot(repo: str, commit: str) -> Snapshot:
    folder = _folder(repo) / "snapshots" / commit
    return Snapshot(repo, commit, tuple(sorted(path.name for path in folder.glob("*") if path.is_file())))


# ------------------------------------------------------------------ what can go wrong


def _refusal(error: Exception, repo: str, revision: str) -> BuildError:
    """Say what to do about `error`. What was sent to the hub, a token among it, is never quoted."""
    from huggingface_hub import constants, errors

    page = f"https://huggingface.co/{repo}"
    cause = error.__cause__ or error
    instead = "or download it elsewhere and name the folder with 'path:'"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.GatedRepoError):
        return BuildError(
            f"{repo} is gated, and the hub refuses access (HTTP {status}): accept its licence at {page}, then run "
            "`hf auth login` or set HF_TOKEN to a token of that account that may read gated repositories"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return BuildError(f"{repo} has no revision {revision!r}; {page}/commits/main lists its commits")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return BuildError(
            f"the hub has no model {repo!r}, or does not show it to you (HTTP {status}); check the spelling of "
            "'hub:'. For a private one, run `hf auth login` or set HF_TOKEN; an expired token is refused too"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return BuildError(f"{repo} at {revision} lacks a file that it lists; see {page}/tree/{revision}")
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return BuildError(
            f"no space left for {repo} in {constants.HF_HUB_CACHE}; free some, or set HF_HOME to another disk"
        )
    if constants.HF_HUB_OFFLINE or isinstance(cause, errors.OfflineModeIsEnabled):
        return BuildError(
            f"HF_HUB_OFFLINE is set, and {constants.HF_HUB_CACHE} does not hold all files of {repo} at {revision}: "
            f"unset it for the first build, set HF_HOME to the folder that has them, {instead}"
        )
    if status is not None:
        return BuildError(
            f"the hub at {constants.ENDPOINT} answers HTTP {status} for {repo} at {revision}; try again later"
        )
    message = " ".join(str(cause).split())[:200]
    return BuildError(
        f"cannot get {repo} from {constants.ENDPOINT} ({type(cause).__name__}: {message}): check the network and "
        f"HTTPS_PROXY, name a mirror with HF_ENDPOINT, {instead}"
    )
