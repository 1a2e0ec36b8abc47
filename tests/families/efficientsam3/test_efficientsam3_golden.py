"""What EfficientSAM3's own weights find in a known picture, for whoever has them: skipped without a checkpoint.

SAM3_BUILD_TEST_EFFICIENTSAM3 names the file of RepViT-M1.1 and MobileCLIP-S1 with 16 tokens; the numbers are those of
its authors' notebook, collected in `golden.json` beside the picture. Nobody with the weights has tried it yet.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from miniature import ROOT

from sam3_build import registry
from sam3_build.documents import document_of
from sam3_build.params import SampleParams
from sam3_build.pipeline import chain
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.concept_cases import ImagePrompts
from sam3_build.pipeline.prompts import Box
from sam3_build.torch_modules.assemble import assemble, compute
from sam3_build.weights import inventory
from sam3_build.weights.load import load

CHECKPOINT = os.environ.get("SAM3_BUILD_TEST_EFFICIENTSAM3", "")
DATA = Path(os.environ.get("SAM3_BUILD_TEST_DATA") or ROOT.parent / "shared" / "data")
KIDS, SIZE = "sam3_test_image_kids.jpg", (720, 1280)
ENTRY = "EfficientSAM3 RepViT-M1.1 + MobileCLIP-S1 ctx16, text 'a shoe' / box / box+neg"
POSITIVE, NEGATIVE = Box(1, 480, 290, 110, 360), Box(0, 370, 280, 115, 375)
PROMPTS = (ImagePrompts("a shoe"), ImagePrompts(None, (POSITIVE,)), ImagePrompts(None, (POSITIVE, NEGATIVE)))

CODE = registry.family_code("efficientsam3")
SOURCE = {"path": True}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKPOINT, reason="SAM3_BUILD_TEST_EFFICIENTSAM3 names no checkpoint of EfficientSAM3"),
    pytest.mark.skipif(
        not (DATA / "golden.json").is_file(), reason=f"{DATA} has no golden.json (SAM3_BUILD_TEST_DATA)"
    ),
]


def test_as_many_objects_are_found_as_in_the_authors_notebook():
    counts = next(
        entry[ENTRY]
        for group in json.loads((DATA / "golden.json").read_text()).values()
        for name, entry in (group.items() if isinstance(group, dict) else ())
        if KIDS in name
    )
    file = Path(CHECKPOINT)
    assert CODE.family.official_config is not None
    config = CODE.modules.complete_config(CODE.family.official_config(inventory.shapes(CODE, SOURCE, file)))
    listed = inventory.inventory(CODE, SOURCE, config, file)
    components = {c.name: c for c in CODE.family.components}
    modules = {
        name: assemble(CODE.modules, name, config, load(CODE, name, SOURCE, config, file, listed[name]))
        for name in components
    }
    networks = {
        name: lambda inputs, name=name: compute(modules[name], inputs, [t.name for t in components[name].outputs])
        for name in components
    }
    samples = [SampleParams(number=i, pictures=("p",), prompts=document_of(p)) for i, p in enumerate(PROMPTS)]
    files, tokenizer = {"p": DATA / "images" / KIDS}, DATA / "vocab" / "clip_hf" / "tokenizer.json"
    request = PromptRequest("v1", "image", "meta", samples, tokenizer, files, config)
    found = []
    for case in list(CODE.prompts.make_cases(request))[: len(PROMPTS)]:
        decoded = chain.run(components, CODE.family.pipelines[0].steps, networks, case.arrays, {})["decoder"]
        instances = CODE.results.find({name: array[0] for name, array in decoded.items()}, SIZE, 0.5)
        found.append(len(instances.scores))
    assert " / ".join(map(str, found)) in counts
