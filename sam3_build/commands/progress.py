"""How far a command is with many things: a bar on a terminal, nothing in a pipe or a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def counted(items: Sequence[Item]) -> Iterator[Iterable[Item]]:
    """Yield the items; a bar on standard output counts those that are done. Lines printed meanwhile stand above it."""
    from rich.console import Console

    console = Console()
    if len(items) < 2 or not console.is_terminal:
        yield items
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        yield bar.track(items)
