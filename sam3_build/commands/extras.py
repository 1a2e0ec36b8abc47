"""What the base installation, which only runs what was built, leaves to the extra `build` of pyproject.toml."""

from __future__ import annotations

from importlib.util import find_spec

from sam3_build.errors import BuildError

# What the extra brings, as it is imported. Of tensorrt-rtx there is no wheel for some systems: its backend asks for it.
BUILD = (
    "doit", "google.protobuf", "httpx2", "huggingface_hub", "jinja2", "ml_dtypes", "onnx", "onnx_graphsurgeon",
    "onnx_ir", "onnxscript", "onnxsim", "polygraphy", "psutil", "pydantic", "pynvml", "safetensors", "scipy", "torch",
    "transformers", "yaml",
)  # fmt: skip


def require_build() -> None:
    """Return where all of the extra `build` is installed; else BuildError, one line with what to install."""
    missing = [name for name in BUILD if find_spec(name.partition(".")[0]) is None]
    if missing:
        raise BuildError(
            f"this installation only runs what was built, for {missing[0]} is missing; "
            "to build: pip install 'sam3-build[build]'"
        )
