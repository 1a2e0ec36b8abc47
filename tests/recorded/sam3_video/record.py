"""Records what transformers' Sam3TrackerVideoModel gives of the drawn clip: masks of every frame and object.

PYTHONPATH=.:tests:tests/families/sam3_video python tests/recorded/sam3_video/record.py

In the root of the project, with transformers 5.23 on a CPU. Of each case of `tracked_clip.PROMPTS`: mask logits of
every frame and object, every second row and column, and whether objects are visible, logits; memories stay in FP32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pytest import MonkeyPatch
from tracked_clip import PROMPTS, keep_memories_in_fp32
from video_model import Session, transformers_model

torch.set_num_threads(1)
keep_memories_in_fp32(MonkeyPatch())
MODEL = transformers_model()
ARRAYS = {}
for case, prompts in PROMPTS.items():
    session = Session(MODEL)
    session.prompt(prompts)
    found = session.follow()
    ARRAYS[f"{case}/masks"] = np.stack([found[t][0][:, ::2, ::2] for t in sorted(found)])
    ARRAYS[f"{case}/visible"] = np.stack([found[t][1] for t in sorted(found)])
np.savez_compressed(Path(__file__).with_name("transformers.npz"), **ARRAYS)
