"""Takes a text and a tokenizer file, returns token ids padded to a length. No torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError, did_you_mean

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Of a text, this many characters are quoted in a message.
LONGEST_QUOTE = 60


def tokenize(text: str, tokenizer: Path, length: int) -> tuple[list[int], list[int]]:
    """Return token ids, padded to `length`, and 1 for each that is no padding; BuildError when they are more.

    A tokenizer file that says nothing about padding is CLIP's, which pads with its end token.
    """
    return tokens(text, text_reader(tokenizer), length)


def text_reader(tokenizer: Path) -> Tokenizer:
    """Return the tokenizer of a file, read once as long as the file does not change: CLIP's takes 0.1 s."""
    return _read(tokenizer, tokenizer.stat().st_mtime_ns if tokenizer.is_file() else 0)


@cache
def _read(tokenizer: Path, changed: int) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        reader = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # tokenizers raises nothing more specific
        raise BuildError(f"{tokenizer.name} is not a tokenizer file: {error}") from error
    padding = reader.padding or {"pad_id": reader.token_to_id("<|endoftext|>"), "pad_token": "<|endoftext|>"}
    if padding["pad_id"] is None:
        raise BuildError(f"{tokenizer.name} neither says how to pad nor has CLIP's end token <|endoftext|>")
    reader.no_truncation()
    reader.enable_padding(pad_id=padding["pad_id"], pad_token=padding["pad_token"])
    return reader


def tokens(text: str, reader: Tokenizer, length: int | None, pad_id: int | None = None) -> tuple[list[int], list[int]]:
    """Return token ids and 1 for each that is no padding: padded to `length`, or (None) as many as the text has.

    pad_id: what the model was trained to be padded with, where that is not what the tokenizer pads with

    BuildError when they are more, or the tokenizer has none for a word.
    """
    encoded, faults = reader.encode(text), []
    if length is not None and len(encoded.ids) > length:
        faults.append(
            f"the text {_shortened(text)!r} is {len(encoded.ids)} tokens long, those at its start and end counted; "
            f"the text encoder reads {length}: use fewer words"
        )
    unknown = reader.token_to_id("<unk>")
    if unknown is not None and unknown in encoded.ids:
        faults.append(
            f"the tokenizer has no token for some word of {_shortened(text)!r}{_vocabulary_hint(text, reader)}"
        )
    if faults:
        raise BuildError("; ".join(faults))
    padding = reader.padding
    assert padding is not None
    chosen = padding["pad_id"] if pad_id is None else pad_id
    encoded.pad(length or len(encoded.ids), pad_id=chosen, pad_token=padding["pad_token"])
    return encoded.ids, encoded.attention_mask


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]} ..."


def _vocabulary_hint(text: str, reader: Tokenizer) -> str:
    vocabulary = [word for word in reader.get_vocab() if word.isalpha()]
    return "".join(f" ({w}{did_you_mean(w, vocabulary)})" for w in text.lower().split() if w not in vocabulary)
