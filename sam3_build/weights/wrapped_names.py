"""Removes from tensor names what wrapped the model in training, and says what that was.

DistributedDataParallel, torch.compile, FSDP and Lightning put a part in front of every name, or of every one below the
module that they wrap. Knows no model: the caller says which names are a model's own. No files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from sam3_build.errors import BuildError

# Parts of a name that stand for a wrapper around the module behind it, and are no module of any model here.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

# The last part of a name: tables that every build of a network computes from its config (rotary frequencies as one
# complex tensor, as two real ones or as sines and cosines; position ids; masks), and how many steps were counted.
COMPUTED = re.compile(
    r"(.*_)?(freqs?|cis|rope|rotary|cos|sin)(_.*)?|position_ids|attn_mask|causal_mask|relative_position_index|n_averaged"
    r"|num_batches_tracked"
)
# Any part but the last: modules that hold such tables and nothing else.
COMPUTING = re.compile(r"(.*_)?(rope|rotary)(_.*)?")


@dataclass(frozen=True)
class Unwrapped:
    """Names without wrappers. `prefix` stood in front of all of them; `wrappers` stood inside some.

    own:     the name without wrappers -> the file's own
    outside: the file's own names that do not begin with the prefix
    """

    own: Mapping[str, str]
    outside: tuple[str, ...]
    prefix: str
    wrappers: tuple[str, ...]


def unwrap(keys: Collection[str], is_known: Callable[[str], bool], others: Collection[str]) -> Unwrapped:
    """Take off the one prefix behind which the most names are known; the shortest one of those.

    is_known: whether a name is one of the model's
    others:   beginnings of names that belong to another part of the file, such as a tracker, and hide no model
    BuildError when a second prefix hides the model once more, or two names become one.
    """
    counts = Counter(prefix for key in keys for prefix in _prefixes(key, is_known) if not _ends(prefix, others))
    prefix = min(counts, key=lambda candidate: (-counts[candidate], len(candidate)), default="")
    for rival, count in counts.items():
        apart = not rival.startswith(prefix) and not prefix.startswith(rival)
        if apart and count * 2 > counts[prefix]:
            raise BuildError(
                f"holds the model twice: below {prefix!r} and below {rival!r}; save the state dict of one of them alone"
            )
    own: dict[str, str] = {}
    for key in (key for key in keys if key.startswith(prefix)):
        name = _plain(key[len(prefix) :])
        if name in own:
            raise BuildError(f"holds {name} twice: as {own[name]} and as {key}; save the state dict of one model alone")
        own[name] = key
    outside = tuple(key for key in keys if not key.startswith(prefix))
    inside = {part for key in own.values() for part in key[len(prefix) :].split(".")[:-1]}
    return Unwrapped(own, outside, prefix, tuple(sorted(inside & WRAPPERS)))


def is_computed(name: str) -> bool:
    """Whether a tensor of this name is a table that is computed anyway. A `weight` or `bias` never is."""
    *modules, last = name.split(".")
    if last in ("weight", "bias"):
        return False
    return bool(COMPUTED.fullmatch(last)) or any(COMPUTING.fullmatch(part) for part in modules)


def shortened(keys: Collection[str], others: Collection[str]) -> Iterator[list[str]]:
    """Yield the names of an unknown model without wrappers, then without each first part that all of them share.

    Of what belongs to `others` (see `unwrap`) no part is taken off.
    """
    names = [_plain(key) for key in keys]
    yield names
    while len({name.partition(".")[0] for name in names}) == 1 and all("." in name for name in names):
        if names[0].startswith(tuple(others)):
            return
        names = [name.partition(".")[2] for name in names]
        yield names


def _prefixes(key: str, is_known: Callable[[str], bool]) -> list[str]:
    """Return every beginning of a name behind which a known name stands; wrappers in front of it belong to it."""
    parts = key.split(".")
    return [
        "".join(f"{part}." for part in parts[:n])
        for n in range(len(parts))
        if parts[n] not in WRAPPERS and is_known(_plain(".".join(parts[n:])))
    ]


def _ends(prefix: str, others: Collection[str]) -> bool:
    return f".{prefix}".endswith(tuple(f".{other}" for other in others))


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)
