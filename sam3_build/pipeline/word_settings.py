"""What decides which detections become objects, and which objects are kept: numbers of a model's config. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from sam3_build.errors import BuildError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.spec import Json


@dataclass(frozen=True)
class WordSettings:
    """Names and values of transformers' Sam3VideoConfig (5.23), which are those of Meta's predictor.

    Scores are from 0 to 1, IoUs those of masks at the size that the networks give, areas in pixels of these masks.

    score_threshold_detection: detections score above it
    det_nms_thresh:     of two detections of a text whose IoU is above it, that of the lower score goes; 0 for none
    assoc_iou_thresh:   a detection from this IoU with an object on is that object
    trk_assoc_iou_thresh: an object from this IoU with a detection on is matched
    new_det_thresh:     a detection that is no object becomes one from this score on; while there are none, all do
    hotstart_delay:     frames after its first one in which an object may be removed; so long are frames held back
    hotstart_unmatch_thresh: it is removed after so many frames without a match
    hotstart_dup_thresh: it is removed after so many frames in which an older object has the same detection
    suppress_unmatched_only_within_hotstart: else an object is hidden while its count, below, is 0 or less
    init_trk_keep_alive, max_trk_keep_alive, min_trk_keep_alive: the count of an object, one more for each frame with a
                        match and one less for each without
    decrease_trk_keep_alive_for_empty_masklets: one less, too, for a frame in which its mask is empty
    suppress_overlapping_based_on_recent_occlusion_threshold: of two objects of a text that were hidden before, from
                        this IoU on the one that was hidden last is hidden again; 0 for none
    fill_hole_area:     holes and specks of at most this area go; 0 for none
    max_num_objects:    no more are followed at once
    recondition_every_nth_frame: on these frames an object is seen afresh; 0 for none
    high_conf_thresh, high_iou_thresh: from this score of a detection, and this IoU with it, on; and where the object's
                        own logit is above high_conf_thresh
    recondition_on_trk_masks: its own mask is remembered; else the detection's
    """

    score_threshold_detection: float = 0.5
    det_nms_thresh: float = 0.1
    assoc_iou_thresh: float = 0.1
    trk_assoc_iou_thresh: float = 0.5
    new_det_thresh: float = 0.7
    hotstart_delay: int = 15
    hotstart_unmatch_thresh: int = 8
    hotstart_dup_thresh: int = 8
    suppress_unmatched_only_within_hotstart: bool = True
    init_trk_keep_alive: int = 30
    max_trk_keep_alive: int = 30
    min_trk_keep_alive: int = -1
    decrease_trk_keep_alive_for_empty_masklets: bool = False
    suppress_overlapping_based_on_recent_occlusion_threshold: float = 0.7
    fill_hole_area: int = 16
    max_num_objects: int = 10000
    recondition_every_nth_frame: int = 16
    high_conf_thresh: float = 0.8
    high_iou_thresh: float = 0.8
    recondition_on_trk_masks: bool = True

    def __post_init__(self) -> None:
        """Refuse an object that would be removed later than frames are held back."""
        for name in ("hotstart_unmatch_thresh", "hotstart_dup_thresh"):
            if 0 < self.hotstart_delay < getattr(self, name):
                raise BuildError(
                    f"model config: {name} is {getattr(self, name)}, and hotstart_delay {self.hotstart_delay}: an "
                    "object that was shown cannot be removed"
                )

    @classmethod
    def of(cls, config: Mapping[str, Json]) -> WordSettings:
        """Return those of a Sam3VideoConfig, as JSON; of what it leaves out, the usual ones. BuildError names a key."""
        found: dict[str, Any] = {}
        for field, usual in asdict(cls()).items():
            value = config.get(field, usual)
            number = isinstance(value, int | float) and isinstance(value, bool) == isinstance(usual, bool)
            if not number or value != type(usual)(value):
                raise BuildError(f"model config: {field} is {value!r}, where {usual!r} is usual")
            found[field] = type(usual)(value)
        return cls(**found)

    @classmethod
    def of_array(cls, values: NDArray[np.float64]) -> WordSettings:
        """Return what `array` gave."""
        return cls.of(
            {
                field.name: type(field.default)(value)  # type: ignore[misc]
                for field, value in zip(fields(cls), values.tolist(), strict=True)
            }
        )

    def array(self) -> NDArray[np.float64]:
        """Return them as [settings], in order: a loop gets nothing but arrays."""
        import numpy as np

        return np.array(list(asdict(self).values()), np.float64)
