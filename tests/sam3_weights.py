"""The weights of SAM 3's image model, as stages get them: the generic functions with the code of that family."""

from __future__ import annotations

from functools import partial

from sam3_build import registry
from sam3_build.families.sam3_image.config import complete_config as complete_config
from sam3_build.families.sam3_image.config import sam3_config as sam3_config
from sam3_build.families.sam3_image.config import whole_model as whole_model
from sam3_build.families.sam3_image.modules import skeleton as skeleton
from sam3_build.torch_modules import assemble as assembling
from sam3_build.weights import checkpoint_file
from sam3_build.weights import inventory as inventories
from sam3_build.weights import load as loading

CODE = registry.family_code("sam3_image")

read = partial(checkpoint_file.read, tables=CODE.keys)
inventory = partial(inventories.inventory, CODE)
describe = partial(inventories.describe, CODE)
refused = partial(inventories.refused, CODE)
load = partial(loading.load, CODE)
assemble = partial(assembling.assemble, CODE.modules)
