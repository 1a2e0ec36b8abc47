"""Takes a precision and a manifest's tolerances, returns the instance gates, on the metrics of `compare/instances`.

Beside `instances` and not in it, so that what was measured stays fresh when a gate changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.compare.judge import ALWAYS, Threshold
from sam3_build.spec import BASELINE, Gate

# No public comparison of 16-bit engines asks for more than the second row; rounding alone stays far within the first.
EXACT = {"count": 0.0, "mask_iou": 0.999, "box_iou": 0.999, "score": 1e-3, "presence": 0.0}
REDUCED = {"count": 0.0, "mask_iou": 0.98, "box_iou": 0.98, "score": 0.02, "presence": 0.0}


def gates(precision: str, tolerances: Mapping[str, Threshold]) -> tuple[Gate, ...]:
    """Return the instance gates of a precision, `tolerances` put over the default ones."""
    usual = EXACT if precision == BASELINE else REDUCED
    chosen: dict[str, Threshold] = {**usual, **tolerances, **{gate.metric: gate.threshold for gate in ALWAYS}}
    return tuple(Gate(metric, threshold) for metric, threshold in chosen.items())
