"""Follows objects through clips: `mask_tracker` is the loop of the layout deepstream, `track` that of `predictor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.pipeline.loop import LoopNetwork
from sam3_build.pipeline.tracked_frame import Prompt, no_points, prompts_of
from sam3_build.pipeline.tracking import MASKS, POINTERS, Followed, Tracker
from sam3_build.pipeline.tracking import track as track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.loop import Frames

    Array = NDArray[np.generic]

# Loop -> what runs it frame by frame.
TRACKERS = {"track": Tracker}


@dataclass
class Memories:
    """What MaskTracker remembers of an object: its frame with a prompt, then those after it, newest first.

    entries: of each maskmem_features [channels, side, side], maskmem_pos_enc [cells, channels], obj_ptr [hidden]
    """

    prompted: int
    entries: list[Arrays] = field(default_factory=list)

    def add(self, entry: Arrays) -> None:
        """Remember a frame, and forget the oldest but for the prompted one."""
        self.entries = [*self.entries[:1], entry, *self.entries[1:]][:POINTERS]


# What the mask decoder is asked about some objects at once: their points, labels and features.
Asked = tuple[Sequence[int], "Array", "Array", "Array"]


def mask_tracker(networks: Mapping[str, LoopNetwork], given: Arrays, frames: Frames) -> Arrays:
    """Return `ids` [objects], `masks` [frames, objects, h, w] and `visible` [frames, objects], logits, and `scores`.

    As DeepStream's MaskTracker calls the networks: each object has one frame with a prompt, the first of its memories,
    and what the mask decoder gives for memory goes into the memory encoder as it is.

    given: see `prompts.clip_arrays`
    """
    prompts = prompts_of(given)
    known: dict[int, Memories] = {}
    followed, temporal = None, None
    for position, frame in enumerate(frames):
        if followed is None:
            ids = list(dict.fromkeys(prompt.object for prompt in prompts))
            followed = Followed.empty(ids, len(frames), frame["high_res_feat0"].shape[-1])
        asked = list(_prompted(prompts, position, frame))
        if temporal is not None:
            asked += _tracked(networks["memory_attention"], known, temporal, position, frame)
        for rows, points, labels, features in asked:
            finer = {f"high_res_feats_{level}": frame[f"high_res_feat{level}"] for level in range(2)}
            decoded = networks["mask_decoder"](
                {"point_coords": points, "point_labels": labels, "image_embed": features, **finer},
                kind=f"labels {labels[0].tolist()}",
            )
            names = ("mask_for_mem", "occ_logit")
            encoded = networks["memory_encoder"]({"pix_feat": frame["pix_feat"]} | {n: decoded[n] for n in names})
            temporal = encoded["temporal_code"]
            for row, which in enumerate(rows):
                remembered = {**{name: encoded[name][row] for name in PLACED}, "obj_ptr": decoded["obj_ptr"][row]}
                known.setdefault(which, Memories(position)).add({n: array.copy() for n, array in remembered.items()})
                followed.put(position, which, *(decoded[name][row] for name in ("pred_mask", "occ_logit", "iou")))
    if followed is None:
        raise BuildError("a clip has no frames")
    return followed.arrays()


PLACED = ("maskmem_features", "maskmem_pos_enc")


def _prompted(prompts: Sequence[Prompt], position: int, frame: Arrays) -> Iterator[Asked]:
    """Yield the prompts on a frame, those of equally many points at once."""
    import numpy as np

    by_count: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        if prompt.frame == position:
            by_count.setdefault(len(prompt.labels), []).append(prompt)
    for group in by_count.values():
        points, labels = np.stack([p.points for p in group]), np.stack([p.labels for p in group])
        yield [p.object for p in group], points, labels, frame["vision_feats"].repeat(len(group), axis=0)


def _tracked(
    attention: LoopNetwork, known: Mapping[int, Memories], temporal: Array, position: int, frame: Arrays
) -> Iterator[Asked]:
    """Yield the objects that were prompted before, those of one frame at once: they have equally many memories."""
    import numpy as np

    by_frame: dict[int, list[int]] = {}
    for which, memories in known.items():
        by_frame.setdefault(memories.prompted, []).append(which)
    for prompted, group in by_frame.items():
        entries = [known[which].entries for which in group]
        # The last time stands for the prompted frame, those before it for 1, 2, ... frames ago.
        times = [temporal[-1], *temporal[:-1]][: len(entries[0])]
        features, places = (np.stack([[e[name] for e in own[:MASKS]] for own in entries]) for name in PLACED)
        pointers = np.stack([[e["obj_ptr"] for e in own] for own in entries])
        places = places + np.stack(times)[None, :, 0]
        # Places of pointers are not read: the network computes its own.
        rows = pointers.size // len(group) // places.shape[-1]
        tail = np.zeros((len(group), rows, places.shape[-1]), np.float32)
        conditioned = attention(
            {
                "current_vision_feat": frame["vision_feats"],
                "current_vision_pos_embed": frame["vision_pos_embed"],
                "memory_0": pointers,
                "memory_1": features,
                "memory_pos_embed": np.concatenate([places.reshape(len(group), -1, places.shape[-1]), tail], axis=1),
                "cond_frame_id_diff": np.array(position - prompted, np.float32),
            }
        )
        yield group, *no_points(len(group)), conditioned["image_embed"]
