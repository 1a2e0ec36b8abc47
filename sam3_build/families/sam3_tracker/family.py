"""The declaration of SAM 3's tracker on pictures: one object by points, a box, or an earlier mask."""

from __future__ import annotations

from sam3_build.families.sam3_tracker.config import largest_tensor
from sam3_build.pipeline.click_cases import case_shapes
from sam3_build.pipeline.click_networks import layouts
from sam3_build.pipeline.click_sizes import static_dims
from sam3_build.spec import Licence, ModelFamily

FAMILY = ModelFamily(
    name="sam3_tracker",
    layouts=layouts(),
    references={"meta": "Meta's code", "hf": "transformers"},
    static_dims=static_dims,
    largest_tensor=largest_tensor,
    weight_names=("sam3.pt",),
    # All that transformers has as its default.
    official_config=lambda shapes: {"model_type": "sam3_tracker"},
    cases=case_shapes,
    usual_static=static_dims({}),
    licence=Licence("SAM License", "https://github.com/facebookresearch/sam3/blob/main/LICENSE", must_accompany=True),
    layout="clicks",
)
