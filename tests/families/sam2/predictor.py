"""SAM 2.1's miniature and the drawn clip (see `tracked_clip`), by the names that its tests have for them."""

from __future__ import annotations

from tracked_clip import CLIP as CLIP
from tracked_clip import PROMPTS as PROMPTS
from tracked_clip import Predictor
from tracked_clip import square as square

OWN = Predictor("sam2")
CODE, config, tensors, networks = OWN.code, OWN.config, OWN.tensors, OWN.networks
pixels, encoded, given = OWN.pixels, OWN.encoded, OWN.given
