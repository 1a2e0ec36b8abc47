"""Takes a row of what was measured of one picture, as `InstanceStatistics` writes it; returns captions."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sam3_build.spec import Json


def found(row: Mapping[str, Json]) -> str:
    """Return what was found, such as `3 found, 3 by PyTorch; smallest mask IoU 0.991`; empty where nothing was read."""
    if "expected" not in row:
        return ""
    counts = [str(row[side] or "nothing") for side in ("actual", "expected")]
    pairs = row.get("pairs")
    ious = [pair["mask_iou"] for pair in pairs if isinstance(pair, dict)] if isinstance(pairs, list) else []
    # Rounded down: an IoU that is not 1 never reads as if it were.
    smallest = f"; smallest mask IoU {math.floor(min(ious) * 1000) / 1000:.3f}" if ious else ""
    return f"{counts[0]} found, {counts[1]} by PyTorch{smallest}"


def differences(row: Mapping[str, Json]) -> tuple[str, ...]:
    """Return what a user would notice: why nothing could be read, instances lost or new, presence that changed."""
    if row.get("problem"):
        return (str(row["problem"]),)
    captions = []
    for key, what in (("lost", "lost"), ("added", "new")):
        some = row.get(key)
        if isinstance(some, list) and some:
            captions.append(f"{len(some)} {what}")
    presence = row.get("presence")
    if isinstance(presence, dict) and not presence["agrees"]:
        captions.append(f"presence {float(presence['expected']):.2f} became {float(presence['actual']):.2f}")
    return tuple(captions)
