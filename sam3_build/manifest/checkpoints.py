"""The `checkpoint:` and `tokenizer:` of a manifest: reports what is wrong with them, returns the files they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.manifest.problems import Report, kind, no_file
from sam3_build.manifest.rules import check_file
from sam3_build.manifest.shape import CheckpointFile, ManifestFile
from sam3_build.manifest.types import Checkpoint, Download, Hub
from sam3_build.manifest.weight_files import main_file, weight_files
from sam3_build.manifest.yaml_tree import Keys, Value
from sam3_build.spec import ModelFamily
from sam3_build.weights.files import SAFETENSORS_SUFFIX, TORCH_SUFFIXES, WEIGHT_NAMES, name_of

SOURCES = ("random", "path", "hub", "url")
FILES = "'path', 'hub' or 'url'"
KEYS: Keys = ("checkpoint",)

# A name at the hub, and a revision: a branch, a tag or a commit.
REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
REVISION = r"[\w.][\w./-]*"
DEFAULT_REVISION = "main"

# Cards and records hold a URL, so that one with a user name or a password in it is refused.
URL = r"https?://[^\s/@]+/[^\s@]+"
SHA256 = r"[0-9a-fA-F]{64}"


def check_checkpoint(file: ManifestFile, family: ModelFamily | None, report: Report) -> None:
    """Report a checkpoint that is not one of its kinds, lacks files, or has keys of another kind.

    family: None when it is not known; then nothing is said of what depends on it
    """
    given = [name for name in SOURCES if getattr(file.checkpoint, name) is not None]
    if len(given) != 1:
        one_of = ", ".join(f"'{name}'" for name in SOURCES[:-1])
        report.add(KEYS, f"takes exactly one of {one_of} and '{SOURCES[-1]}', found {' and '.join(given) or 'none'}")
        return
    if file.checkpoint.revision is not None and given != ["hub"]:
        report.add_key((*KEYS, "revision"), f"is allowed beside 'hub' only; '{given[0]}' has no revisions")
    if file.checkpoint.sha256 is not None and given != ["url"]:
        report.add_key((*KEYS, "sha256"), f"is allowed beside 'url' only; the tensors of '{given[0]}' are digested")
    _check_state_dict(file.checkpoint, family, report)
    if file.checkpoint.random:
        check_file((*KEYS, "random", "config"), report)
        if file.checkpoint.config is not None:
            report.add_key((*KEYS, "config"), f"is allowed beside {FILES}; the config of 'random' goes inside 'random'")
        if file.checkpoint.licence is not None:
            report.add_key((*KEYS, "licence"), f"is allowed beside {FILES} only; random numbers have no licence")
        return
    if file.checkpoint.hub is not None:
        _check_hub(file.checkpoint, report)
    elif file.checkpoint.url is not None:
        _check_url(file.checkpoint, family, report)
    else:
        _check_path(file.checkpoint, family, report)
    check_file((*KEYS, "config"), report)
    check_file((*KEYS, "licence"), report)


def _check_state_dict(checkpoint: CheckpointFile, family: ModelFamily | None, report: Report) -> None:
    """Report `weights` beside what holds one state dict only. Which ones a file holds, the `checkpoint` action says."""
    at: Keys = (*KEYS, "weights")
    if checkpoint.weights is None:
        return
    if checkpoint.weights == "":
        report.add(at, "is empty; name a state dict of the file, such as 'ema', or leave it out")
    if checkpoint.random:
        report.add_key(at, f"is allowed beside {FILES} only; 'random' has no state dicts")
    if family and (weights := _named_file(checkpoint, family, report)) and weights.suffix not in TORCH_SUFFIXES:
        what = f"chooses a state dict of a file that torch.save wrote ({', '.join(TORCH_SUFFIXES)})"
        report.add_key(at, f"{what}; {weights.name!r} holds one only: leave it out")


def _named_file(checkpoint: CheckpointFile, family: ModelFamily, report: Report) -> Path | None:
    """Return the main file as far as its name is known before anything is downloaded."""
    if checkpoint.url is not None:
        return Path(name_of(checkpoint.url))
    return main_file(report.root.path((*KEYS, "path")), family.weight_names) if checkpoint.path is not None else None


def _check_hub(checkpoint: CheckpointFile, report: Report) -> None:
    if not re.fullmatch(REPO, str(checkpoint.hub)):
        hint = "; a file or folder of this machine goes under 'path'" if str(checkpoint.hub).count("/") != 1 else ""
        report.add((*KEYS, "hub"), f"must be a name at the hub such as 'facebook/sam3', found {checkpoint.hub!r}{hint}")
    if checkpoint.revision is not None and not re.fullmatch(REVISION, checkpoint.revision):
        report.add((*KEYS, "revision"), f"must be a branch, a tag or a commit, found {checkpoint.revision!r}")


def _check_url(checkpoint: CheckpointFile, family: ModelFamily | None, report: Report) -> None:
    at, url = (*KEYS, "url"), str(checkpoint.url)
    suffixes = (SAFETENSORS_SUFFIX, *TORCH_SUFFIXES)
    name = Path(name_of(url))
    if not re.fullmatch(URL, url):
        report.add(at, f"must be a URL such as 'https://example.org/model.pt', without an account, found {url!r}")
    elif name.suffix not in suffixes:
        report.add(at, f"must end in the name of one checkpoint file ({', '.join(suffixes)}), found {name.name!r}")
    elif family and checkpoint.config is None and not _needs_no_config(name, family):
        report.add(at, "brings no config.json; name the model's config with 'config:'")
    if checkpoint.sha256 is None:
        report.add(
            KEYS,
            "required key 'sha256' is missing beside 'url': take it from whoever publishes the file, or print that of "
            f"what the server sends now: curl -L {shlex.quote(url)} | sha256sum",
        )
    elif not re.fullmatch(SHA256, checkpoint.sha256):
        report.add((*KEYS, "sha256"), f"must be 64 hex digits, found {checkpoint.sha256!r}")


def _names(family: ModelFamily | None) -> tuple[str, ...]:
    return family.weight_names if family else ()


def _check_path(checkpoint: CheckpointFile, family: ModelFamily | None, report: Report) -> None:
    at: Keys = (*KEYS, "path")
    path = report.root.path(at)
    if kind(path) is None:
        report.add(at, no_file(path, path.name))
        return
    try:
        files = weight_files(path, None, _names(family))
    except (BuildError, OSError) as error:
        report.add(at, getattr(error, "strerror", None) or str(error))
        return
    weights = files["weights"]
    if family and kind(weights) != "file":
        report.add(at, f"folder {path.name!r} holds none of {', '.join((*WEIGHT_NAMES, *family.weight_names))}")
    elif family and checkpoint.config is None and "config" not in files and not _needs_no_config(weights, family):
        report.add(at, "has no config.json beside it; name the model's config with 'config:'")
    missing = [file.name for role, file in files.items() if role.startswith("shard") and kind(file) != "file"]
    if missing:
        report.add(at, f"{weights.name!r} names files that are missing: {', '.join(missing)}; put them beside it")


def _needs_no_config(weights: Path, family: ModelFamily) -> bool:
    return family.official_config is not None and weights.suffix in TORCH_SUFFIXES


def check_tokenizer(file: ManifestFile, family: ModelFamily | None, report: Report) -> None:
    """Report a tokenizer that is no file or that nothing reads; or that none is named, when the checkpoint brings none.

    family: None when it is not known; then nothing is missing
    """
    if file.tokenizer is not None:
        check_file(("tokenizer",), report)
        if family and family.text_tokenizer is None:
            report.add_key(("tokenizer",), f"family {family.name!r} reads no text; leave it out")
        return
    checkpoint = file.checkpoint
    if checkpoint.hub is not None or report.is_broken(("tokenizer",)) or report.is_broken(KEYS):
        return
    if family is None or family.text_tokenizer is None:
        return
    if checkpoint.path is None:
        report.add((), f"required key 'tokenizer' is missing; {family.text_tokenizer}")
    elif kind(path := report.root.path((*KEYS, "path"))) and kind(_tokenizer_beside(path, family)) != "file":
        name = main_file(path, family.weight_names).name
        report.add(
            (), f"required key 'tokenizer' is missing: no tokenizer.json lies beside {name}; {family.text_tokenizer}"
        )


def _tokenizer_beside(path: Path, family: ModelFamily) -> Path:
    return main_file(path, family.weight_names).with_name("tokenizer.json")


def checkpoint_of(file: CheckpointFile, family: ModelFamily, root: Value) -> Checkpoint:
    """Return a checked checkpoint."""
    config = root.path((*KEYS, "config")) if file.config else None
    licence = root.path((*KEYS, "licence")) if file.licence else None
    if file.random:
        drawn_for = root.path((*KEYS, "random", "config"))
        return Checkpoint(file.random.seed, None, None, drawn_for, {"config": drawn_for})
    if file.hub:
        hub = Hub(file.hub, file.revision or DEFAULT_REVISION)
        return Checkpoint(None, hub, None, config, {"config": config} if config else {}, file.weights, licence)
    if file.url:
        download = Download(file.url, str(file.sha256).lower())
        declared = {"config": config} if config else {}
        return Checkpoint(None, None, None, config, declared, file.weights, licence, download)
    path = root.path((*KEYS, "path"))
    files = weight_files(path, config, family.weight_names)
    return Checkpoint(None, None, path, config, files, file.weights, licence)


def tokenizer_of(file: ManifestFile, family: ModelFamily, root: Value) -> Path | None:
    """Return the tokenizer named, else the one beside the weights; None for that of the hub, or where none is read."""
    if file.tokenizer is not None:
        return root.path(("tokenizer",))
    if file.checkpoint.hub or family.text_tokenizer is None:
        return None
    return _tokenizer_beside(root.path((*KEYS, "path")), family)
