"""Toy prompts: what a sample is, in words."""


def words(sample):
    """Return a line that tells the sample apart."""
    return f"{sample['image']}: {sample['text']} {sample['boxes']}"
