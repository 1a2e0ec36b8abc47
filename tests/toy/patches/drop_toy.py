"""Toy patch."""

from sam3_build.plugins import Patch

PATCH = Patch("drop_toy", "Toy patch.", lambda graph: None, lambda graph: 1, lambda graph: None)
