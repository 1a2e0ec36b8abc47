"""Toy prompts: what a sample is, in words, and what is wrong with one."""

from sam3_build.pipeline.prompts import boxes_of


def words(sample):
    """Return a line that tells the sample apart."""
    return f"{sample.pictures[0]}: {dict(sample.prompts)}"


def problems(samples, tokenizer, files, config):
    """Return what is wrong: every picture is 100 pixels wide and says that it is one; nothing is blu."""
    found = []
    for _, sample in samples:
        picture = files[sample.pictures[0]]
        if "blu " in f"{sample.prompts.get('text')} ":
            found.append((("samples", sample.number, "text"), "no token for 'blu'"))
        if b"picture" not in picture.read_bytes():
            found.append((("samples", sample.number, "image"), f"{picture.name} cannot be read as a picture"))
        outside = (box for box in boxes_of(sample.prompts) if box.x >= 100)
        found += [(("samples", sample.number, "boxes"), "lies outside") for _ in outside]
    return found
