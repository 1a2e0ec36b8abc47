"""Load and run what was built: `runtime.load(folder)`. No torch, no transformers: see docs/runtime.md."""

from sam3_build.runtime.ask import from_centres as from_centres
from sam3_build.runtime.found import Found as Found
from sam3_build.runtime.model import MEMORY as MEMORY
from sam3_build.runtime.model import Model as Model
from sam3_build.runtime.model import load as load
from sam3_build.runtime.options import Request as Request
from sam3_build.runtime.scene import Scene as Scene
from sam3_build.runtime.track import Track as Track
from sam3_build.runtime.track import TrackedFrame as TrackedFrame
from sam3_build.runtime.track_words import TextTrack as TextTrack
