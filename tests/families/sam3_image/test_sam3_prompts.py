"""Samples become inputs: pictures, words and boxes, and the cases that parity is measured on."""

from __future__ import annotations

import re

import numpy as np
import pytest
from miniature import ROOT, SCENES, TOKENIZER
from PIL import Image
from sam3_cases import cases_of
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from sam3_build.errors import BuildError
from sam3_build.pipeline import images
from sam3_build.pipeline.concept_prompts import MEAN, STD
from sam3_build.pipeline.text import tokenize

SCENE = SCENES / "scene1.png"


def case(config, samples, reference="meta", name="sample0"):
    made = cases_of(reference, samples, TOKENIZER, {"image0": SCENE}, config)
    return {c.name: c for c in made}[name].arrays


def sample(text=None, boxes=()):
    return {"image": "image0", "text": text, "boxes": [{"label": label, "xywh": xywh} for label, xywh in boxes]}


def test_boxes_are_centres_and_sizes_relative_to_the_original_picture(config):
    with Image.open(SCENE) as picture:
        width, height = picture.size
    arrays = case(config, [sample(boxes=[(1, (40, 40, 30, 30)), (0, (90, 80, 20, 10))])])
    expected = [[55 / width, 55 / height, 30 / width, 30 / height], [100 / width, 85 / height, 20 / width, 10 / height]]
    np.testing.assert_allclose(arrays["input_boxes"][0], np.array(expected, np.float32))
    assert arrays["input_boxes_labels"].tolist() == [[1, 0]]


@pytest.mark.parametrize("xywh", [(168, 10, 9, 9), (10, 168, 9, 9), (-9, 10, 9, 9), (10, -20, 9, 9)])
def test_a_box_outside_its_picture_is_refused(config, xywh):
    x, y, w, h = xywh
    with Image.open(SCENE) as picture:
        assert picture.size == (168, 168)
    samples = [sample("star"), sample(boxes=[(1, (40, 40, 30, 30)), (1, xywh)])]
    message = rf"samples\[1\]\.boxes: the box {x},{y},{w},{h} lies outside scene1\.png, which is 168 x 168 pixels"
    with pytest.raises(BuildError, match=message):
        case(config, samples)


def test_a_box_may_leave_its_picture(config):
    found = case(config, [sample(boxes=[(1, (-8, 160, 9, 20)), (0, (167, -5, 9, 6))])])["input_boxes"]
    expected = np.array([[-3.5, 170, 9, 20], [171.5, -2, 9, 6]]) / 168
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_text_is_padded_to_its_length_and_masked(config):
    arrays = case(config, [sample("red circle")])
    assert arrays["input_ids"][0].tolist() == [1, 3, 11] + [2] * 29
    assert arrays["attention_mask"][0].tolist() == [1] * 4 + [0] * 28
    assert arrays["input_ids"].dtype == arrays["attention_mask"].dtype == np.int64


def test_boxes_without_words_read_as_visual(config):
    boxes = [(1, (1, 1, 9, 9))]
    alone, worded = case(config, [sample(boxes=boxes)]), case(config, [sample("visual", boxes)])
    assert alone["input_ids"].tolist() == worded["input_ids"].tolist()


def test_text_may_fill_the_text_encoder_and_no_more():
    ids, mask = tokenize("red " * 30, TOKENIZER, 32)
    assert len(ids) == 32 and ids[-1] == 2 and mask == [1] * 32
    message = r"the text '(red ){15} \.\.\.' is 33 tokens long, .* the text encoder reads 32: use fewer words"
    with pytest.raises(BuildError, match=message):
        tokenize("red " * 31, TOKENIZER, 32)


def test_what_a_tokenizer_file_says_about_cutting_text_is_not_followed(tokenizer):
    file = tokenizer("<|startoftext|>", "<|endoftext|>")
    cutting = Tokenizer.from_file(str(file))
    cutting.pre_tokenizer = Whitespace()
    cutting.enable_truncation(2)
    cutting.save(str(file))
    with pytest.raises(BuildError, match="the text 'truck truck truck' is 3 tokens long"):
        tokenize("truck truck truck", file, 2)


def test_a_word_that_the_tokenizer_lacks_is_an_error_that_suggests_another():
    with pytest.raises(BuildError, match=r"no token for some word of 'red cirle'.*cirle; did you mean 'circle'\?"):
        tokenize("red cirle", TOKENIZER, 32)


