"""A checkpoint at a URL: downloaded once and verified, whatever servers and connections do; what every refusal says."""

from __future__ import annotations

import errno
import logging
import re
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from huggingface_hub import constants
from local_files import LocalFiles, serve

from sam3_build.errors import BuildError
from sam3_build.weights import download

DATA = bytes(range(256)) * 8192  # 2 MiB
DIGEST = sha256(DATA).hexdigest()
NAME = "models/sam.pt"


@pytest.fixture
def server() -> Iterator[LocalFiles]:
    with serve() as local:
        local.files[NAME] = DATA
        yield local


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "home" / "sam3_build"


@pytest.fixture
def pauses() -> list[float]:
    return []


def get(server: LocalFiles, pauses: list[float], name: str = NAME, digest: str = DIGEST) -> Path:
    return download.get(server.url(name), digest, pauses.append)


def refused(server: LocalFiles, pauses: list[float], name: str = NAME, digest: str = DIGEST) -> str:
    with pytest.raises(BuildError) as caught:
        get(server, pauses, name, digest)
    return str(caught.value)


def left(cache: Path) -> set[str]:
    """Return the files that a cache holds, but for its locks."""
    return {str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"}


# ------------------------------------------------------------------ what comes


def test_a_file_is_downloaded_once_and_lies_by_its_digest(
    server: LocalFiles, cache: Path, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = get(server, pauses)
    assert path == cache / DIGEST / "sam.pt" and path.read_bytes() == DATA
    assert get(server, pauses) == path
    assert (server.asked, pauses) == ([NAME], [])
    assert "sam.pt: 0.0 MB of 2.1 MB" in caplog.text and "sam.pt: 2.1 MB of 2.1 MB" in caplog.text
    assert left(cache) == {f"{DIGEST}/sam.pt"}
    server.files["other/name.pt"] = DATA
    assert get(server, pauses, "other/name.pt") == path, "the same bytes from elsewhere"
    assert download.find(server.url("x.pt"), DIGEST) == path
    assert download.find(server.url("x.safetensors"), DIGEST) is None, "the ending says how a file is read"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: LocalFiles, pauses: list[float]) -> None:
    server.cuts = [1_000_000, 500_000]
    assert get(server, pauses).read_bytes() == DATA
    assert server.asked == [NAME, f"{NAME} bytes=1000000-", f"{NAME} bytes=1500000-"]


def test_what_a_run_left_that_was_killed_is_gone_on_with(server: LocalFiles, cache: Path, pauses: list[float]) -> None:
    cache.mkdir(parents=True)
    (cache / f"{DIGEST}.partial").write_bytes(DATA[:1_500_000])
    assert get(server, pauses).read_bytes() == DATA
    assert server.asked == [f"{NAME} bytes=1500000-"]
    assert left(cache) == {f"{DIGEST}/sam.pt"}


def test_what_was_left_whole_is_only_verified(server: LocalFiles, cache: Path, pauses: list[float]) -> None:
    cache.mkdir(parents=True)
    (cache / f"{DIGEST}.partial").write_bytes(DATA)
    assert get(server, pauses).read_bytes() == DATA
    assert server.asked == [f"{NAME} bytes={len(DATA)}-"]


def test_what_was_left_of_another_file_is_downloaded_anew(server: LocalFiles, cache: Path, pauses: list[float]) -> None:
    cache.mkdir(parents=True)
    (cache / f"{DIGEST}.partial").write_bytes(b"x" * 1000)
    assert get(server, pauses).read_bytes() == DATA
    assert server.asked == [f"{NAME} bytes=1000-", NAME]


def test_a_server_without_ranges_sends_all_of_it_again(server: LocalFiles, pauses: list[float]) -> None:
    server.has_ranges, server.cuts = False, [1_000_000]
    assert get(server, pauses).read_bytes() == DATA
    assert server.asked == [NAME, f"{NAME} bytes=1000000-"]


def test_a_server_that_does_not_say_how_long_a_file_is_is_held_to_the_digest(
    server: LocalFiles, pauses: list[float]
) -> None:
    server.has_length = False
    assert get(server, pauses).read_bytes() == DATA


def test_a_redirect_is_followed_and_no_token_sent(
    server: LocalFiles, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.redirects["latest/sam.pt"] = server.url(NAME)
    server.cuts = [1_000_000]
    path = get(server, pauses, "latest/sam.pt")
    assert path.read_bytes() == DATA and server.authorization is None
    assert server.asked == ["latest/sam.pt", NAME, "latest/sam.pt bytes=1000000-", f"{NAME} bytes=1000000-"]


def test_a_busy_server_is_asked_again_after_a_pause(server: LocalFiles, pauses: list[float]) -> None:
    server.statuses = [503, 429]
    assert get(server, pauses).read_bytes() == DATA
    assert pauses == [2.0, 4.0]


def test_a_damaged_file_in_the_cache_is_replaced(server: LocalFiles, pauses: list[float]) -> None:
    path = get(server, pauses)
    path.write_bytes(b"damaged")
    assert get(server, pauses).read_bytes() == DATA and len(server.asked) == 2


def test_two_at_once_download_one_file(server: LocalFiles, pauses: list[float]) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(get(server, pauses))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1 and server.asked == [NAME]


# ------------------------------------------------------------------ refusals


def test_a_file_with_another_digest_is_refused_with_both_and_not_kept(
    server: LocalFiles, cache: Path, pauses: list[float]
) -> None:
    asked = "0" * 64
    text = refused(server, pauses, digest=asked)
    assert (
        f"is another file than the manifest asks for: {len(DATA)} bytes with the sha256 {DIGEST}, not {asked}" in text
    )
    assert "'sha256:'" in text and left(cache) == set()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "has no http://127.0.0.1:{port}/models/sam.pt (HTTP 404): check 'url:', or download it elsewhere"),
        (
            403,
            "refuses http://127.0.0.1:{port}/models/sam.pt (HTTP 403): it may want an account; download it elsewhere",
        ),
        (418, "answers HTTP 418 for http://127.0.0.1:{port}/models/sam.pt; try again later"),
    ],
)
def test_a_server_that_refuses_is_asked_once(
    server: LocalFiles, cache: Path, pauses: list[float], status: int, words: str
) -> None:
    server.statuses = [status]
    text = refused(server, pauses)
    assert words.format(port=server.port) in text and "'path:'" in text
    assert (pauses, left(cache)) == ([], set())


