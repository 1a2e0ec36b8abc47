"""Downloads from the hub: what is fetched, what is found again without network, and what every refusal says."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from build_space import ROOT
from local_hub import TOKEN, LocalHub, serve

pytestmark = pytest.mark.ci

REPO = "some-org/sam3"
FILES = {"config.json": b"{}", "model.safetensors": b"w" * 200_000, "sam3.pt": b"p" * 200_000, "tokenizer.json": b"t"}

# Each line is a process of its own, as a worker is: huggingface_hub reads its environment when it is imported.
LOOK_UP = "hub.look_up(REPO, {0!r}, lambda names: {{'config.json', 'model.safetensors'}} <= set(names))"
GET = "hub.get(REPO, {0!r}, 'model.safetensors')"


@dataclass(frozen=True)
class Here:
    """A machine with a cache of its own that knows a hub."""

    home: Path
    hub: LocalHub

    def run(self, expression: str, **environ: str) -> str:
        """Return what an expression gives in another process, or the BuildError that it raises after `refused: `."""
        code = (
            f"from sam3_build.weights import hub, pointer\nfrom sam3_build.errors import BuildError\nREPO = {REPO!r}\n"
            f"try:\n    print({expression})\nexcept BuildError as error:\n    print('refused:', error)\n"
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        env = {**kept, "PYTHONPATH": str(ROOT), "HF_HOME": str(self.home), "HF_ENDPOINT": self.hub.url, **environ}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with serve(REPO) as hub:
        yield Here(tmp_path / "home", hub)


@pytest.fixture
def nobody() -> str:
    """The address of a hub where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_branch_is_resolved_to_its_commit_and_a_file_of_it_is_fetched_once(here: Here) -> None:
    commit = here.hub.put(FILES)
    assert f"commit='{commit}'" in here.run(LOOK_UP.format("main"))
    path = Path(here.run(GET.format(commit)))
    assert path.read_bytes() == FILES["model.safetensors"]
    here.hub.asked.clear()
    assert here.run(GET.format(commit)) == str(path)
    assert here.hub.asked == []


def test_a_commit_that_lies_here_is_not_asked_for(here: Here, nobody: str) -> None:
    commit = here.hub.put(FILES)
    for name in ("config.json", "model.safetensors"):
        here.run(f"hub.get(REPO, {commit!r}, {name!r})")
    found = here.run(LOOK_UP.format(commit), HF_ENDPOINT=nobody)
    assert "names=('config.json', 'model.safetensors')" in found


def test_a_branch_is_what_it_was_last_while_the_hub_cannot_be_reached(here: Here, nobody: str) -> None:
    commit = here.hub.put(FILES)
    for name in ("config.json", "model.safetensors"):
        here.run(f"__import__('huggingface_hub').hf_hub_download(REPO, {name!r})")
    for environ in ({"HF_ENDPOINT": nobody}, {"HF_HUB_OFFLINE": "1"}):
        assert f"commit='{commit}'" in here.run(LOOK_UP.format("main"), **environ)


def test_a_broken_connection_is_taken_up_where_it_broke(here: Here) -> None:
    large = bytes(range(256)) * 100_000
    commit = here.hub.put({"model.safetensors": large})
    here.hub.cut = 15_000_000
    path = Path(here.run(GET.format(commit)))
    assert path.read_bytes() == large
    assert any("bytes=" in line for line in here.hub.asked), here.hub.asked


def test_a_pointer_leads_to_its_files_and_fetches_the_same_commit_when_they_are_gone(here: Here) -> None:
    commit = here.hub.put(FILES)
    here.hub.put({**FILES, "model.safetensors": b"newer"})
    pointer = here.home.parent / "weights.json"
    told = {"repo": REPO, "commit": commit, "weights": "model.safetensors", "files": ["sam3.pt"]}
    pointer.write_text(json.dumps(told))
    for _ in range(2):
        path = Path(here.run(f"pointer.locate(__import__('pathlib').Path({str(pointer)!r}))"))
        assert path.read_bytes() == FILES["model.safetensors"]
        assert (path.parent / "sam3.pt").read_bytes() == FILES["sam3.pt"]
        for blob in sorted(here.home.rglob("*"), reverse=True):
            blob.unlink() if blob.is_symlink() or blob.is_file() else blob.rmdir()
    assert here.run("pointer.locate(__import__('pathlib').Path('/somewhere/model.pt'))") == "/somewhere/model.pt"


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(("environ", "status"), [({}, 401), ({"HF_TOKEN": TOKEN}, 403)])
def test_a_gated_model_says_how_to_get_access(here: Here, environ: dict[str, str], status: int) -> None:
    commit = here.hub.put(FILES)
    here.hub.is_gated = True
    said = here.run(GET.format(commit), **environ)
    assert said.startswith(
        f"refused: {REPO} is gated, and the hub refuses access (HTTP {status}): accept its licence at"
    )
    assert f"https://huggingface.co/{REPO}, then run `hf auth login` or set HF_TOKEN" in said


def test_an_unknown_model_and_an_unknown_revision_are_told_apart(here: Here) -> None:
    here.hub.put(FILES)
    said = here.run("hub.look_up('other/model', 'main', lambda names: False)")
    assert said.startswith("refused: the hub has no model 'other/model', or does not show it to you (HTTP 401)")
    said = here.run(LOOK_UP.format("never"))
    assert said.startswith(f"refused: {REPO} has no revision 'never'")


def test_a_file_that_is_not_there_names_the_commit(here: Here) -> None:
    commit = here.hub.put(FILES)
    said = here.run(f"hub.get(REPO, {commit!r}, 'model-2.safetensors')")
    assert said.startswith(f"refused: {REPO} at {commit} lacks a file")


def test_without_network_it_says_what_to_set(here: Here, nobody: str) -> None:
    said = here.run(LOOK_UP.format("main"), HF_ENDPOINT=nobody)
    assert said.startswith(f"refused: cannot get {REPO} from {nobody}")
    assert "HTTPS_PROXY" in said and "HF_ENDPOINT" in said and "'path:'" in said


def test_offline_it_says_so(here: Here) -> None:
    commit = here.hub.put(FILES)
    for expression in (LOOK_UP.format("main"), GET.format(commit)):
        said = here.run(expression, HF_HUB_OFFLINE="1")
        cache = f"{here.home}/hub"
        assert said.startswith(f"refused: HF_HUB_OFFLINE is set, and {cache} does not hold all files of {REPO} at ")
    assert here.hub.asked == []


def test_a_full_disk_says_which(here: Here) -> None:
    said = here.run(f"hub._refusal(OSError({errno.ENOSPC}, 'No space left on device'), REPO, 'main')")
    assert said.startswith(f"no space left for {REPO} in {here.home}/hub; free some, or set HF_HOME")
