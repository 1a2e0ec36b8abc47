"""The errors that people see: each says what is wrong, where, and what to do. Nothing else may reach a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


# A path into a manifest: mapping keys and list positions.
Keys = tuple[str | int, ...]


class BuildError(Exception):
    """Anything a user can cause or must fix. `str(error)` is the whole message; no traceback is ever shown for it."""


class ManifestError(BuildError):
    """All that is wrong with a manifest, one `file:line: path: what, what is allowed, did you mean` a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        """Make one message of all `problems`."""
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class InputError(BuildError):
    """What a manifest names turned out wrong when it was looked into: pairs of keys, such as ("samples", 1), and what.

    The keys lead into the manifest. File and line are looked up by whoever reports it: they must enter no key.
    """

    def __init__(self, problems: Iterable[tuple[Keys, str]]) -> None:
        """Make one message of all `problems`, a line each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{shown(keys)}: {text}" for keys, text in self.problems))


class ActionError(BuildError):
    """An action failed: names the action and its log file, and carries the end of the log."""


class NoDeviceError(BuildError):
    """There is no GPU that could be used; says why, in words that follow "needs a CUDA GPU; "."""


class StoreError(BuildError):
    """The artifact store cannot be read or written (no space, no locks)."""


class DeniedError(StoreError):
    """The artifact store, or a part of it, may not be read or written by this account."""


def shown(keys: Keys) -> str:
    """Return `("samples", 1, "boxes")` as `samples[1].boxes`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest of `known`, else `"; known: a, b"`, else nothing."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return f"; did you mean {near!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that `name` may be a slip of, or None."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, n=1, cutoff=0.6)), None)
