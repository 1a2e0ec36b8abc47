"""One object on a picture: earlier masks, refinement, scales, several masks; equal to the components by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import miniature
import numpy as np
import onnxruntime
import pytest
import runnable
from numpy.typing import NDArray
from PIL import Image

from sam3_build import registry, runtime
from sam3_build.errors import BuildError
from sam3_build.families.sam1 import prompts as sam1
from sam3_build.families.sam1 import results as sam1_results
from sam3_build.pipeline.cases import PromptRequest
from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.pipeline.masks import Masks
from sam3_build.pipeline.prompts import Point
from sam3_build.runtime import scales
from sam3_build.runtime.ask import Ask
from sam3_build.runtime.refine import Refine, refined, stability
from sam3_build.runtime.scales import Window, fused

SCENE = miniature.SCENES / "scene1.png"


def answer(score: float, filled: int = 4, *, visible: bool = True, step: float = 5.0) -> Masks:
    """Return an answer with one mask: the first rows of 8 x 8 pixels."""
    logits = np.full((1, 8, 8), -step, np.float32)
    logits[0, :filled] = step
    return Masks(logits > 0, np.array([score], np.float32), 0, visible, logits)


def replies(*rounds: Sequence[Masks]) -> Callable[[Sequence[int], Sequence[NDArray[np.float32]]], Sequence[Masks]]:
    waiting = iter(rounds)

    def again(rows: Sequence[int], logits: Sequence[NDArray[np.float32]]) -> Sequence[Masks]:
        found = next(waiting)
        assert len(rows) == len(logits) == len(found)
        return found

    return again


# ------------------------------------------------------------------ refinement


def test_a_mask_is_fed_back_until_its_predicted_iou_stops_rising() -> None:
    first, better, best, worse = answer(0.5), answer(0.6), answer(0.7), answer(0.65)
    assert refined([first], replies([better], [best], [worse]), Refine.of("9")) == [best]
    assert refined([first], replies([better], [best]), Refine.of("2")) == [best]
    assert refined([first], replies([better]), Refine.of("9,score:0.55")) == [better]
    assert refined([first], replies(), Refine.of("9,score:0.5")) == [first]
    assert refined([first], replies([better]), Refine.of("9,iou:0.9")) == [better]
    assert refined([first], replies([answer(0.6, filled=2)], [best], [worse]), Refine.of("9,iou:0.9")) == [best]
    assert refined([first], replies([answer(0.9, visible=False)]), Refine.of("9")) == [first]


def test_of_several_prompts_those_that_still_rise_are_asked_again() -> None:
    one, other = [answer(0.5), answer(0.6), answer(0.7)], [answer(0.5), answer(0.4)]
    found = refined([one[0], other[0]], replies([one[1], other[1]], [one[2]], [one[1]]), Refine.of("9"))
    assert found == [one[2], other[0]]


def test_stability_is_how_much_of_a_mask_stays_when_the_threshold_moves() -> None:
    weak = answer(0.5)
    weak.logits[0, 3] = 0.5  # type: ignore[index]
    assert stability(answer(0.5)) == 1 and stability(weak) == 24 / 32
    assert refined([weak], replies([answer(0.1)]), Refine.of("1,by:stability"))[0].scores[0] == np.float32(0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "refine: '0' is no number of rounds, from 1 to 100"),
        ("x", "refine: 'x' is no number of rounds"),
        ("3,by:size", "refine: by:size is neither by:iou nor by:stability"),
        ("3,scores:1", "refine: there is no 'scores'; did you mean 'score'?"),
        ("3,iou:2", "refine: iou:2 is no number above 0 and at most 1"),
        ("3,score:nan", "refine: score:nan is no number above 0"),
    ],
)
def test_a_refinement_that_is_wrong_is_one_message(text: str, message: str) -> None:
    with pytest.raises(BuildError) as error:
        Refine.of(text)
    assert message in str(error.value)


# ------------------------------------------------------------------ scales


def test_a_window_shows_less_of_the_picture_at_a_larger_scale_and_holds_what_is_asked() -> None:
    point = Ask.of(points=[[60, 30]])
    assert Window.around(point, 1, (90, 120)) == Window(0, 0, 120, 90)
    assert Window.around(point, 1.5, (90, 120)) == Window(20, 0, 80, 60)
    assert Window.around(point, 0.5, (90, 120)) == Window(-60, -45, 240, 180)
    corner = Window.around(Ask.of(points=[[119, 89]]), 2, (90, 120))
    assert corner == Window(60, 45, 60, 45)
    assert corner.moved(Ask.of(points=[[119, 89]])).marks.points == (Point(1, 59, 44),)
    wide = Window.around(Ask.of(boxes=[[10, 10, 100, 20]]), 4, (90, 120))
    assert wide.left <= 10 and wide.left + wide.width >= 100 and wide.width < 120
    picture = Image.fromarray(np.arange(90 * 120 * 3, dtype=np.uint8).reshape(90, 120, 3))
    seen = np.asarray(Window(-60, -45, 240, 180).of(picture))
    assert (seen[45:135, 60:180] == np.asarray(picture)).all() and not seen[:45].any() and not seen[:, 180:].any()


def test_masks_are_fused_by_their_scores_within_their_windows() -> None:
    size, whole = (8, 8), Window(0, 0, 8, 8)
    assert (fused([(whole, answer(0.7))], size).masks == answer(0.7).masks).all()
    two = fused([(whole, answer(0.8, filled=6)), (whole, answer(0.6, filled=2))], size)
    assert two.masks[0].sum() == 48 and two.scores[0] == pytest.approx((0.64 + 0.36) / 1.4)
    three = [(whole, answer(0.6, filled=n)) for n in (2, 4, 6)]
    assert fused(three, size).masks[0].sum() == 32
    small = Window(4, 4, 4, 4)
    inside = Masks(np.ones((1, 4, 4), np.bool_), np.array([0.9], np.float32), 0)
    found = fused([(whole, answer(0.5, filled=2)), (small, inside)], size).masks[0]
    assert found[:2].all() and found[4:, 4:].all() and found.sum() == 16 + 16
    assert fused([(whole, answer(0.5, filled=2)), (whole, answer(0.9, visible=False))], size).masks[0].sum() == 16
    assert not fused([(whole, answer(0.9, visible=False))], size).visible


def test_scales_that_are_wrong_are_one_message() -> None:
    assert scales.read("0.5, 1,1.5") == (0.5, 1, 1.5)
    for text, message in (
        ("0.1", "scales: 0.1 is not from 0.5 to 8"),
        ("1,nan", "scales: nan is not from 0.5 to 8"),
        ("1;2", "scales: '1;2' is no number; give some such as 0.5,1,1.5"),
    ):
        with pytest.raises(BuildError) as error:
            scales.read(text)
        assert str(error.value) == message


# ------------------------------------------------------------------ what was found before


def test_an_earlier_mask_is_one_for_each_object() -> None:
    logits = np.zeros((2, 8, 8), np.float32)
    two = Ask.of(boxes=[[0, 0, 5, 5], [5, 5, 9, 9]], previous=logits)
    assert [prompt.mask for prompt in two.prompts(ObjectPrompts, "masks")] == ["previous0", "previous1"]
    assert {role: own.shape for role, own in two.logits.items()} == {"previous0": (8, 8), "previous1": (8, 8)}
    assert Ask.of(previous=logits[0]).prompts(ObjectPrompts, "masks") == [ObjectPrompts(mask="previous0")]
    with pytest.raises(BuildError, match="previous has 2 masks, and 1 objects are asked for"):
        Ask.of(points=[[1, 1]], previous=logits).prompts(ObjectPrompts, "masks")
    with pytest.raises(BuildError, match="mask and previous are both given"):
        Ask.of(mask="m.png", previous=logits)
    with pytest.raises(
        BuildError, match=r"previous is float64\[8, 8\]: give logits, float32 \[objects, height, width\]"
    ):
        Ask.of(previous=np.zeros((8, 8)))  # type: ignore[arg-type]


# ------------------------------------------------------------------ with networks


class ByHand:
    """SAM 1's miniature on ONNX Runtime, its two files called one after another."""

    def __init__(self, model: runtime.Model) -> None:
        folder = model.folder
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        paths = {name: folder.file(file.path) for name, file in model.choice.files.items()}
        self.runs = {name: onnxruntime.InferenceSession(path, options) for name, path in paths.items()}
        self.request = PromptRequest("multi", "interactive", "meta", (), None, {}, folder.description.config)
        image = Image.open(SCENE).convert("RGB")
        self.size = image.height, image.width
        self.embeddings = self.run("image_encoder", sam1.picture_arrays(image, self.request.config))

    def run(self, name: str, arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
        names = [output.name for output in self.runs[name].get_outputs()]
        return dict(zip(names, self.runs[name].run(names, arrays), strict=True))

    def ask(self, prompt: ObjectPrompts, before: NDArray[np.float32] | None = None) -> Masks:
        arrays = sam1.prompt_arrays(self.request, [prompt], self.size)
        if before is not None:
            arrays |= {"mask_input": before[None, None], "has_mask_input": np.ones(1, np.float32)}
        outputs = self.run("mask_decoder", {**arrays, **self.embeddings})
        return sam1_results.find({name: array[0] for name, array in outputs.items()}, self.size, 0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> runtime.Model:
    folder = tmp_path_factory.mktemp("built") / "sam1"
    return runtime.load(runnable.write(folder, verdict=runnable.PASSED, manifest="sam1_mini"))


POINTS = [[60, 60], [90, 90]]
ASKED = ObjectPrompts((Point(1, 60, 60), Point(0, 90, 90)))


@pytest.mark.ci
def test_earlier_masks_and_refinement_are_the_components_called_by_hand(model: runtime.Model) -> None:
    by_hand, scene = ByHand(model), model.encode(SCENE)
    first = by_hand.ask(ASKED)
    found = scene.segment(points=POINTS, point_labels=[1, 0])
    assert np.array_equal(found.logits[0], first.logits[first.chosen])  # type: ignore[index]
    again = by_hand.ask(ASKED, found.logits[0])  # type: ignore[index]
    for previous in (found, found.logits):
        corrected = scene.segment(points=POINTS, point_labels=[1, 0], previous=previous)
        assert np.array_equal(corrected.masks[0], again.masks[again.chosen])
        assert np.array_equal(corrected.logits[0], again.logits[again.chosen])  # type: ignore[index]
    assert not np.array_equal(again.logits, first.logits)
    best = first
    while (new := by_hand.ask(ASKED, best.logits[best.chosen])).scores.max() > best.scores[best.chosen]:  # type: ignore[index]
        if new.scores[new.chosen] <= best.scores[best.chosen]:
            break
        best = new
    refined = scene.segment(points=POINTS, point_labels=[1, 0], refine=20)
    assert np.array_equal(refined.masks[0], best.masks[best.chosen]) and refined.scores[0] == best.scores[best.chosen]
    boxes = [[40, 40, 70, 70], [80, 80, 120, 120]]
    two = scene.segment(boxes=boxes)
    apart = [scene.segment(boxes=[b], previous=own) for b, own in zip(boxes, two.logits, strict=True)]  # type: ignore[arg-type]
    assert np.array_equal(scene.segment(boxes=boxes, previous=two).masks, np.concatenate([one.masks for one in apart]))


@pytest.mark.ci
def test_several_masks_scales_and_what_a_model_does_not_take(model: runtime.Model) -> None:
    by_hand = ByHand(model).ask(ASKED)
    several = model.segment(SCENE, points=POINTS, point_labels=[1, 0], multimask=True)
    assert np.array_equal(several.masks, by_hand.masks) and several.scores.tolist() == by_hand.scores.tolist()
    assert several.prompts.tolist() == [0] * len(by_hand.scores)
    one = model.segment(SCENE, points=POINTS, point_labels=[1, 0])
    same = model.segment(SCENE, points=POINTS, point_labels=[1, 0], scales=[1])
    assert np.array_equal(one.masks, same.masks) and same.logits is None
    ask, size = Ask.of(points=POINTS, point_labels=[1, 0]), (168, 168)
    windows = [Window.around(ask, scale, size) for scale in (0.5, 1, 1.5)]
    picture = Image.open(SCENE).convert("RGB")
    seen = []
    for window in windows:
        moved = window.moved(ask).marks.points
        found = model.segment(window.of(picture), points=[[p.x, p.y] for p in moved], point_labels=[1, 0])
        seen.append((window, Masks(found.masks, found.scores, 0)))
    together = model.segment(SCENE, points=POINTS, point_labels=[1, 0], scales=[0.5, 1, 1.5])
    assert np.array_equal(together.masks, fused(seen, size).masks)
    assert together.scores == fused(seen, size).scores
    for options, message in (
        ({"scales": [1, 1.5], "previous": one}, "scales go with points and boxes"),
        ({"previous": same}, "previous has no logits"),
        ({"previous": np.zeros((9, 9), np.float32)}, "the earlier mask has 9 x 9 logits, and this model takes 40 x 40"),
    ):
        with pytest.raises(BuildError, match=message):
            model.segment(SCENE, points=POINTS, point_labels=[1, 0], **options)  # type: ignore[arg-type]


@pytest.mark.ci
def test_an_earlier_mask_of_sam2_is_that_of_its_decoder_called_by_hand(tmp_path: Path) -> None:
    folder = runnable.write(tmp_path / "sam2", verdict=runnable.PASSED, manifest="sam2_mini")
    with runtime.load(folder) as model:
        code, scene = registry.family_code("sam2"), model.encode(SCENE)
        first = scene.segment(points=POINTS, point_labels=[1, 0])
        assert first.logits is not None
        request = PromptRequest("predictor", "interactive", "meta", (), None, {}, model.folder.description.config)
        run = onnxruntime.InferenceSession(folder / "mask_decoder" / "mask_decoder.fp32.onnx")
        encoded = scene.computed("interactive")["vision_encoder"]
        arrays = {
            **code.prompts.prompt_arrays(request, [ASKED], scene.given.size),
            **{name: encoded[name] for name in ("image_embeddings.0", "image_embeddings.1")},
            "conditioned_features": encoded["image_embeddings.2"],
            "input_masks": first.logits,
            "has_masks": np.array([True]),
        }
        outputs = dict(zip([o.name for o in run.get_outputs()], run.run(None, arrays), strict=True))
        expected = code.results.find({name: array[0] for name, array in outputs.items()}, scene.given.size, 0.5)
        found = scene.segment(points=POINTS, point_labels=[1, 0], previous=first)
        assert isinstance(expected, Masks)
        assert expected.visible == (len(found) == 1)
        assert np.array_equal(found.masks, expected.masks[: len(found)])
        assert not np.array_equal(found.logits, first.logits)


def test_what_sam2_takes_again_is_within_the_bounds_of_its_predictor() -> None:
    logits = np.linspace(-90, 90, 64, dtype=np.float32).reshape(8, 8)
    outputs = {"pred_masks": logits, "iou_scores": np.ones(1), "object_score_logits": np.ones(1)}
    found = registry.family_code("sam2").results.find(outputs, (8, 8), 0.5)
    assert isinstance(found, Masks) and found.logits is not None
    assert np.array_equal(found.logits[0], np.clip(logits, -32, 32)) and np.array_equal(found.masks[0], logits > 0)


def test_instances_are_neither_refined_nor_fused(tmp_path: Path) -> None:
    folder = runnable.write(tmp_path / "sam3", verdict=runnable.PASSED)
    with runtime.load(folder) as words:
        for options in ({"refine": 3}, {"scales": [1, 2]}):
            with pytest.raises(BuildError, match="refine and scales are for prompts that mean one object"):
                words.segment(SCENE, "star", **options)  # type: ignore[arg-type]
        with pytest.raises(BuildError, match="this model takes no mask; pipeline image takes text, boxes"):
            words.segment(SCENE, "star", previous=np.zeros((8, 8), np.float32))
