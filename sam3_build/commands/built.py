"""What was built, as commands name it: takes what was typed, returns the folder, and the model in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam3_build import runtime
from sam3_build.errors import BuildError


@dataclass(frozen=True)
class Built:
    """A folder of what was built (see `built`), and which of its files run."""

    folder: Path
    target: str = "auto"
    precision: str | None = None
    unverified: bool = False

    def load(self, tokenizer: Path | None = None, memory: int = runtime.MEMORY) -> runtime.Model:
        """Return the model: see `runtime.load`."""
        return runtime.load(
            self.folder, self.target, self.precision, self.unverified, memory=memory, tokenizer=tokenizer
        )


def built(given: Path | None, manifest: str, here: Path) -> Path:
    """Return the folder of what was built: `given`, or `artifacts/<name>` in `here` or above it.

    given:    a folder, or the name of a manifest
    manifest: name or path of the one that is meant when nothing is given
    """
    if given is not None and (given.is_dir() or len(given.parts) > 1):
        return given
    name = given.name if given else Path(manifest).name.removesuffix(".yaml")
    for folder in (here, *here.parents):
        if (found := folder / "artifacts" / name).is_dir():
            return found
    what = f"no folder {given} and " if given else ""
    raise BuildError(
        f"there is {what}no artifacts/{name} in {here} or above it: build it with `doit manifest={name}`, or name a "
        "folder that was built or published with --from"
    )
