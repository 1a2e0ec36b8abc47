"""A family's declaration is held against itself: a name that leads nowhere is an error when it is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sam3_build import registry
from sam3_build.family_checks import problems
from sam3_build.spec import ComponentSpec, Feed, Layout, Loop, ModelFamily, Per, Pipeline, Step, TensorSpec


def family(**changes: Step | Loop) -> ModelFamily:
    """Return SAM 3's image family in layout v1, with steps of its pipeline replaced by name."""
    whole = registry.family("sam3_image")
    layout = whole.layouts["v1"]
    (pipeline,) = layout.pipelines
    steps = tuple(changes.get(step.name, step) for step in pipeline.steps)
    return replace(whole, layouts={"v1": replace(layout, pipelines=(replace(pipeline, steps=steps),))})


@pytest.mark.parametrize("name", registry.names("families"))
def test_the_families_that_ship_are_sound(name: str) -> None:
    assert problems(registry.family(name)) == []


def test_an_input_that_is_neither_fed_nor_given_is_named_with_what_was_meant() -> None:
    (wrong,) = problems(
        family(text_encoder=Step("text_encoder", (Feed("input_id", (("vision_encoder", "fpn_pos_2"),)),)))
    )
    assert (
        wrong
        == "layout v1: pipeline image, text_encoder: 'input_id' is fed, and nothing takes it; did you mean 'input_ids'?"
    )
    whole = family()
    (pipeline,) = whole.layouts["v1"].pipelines
    given = replace(pipeline, gives=tuple(n for n in pipeline.gives if n != "input_ids"))
    (wrong,) = problems(replace(whole, layouts={"v1": replace(whole.layouts["v1"], pipelines=(given,))}))
    where = "layout v1: pipeline image, text_encoder"
    assert wrong.startswith(f"{where}: input 'input_ids' is neither fed nor among what prompts give; did you mean")


def test_a_feed_from_a_step_that_comes_later_or_has_no_such_output_is_named() -> None:
    feeds = (
        Feed("attention_mask", (("decoder", "pred_boxes"),)),
        Feed("input_ids", (("vision_encoder", "fpn_pos_3"),)),
    )
    late, unknown = problems(family(text_encoder=Step("text_encoder", feeds)))
    assert "'attention_mask' is fed by 'decoder'" in late
    assert "output 'fpn_pos_3' of vision_encoder; did you mean 'fpn_pos_2'?" in unknown


def test_components_loops_and_pipelines_have_names_of_their_own() -> None:
    whole = registry.family("sam3_image")
    layout = whole.layouts["v2"]
    twice = Layout(layout.components, (*layout.pipelines, replace(layout.pipelines[0], name="decoder")), ())
    assert problems(replace(whole, layouts={"v2": twice})) == [
        "layout v2: two components, loops or pipelines are called 'decoder'"
    ]


@pytest.mark.parametrize("name", ["image@night", "image.2", "a/b", "build:image", ""])
def test_a_name_in_which_a_character_means_something_else_is_refused(name: str) -> None:
    whole = registry.family("sam3_image")
    layout = whole.layouts["v1"]
    renamed = replace(layout, pipelines=(replace(layout.pipelines[0], name=name),))
    (wrong,) = problems(replace(whole, layouts={"v1": renamed}))
    assert wrong.startswith(f"layout v1: {name!r} is no name of a component, loop or pipeline")


def test_what_a_loop_gets_must_be_fed_or_given_and_its_components_exist() -> None:
    component = registry.family("sam3_image").layouts["v1"].components[1]
    loops = (
        Loop("track", ("text_encoder",), ("ids",), given=("points",), frames=("features",)),
        Loop("again", ("txt_encoder",), ()),
    )
    layout = Layout((component,), (Pipeline("video", object, ("point",), loops),), ())
    found = problems(replace(registry.family("sam3_image"), layouts={"v1": layout}))
    assert [text.partition(": ")[2] for text in found] == [
        "pipeline video, track: input 'points' is neither fed nor among what prompts give; did you mean 'point'?",
        "pipeline video, track: input 'features' is neither fed nor among what prompts give; known: point",
        "pipeline video, again: no component named 'txt_encoder'; did you mean 'text_encoder'?",
    ]


def test_rows_a_step_per_frame_and_names_of_a_plan_are_held_against_what_can_be_run() -> None:
    def tensor(name: str, *dims: int | str) -> TensorSpec:
        return TensorSpec(name, "float32", dims)

    encoder = ComponentSpec("encoder", (tensor("images", "batch"),), (tensor("features", "batch"),), ())
    decoder = ComponentSpec(
        "samples",
        (tensor("features", "batch"),),
        (tensor("masks", "rows"), tensor("all", "batch"), tensor("table", 1)),
        (),
        row_dim="rows",
    )
    steps = (Step("encoder", per=Per.FRAME), Step("samples", (Feed("features", (("encoder", "features"),)),)))
    twice = Loop("track", ("encoder",), ())
    layout = Layout((encoder, decoder), (Pipeline("video", object, ("images",), (*steps, twice)),), ("batch", "rows"))
    found = problems(replace(registry.family("sam3_image"), layouts={"v1": layout}))
    assert [text.removeprefix("layout v1: ") for text in found] == [
        "no component, loop or pipeline may be called 'samples'",
        "pipeline video: encoder stands in two steps; what both record would have one name",
        "component samples: row_dim 'rows' stands in none of its inputs; known: batch",
        "component samples: row_dim 'rows' does not stand in output all, so that its rows cannot be joined",
        "pipeline video, samples: 'features' is fed by encoder, which runs once per frame, and is read once",
    ]


def test_what_says_which_rows_mean_something_is_an_output_with_a_logit_for_each() -> None:
    whole = registry.family("sam2")
    layout = whole.layouts["deepstream"]

    def wrong(**of_output: str) -> list[str]:
        decoder = next(c for c in layout.components if c.name == "mask_decoder")
        outputs = (replace(decoder.outputs[0], **of_output), *decoder.outputs[1:])
        components = tuple(replace(c, outputs=outputs) if c.name == decoder.name else c for c in layout.components)
        return problems(replace(whole, layouts={"deepstream": replace(layout, components=components)}))

    where = "layout deepstream: component mask_decoder: output obj_ptr"
    means = f"{where} means something where"
    (found,) = wrong(meaningful_where="occ_logits")
    assert found == f"{means} 'occ_logits' is positive, which is no output; did you mean 'occ_logit'?"
    (found,) = wrong(meaningful_where="pred_mask")
    assert found == f"{means} 'pred_mask' is positive, which is not one logit for each of its rows"
    (found,) = wrong(chosen_by="ious")
    assert found == f"{where} is chosen by 'ious', which is no output; did you mean 'iou'?"
    (found,) = wrong(chosen_by="pred_mask")
    assert found == f"{where} is chosen by 'pred_mask', which is not a score of each candidate for each of its rows"
