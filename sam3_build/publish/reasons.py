"""Why a target is not published: the causes, and which of them a target may excuse."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why a target is not published, as a night's file has it."""

    MISSING = "missing"
    UNLICENSED = "no licence"  # whose text must go along
    UNSUITABLE = "unsuitable"  # the product that the layout is for cannot load it
    BLOCKED = "blocked"
    FAILED = "failed"
    NOT_JUDGED = "not judged"  # a comparison that it depends on failed
    FOREIGN = "foreign"  # made from something else than the manifest says
    NOT_RUN = "not run"  # this machine cannot run it
    NOT_MEASURED = "not measured"  # what ran, or would run anywhere, leaves it open: no other machine changes that

    @property
    def words(self) -> str:
        """The cause as people read it: what was not measured is not run, either."""
        return Cause.NOT_RUN if self == Cause.NOT_MEASURED else self


# What `allow_unverified` excuses, and nothing else.
EXCUSABLE = (Cause.NOT_RUN, Cause.NOT_MEASURED)


@dataclass(frozen=True)
class Reason:
    """What stands against publishing a target: its cause, what it is about, and why in words."""

    kind: Cause
    what: str
    why: str