def test_what_the_page_and_the_card_say_of_words_is_so():
    page, card = (ROOT / "docs/models/sam3_image.md").read_text(), (ROOT / "manifests/sam3_mini/README.md").read_text()
    known = re.search(r"knows the words (.*?), and drawn.*a word that its tokenizer lacks\sis refused", page, re.S)
    listed = re.search(r"Words: (.*?)\. The tokenizer knows more words.*?: (.*?) mean nothing", card, re.S)
    assert known and listed and 'Any other word ("dog") is refused' in card
    words = [re.findall(r"\w+", text.replace(" and ", " ")) for text in (known[1], *listed.groups())]
    assert set(words[0]) < set(words[1]) and len(words[0]) == 10
    for word in {*words[0], *words[1], *words[2], "visual"}:
        tokenize(word, TOKENIZER, 32)
    assert set(Tokenizer.from_file(str(TOKENIZER)).get_vocab()) == {
        *("<unk>", "<bos>", "<eos>", "visual"),
        *words[1],
        *words[2],
    }
    with pytest.raises(BuildError, match="no token for some word of 'dog'"):
        tokenize("dog", TOKENIZER, 32)


@pytest.fixture
def tokenizer(tmp_path):
    """Return a function that writes a tokenizer of a few words that says nothing about padding."""

    def write(*special):
        words = [*special, "[unknown]", "truck"]
        model = WordLevel({word: index for index, word in enumerate(words)}, "[unknown]")
        Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
        return tmp_path / "tokenizer.json"

    return write


def test_a_tokenizer_that_does_not_say_how_to_pad_pads_as_clip_with_its_end_token(tokenizer):
    file = tokenizer("<|startoftext|>", "<|endoftext|>")
    assert tokenize("truck", file, 4) == ([3, 1, 1, 1], [1, 0, 0, 0])


def test_a_file_that_is_no_tokenizer_is_refused():
    with pytest.raises(BuildError, match=r"scene1\.png is not a tokenizer file"):
        tokenize("truck", SCENE, 4)


def test_a_tokenizer_without_any_padding_is_refused(tokenizer):
    with pytest.raises(BuildError, match=r"tokenizer.json neither says how to pad nor has .* <\|endoftext\|>"):
        tokenize("truck", tokenizer(), 4)


def test_meta_gives_a_prompt_without_boxes_one_ignored_box(config):
    arrays = case(config, [sample("star")], "meta")
    assert arrays["input_boxes"].tolist() == [[[0, 0, 0, 0]]]
    assert arrays["input_boxes_labels"].tolist() == [[-10]]


def test_hf_gives_a_prompt_without_boxes_no_geometry_at_all(config):
    assert set(case(config, [sample("star")], "hf")) == {"images", "input_ids", "attention_mask"}


def test_a_batch_pads_with_ignored_boxes_and_has_one_more_than_needed(config):
    samples = [sample("star"), sample(boxes=[(1, (1, 1, 9, 9)), (0, (2, 2, 9, 9))])]
    labels = case(config, samples, "meta", "batch")["input_boxes_labels"]
    assert labels.tolist() == [[-10, -10, -10], [1, 0, -10]]


def test_hf_batches_samples_with_and_without_boxes_apart(config):
    samples = [sample("star"), sample(boxes=[(1, (1, 1, 9, 9))]), sample("circle")]
    made = {c.name: c for c in cases_of("hf", samples, TOKENIZER, {"image0": SCENE}, config)}
    assert made["batch"].samples == (1, 1), "a batch has two rows at least"
    assert made["batch_without_boxes"].samples == (0, 2)
    assert "input_boxes" not in made["batch_without_boxes"].arrays


def test_every_sample_is_a_case_of_its_own(config):
    made = cases_of("meta", [sample("star")] * 6, TOKENIZER, {"image0": SCENE}, config)
    assert [c.name for c in made] == [*(f"sample{i}" for i in range(6)), "batch"]
    assert made[-1].samples == (0, 1, 2, 3)


def test_an_unknown_reference_is_refused(config):
    with pytest.raises(BuildError, match="no reference named 'mets'; did you mean 'meta'"):
        cases_of("mets", [sample("star")], TOKENIZER, {"image0": SCENE}, config)


def test_boxes_of_a_turned_picture_are_in_the_frame_that_viewers_show(config, tmp_path):
    with Image.open(SCENES / "scene1.png") as shown:
        upright = shown.convert("RGB").crop((0, 0, 120, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    sample = {"image": "image0", "text": None, "boxes": [{"label": 1, "xywh": (60, 0, 60, 30)}]}
    (case, _) = cases_of("meta", [sample], TOKENIZER, {"image0": tmp_path / "phone.png"}, config)
    np.testing.assert_array_equal(case.arrays["input_boxes"], [[[0.75, 0.25, 0.5, 0.5]]])
    np.testing.assert_array_equal(case.arrays["images"][0], images.network_input(upright, (168, 168), MEAN, STD))
