"""How much the runtime adds: one prompt and ten on a picture, against clients that call ONNX Runtime by hand.

    python benchmarks/runtime.py FOLDER PICTURE TEXT [ROUNDS]

The hand-written clients do what any user's script does: resize, tokenize, run four sessions, sigmoid, enlarge masks.
All are measured in turn in one process; medians, and their ratios. FOLDER holds FP32 graphs that `load` may take.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2  # noqa: TID253
import numpy as np
import onnxruntime  # noqa: TID253
from PIL import Image
from tokenizers import Tokenizer  # noqa: TID253

from sam3_build import runtime

PROMPTS = 10
PAUSE = 0.2  # seconds


class ByHand:
    """A client as people write it for these four files."""

    def __init__(self, folder: Path) -> None:
        described = json.loads((folder / "model.json").read_bytes())
        graphs = [f for f in described["files"] if f["precision"] == "fp32" and f["backend"] == "onnxruntime"]
        paths = {f["component"]: folder / f["path"] for f in graphs}
        static = described["static"]
        self.size, self.length = (static["image_width"], static["image_height"]), static["text_len"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        padding = self.tokenizer.padding or {}
        self.pad = padding.get("pad_id", self.tokenizer.token_to_id("<|endoftext|>"))
        self.sessions = {name: onnxruntime.InferenceSession(str(path)) for name, path in paths.items()}

    def run(self, name: str, **feeds: object) -> dict[str, np.ndarray]:
        session = self.sessions[name]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    def encode(self, picture: Path) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
        image = Image.open(picture).convert("RGB")
        small = np.asarray(image.resize(self.size, Image.Resampling.BILINEAR), np.float32)
        images = ((small / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None].astype(np.float32)
        return self.run("vision_encoder", images=images), image.size

    def prompt(self, vision: dict[str, np.ndarray], size: tuple[int, int], text: str) -> int:
        self.tokenizer.no_padding()
        ids = self.tokenizer.encode(text).ids
        mask = [1] * len(ids) + [0] * (self.length - len(ids))
        ids = ids + [self.pad] * (self.length - len(ids))
        words = self.run("text_encoder", input_ids=np.array([ids]), attention_mask=np.array([mask]))
        geometry = self.run(
            "geometry_encoder",
            input_boxes=np.zeros((1, 1, 4), np.float32),
            input_boxes_labels=np.full((1, 1), -10),
            fpn_feat_2=vision["fpn_feat_2"],
            fpn_pos_2=vision["fpn_pos_2"],
        )
        found = self.run(
            "decoder",
            **vision,
            prompt_features=np.concatenate([words["text_features"], geometry["geometry_features"]], 1),
            prompt_mask=np.concatenate([words["text_mask"], geometry["geometry_mask"]], 1),
        )
        presence = 1 / (1 + np.exp(-found["presence_logits"][0]))
        scores = 1 / (1 + np.exp(-found["pred_logits"][0])) * presence
        masks = [cv2.resize(m, size) > 0 for m in found["pred_masks"][0][scores > 0.5]]
        return len(masks)


def measure(rounds: int, *calls: Callable[[], object]) -> list[float]:
    """Return the median seconds of each call; they take turns, with pauses in which threads come to rest."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, seconds in zip(calls, taken, strict=True):
            time.sleep(PAUSE)
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in taken]


def main() -> None:
    folder, picture, text = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 15
    by_hand = ByHand(folder)
    with runtime.load(folder, precision="fp32", target="onnxruntime", memory=0) as model:

        def hand_one() -> int:
            return by_hand.prompt(*by_hand.encode(picture), text)

        def hand_ten() -> None:
            vision, size = by_hand.encode(picture)
            for _ in range(PROMPTS):
                by_hand.prompt(vision, size, text)

        def ours_ten() -> None:
            scene = model.encode(picture)
            for _ in range(PROMPTS):
                scene.segment(text)

        assert len(model.segment(picture, text)) == hand_one()
        one_by_hand, one = measure(rounds, hand_one, lambda: model.segment(picture, text))
        before = model.runs["vision_encoder"]
        ours_ten()
        encoded = model.runs["vision_encoder"] - before
        ten_by_hand, ten = measure(max(3, rounds // 5), hand_ten, ours_ten)
    print(
        f"one prompt:  by hand {one_by_hand * 1000:.1f} ms, runtime {one * 1000:.1f} ms, ratio {one / one_by_hand:.3f}"
    )
    print(
        f"ten prompts: by hand {ten_by_hand * 1000:.1f} ms, runtime {ten * 1000:.1f} ms, ratio {ten / ten_by_hand:.3f}"
    )
    print(f"the vision encoder ran {encoded} time for ten prompts")


if __name__ == "__main__":
    main()
