"""Versions of installed distributions, read from their metadata: nothing is imported to learn them."""

from __future__ import annotations

from functools import cache

# One package under several names, which differ in what they were compiled for. Each that is there counts.
NAMES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
}


@cache
def version(tool: str) -> str:
    """Return the installed version of a distribution (of `name:major`, the first number of it), or `"absent"`.

    Under another name than the tool's own, that name is added: `10.16.1.11 (tensorrt-cu13)`.
    """
    name, _, part = tool.partition(":")
    installed = {known: text for known in NAMES.get(name, (name,)) if (text := _version(known))}
    texts = [(text.partition(".")[0] if part == "major" else text, known) for known, text in installed.items()]
    return ", ".join(text if known == name else f"{text} ({known})" for text, known in texts) or "absent"


def _version(distribution: str) -> str | None:
    from importlib import metadata

    try:
        installed = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return None
    # One header of hundreds of lines: parsing them all, as `installed.version` does, is a tenth of a no-op.
    headers = (installed.read_text("METADATA") or "").partition("\n\n")[0]
    version = next((line for line in headers.splitlines() if line.startswith("Version:")), None)
    return version.removeprefix("Version:").strip() if version else installed.version
