"""Processes that file permissions hold for: root's would pass them, unless it gives that right up."""

from __future__ import annotations

import os
import shutil

import pytest


def obedient() -> tuple[str, ...]:
    """Return the argv to run a command through, so that modes such as 0555 hold for it; skip where there is none."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root passes all permissions, and giving that up needs setpriv (util-linux)")
    return ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
