"""Takes named nodes and a test, returns a minimal set that passes: without any one of its nodes, it fails. Pure.

Hierarchical delta debugging (Zeller and Hildebrandt 2002; Misherghi and Su 2006): nodes lie in the tree of their module
paths; what a half, a module or a node has kept is dropped wherever the test still passes without it. Whether a larger
set passes when a smaller one does is not assumed: a set that passes was tested as it is, and so was the set without
each of its members. Which sets are tested depends on nothing but names and verdicts, so that a search can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Nodes = frozenset[str]
Test = Callable[[Nodes], bool]

# What the smallest set is called.
NOTHING = "nothing"

# Parts of module paths and operators that mark nodes of one kind wherever they stand: what tools and people keep in
# FP32 as a whole.
KINDS: Mapping[str, tuple[str, ...]] = {
    "softmax": ("Softmax",),
    "norm": ("norm", "Normalization"),
    "rope": ("rope", "rotary"),
    "attention": ("attn", "attention"),
    "mlp": ("mlp", "ffn"),
}


def starts(candidates: Sequence[str], seeds: Nodes) -> Iterator[tuple[str, Nodes]]:
    """Yield sets to begin with and what they are, the smallest first: nothing, seeds, seeds and a kind of nodes.

    The last one is all candidates.
    """
    yield NOTHING, frozenset()
    if seeds:
        yield "seeds", seeds
    kinds = {
        kind: seeds.union(n for n in candidates if any(mark in n for mark in marks)) for kind, marks in KINDS.items()
    }
    with_seeds = "seeds and " if seeds else ""
    for kind, nodes in sorted(kinds.items(), key=lambda item: len(item[1])):
        if nodes != seeds:
            yield f"{with_seeds}{kind}", nodes
    yield "everything", frozenset(candidates)


def minimal(candidates: Sequence[str], begin: Nodes, seeds: Nodes, passes: Test) -> Nodes:
    """Return a part of `begin`, which passes, that passes and of which no member can be left out.

    candidates: all names, in the graph's order; seeds: those that are likely to be needed, and so are tried last
    """
    kept = begin
    for likely in (False, True):
        kept = _drop(_tree(n for n in candidates if n in begin and (n in seeds) is likely).parts, kept, passes)
    return one_by_one(candidates, kept, passes)


def one_by_one(candidates: Sequence[str], begin: Nodes, passes: Test) -> Nodes:
    """Return a part of `begin`, which passes, that passes and of which no member can be left out: `begin` is nearly so.

    candidates: all names, in the graph's order
    """
    kept, before = begin, None
    while kept != before:
        before = kept
        for node in candidates:
            if node in kept and passes(kept - {node}):
                kept -= {node}
    return kept


@dataclass
class _Group:
    """Nodes below one module path: what lies directly in it, and the groups below it, in the graph's order."""

    children: dict[str, _Group] = field(default_factory=dict)

    @property
    def parts(self) -> list[_Part]:
        return [_Part(name, group) for name, group in self.children.items()]

    def nodes(self) -> Iterator[str]:
        for name, group in self.children.items():
            if group.children:
                yield from group.nodes()
            else:
                yield name


@dataclass(frozen=True)
class _Part:
    """A group, or a single node."""

    name: str
    group: _Group

    def nodes(self) -> Iterator[str]:
        return self.group.nodes() if self.group.children else iter((self.name,))


def _tree(names: Iterable[str]) -> _Group:
    """Return the tree of names such as `encoder.layers.0.mlp/MatMul_0`, whose leaves are the whole names."""
    root = _Group()
    for name in names:
        group = root
        for step in name.rpartition("/")[0].split("."):
            group = group.children.setdefault(f"{step}.", _Group())
        group.children[name] = _Group()
    return root


def _drop(parts: Sequence[_Part], kept: Nodes, passes: Test) -> Nodes:
    """Return `kept` without those nodes of `parts` that the test passes without."""
    nodes = kept.intersection(node for part in parts for node in part.nodes())
    if not nodes:
        return kept
    if passes(kept - nodes):
        return kept - nodes
    if len(parts) > 1:
        half = len(parts) // 2
        return _drop(parts[half:], _drop(parts[:half], kept, passes), passes)
    (part,) = parts
    return _drop(part.group.parts, kept, passes) if part.group.children else kept