def test_a_server_that_sends_nothing_is_given_up_and_a_later_run_goes_on(
    server: LocalFiles, cache: Path, pauses: list[float]
) -> None:
    server.cuts = [1_000_000, 0, 0, 0, 0, 0]
    text = refused(server, pauses)
    assert f"cannot get {server.url(NAME)} (" in text and "HTTPS_PROXY" in text
    assert pauses == [0, 2.0, 4.0, 6.0, 8.0] and left(cache) == {f"{DIGEST}.partial"}
    server.asked.clear()
    assert get(server, pauses).read_bytes() == DATA
    assert server.asked == [f"{NAME} bytes=1000000-"]


def test_a_truncated_file_of_unknown_length_is_refused(server: LocalFiles, cache: Path, pauses: list[float]) -> None:
    server.has_length, server.cuts = False, [1_000_000]
    assert f"1000000 bytes with the sha256 {sha256(DATA[:1_000_000]).hexdigest()}, not" in refused(server, pauses)
    assert left(cache) == set()


def test_nobody_there_is_said(pauses: list[float]) -> None:
    with serve() as gone:
        pass
    text = refused(gone, pauses)
    assert text.startswith(f"cannot get {gone.url(NAME)} (ConnectError: ") and "check the network" in text


def test_offline_takes_what_lies_here_and_asks_nobody(
    server: LocalFiles, cache: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = refused(server, pauses)
    assert text.startswith(f"HF_HUB_OFFLINE is set, and {cache} does not hold sam.pt (sha256 {DIGEST}): unset it")
    (cache / DIGEST / "sam.pt").write_bytes(DATA)
    assert get(server, pauses).read_bytes() == DATA
    assert server.asked == []


def test_a_cache_that_cannot_be_written_says_what_to_set(server: LocalFiles, cache: Path, pauses: list[float]) -> None:
    cache.parent.write_text("a file where a folder belongs")
    assert re.search(r"cannot write sam\.pt to .*: set HF_HOME to a folder of yours", refused(server, pauses))


def test_a_full_disk_says_which(cache: Path) -> None:
    error = download._refusal(OSError(errno.ENOSPC, "No space left"), "https://example.org/sam.pt", DIGEST)
    assert str(error) == f"no space left for sam.pt in {cache}; free some, or set HF_HOME to another disk"
