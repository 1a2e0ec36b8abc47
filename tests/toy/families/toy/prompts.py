"""Toy prompts: what a sample is, in words, and what is wrong with one."""


def words(sample):
    """Return a line that tells the sample apart."""
    return f"{sample['image']}: {sample['text']} {sample['boxes']}"


def problems(samples, tokenizer, images, config):
    """Return what is wrong: every picture is 100 pixels wide and says that it is one; nothing is blu."""
    found = []
    for i, sample in enumerate(samples):
        if "blu " in f"{sample['text']} ":
            found.append((("samples", i, "text"), "no token for 'blu'"))
        if b"picture" not in images[sample["image"]].read_bytes():
            found.append((("samples", i, "image"), f"{images[sample['image']].name} cannot be read as a picture"))
        found += [(("samples", i, "boxes"), "lies outside") for box in sample["boxes"] if box["xywh"][0] >= 100]
    return found
