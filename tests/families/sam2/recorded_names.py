"""Names and shapes of the tensors of Meta's four files, as tests/recorded/sam2/record_names.py wrote them."""

from __future__ import annotations

import json
import re
from pathlib import Path

FILE = Path(__file__).parents[2] / "recorded" / "sam2" / "official_names.json"


def official(size):
    """Return name -> shape of every tensor of the official file of a size."""
    listed = json.loads(FILE.read_text())
    found = {}
    for name, shape in (listed["all"] | listed[size]).items():
        numbers = re.search(r"\{(\d+)-(\d+)\}", name)
        each = range(int(numbers[1]), int(numbers[2]) + 1) if numbers else [None]
        found |= {name if n is None else name.replace(numbers[0], str(n)): tuple(shape) for n in each}
    return found
