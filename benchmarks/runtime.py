"""How much the runtime adds to ONNX Runtime: one prompt and ten on a picture, beside clients written by hand.

    doit build model verify
    python benchmarks/runtime.py [--from artifacts/sam3_mini] [--picture FILE] [--text WORDS] [--rounds N]

The clients do what any user's script does: resize, tokenize, run four sessions, sigmoid, enlarge masks. One opens the
files with ONNX Runtime's own options, as such scripts do; one with those that the runtime sets, so that only what the
runtime itself adds is left; one is PyTorch (transformers' Sam3Model, eager, FP32). With ten prompts, all of
them encode the picture once and prompt one by one.

All take turns in one process. A turn is a pause in which the threads of the others come to rest, a call that is not
counted, and some that are: a session whose threads still spin takes the CPUs from whoever comes next, and the first
call after a pause wakes them. Ratios are of a round's turns: a busy machine disturbs both sides of a ratio alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import onnxruntime
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer

from sam3_build import runtime
from sam3_build.backends import _onnxruntime

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "manifests" / "sam3_mini"
PROMPTS = 10
PAUSE = 0.3  # seconds
CALLS = 3  # that count, in a turn of one prompt

# What the runtime may take, of what the client with ONNX Runtime's own options takes.
GOALS = {"one prompt": 1.05, "ten prompts": 1.10}

OURS = "the runtime"
DEFAULT = "by hand, ONNX Runtime's own options"
SAME = "by hand, the runtime's options"

Arrays = Mapping[str, np.ndarray]


class Client(Protocol):
    """Encodes a picture, and answers prompts on it with the number of things found."""

    def encode(self, picture: Path) -> tuple[Any, tuple[int, int]]: ...

    def prompt(self, vision: Any, size: tuple[int, int], text: str) -> int: ...


def ask(client: Client, picture: Path, text: str, prompts: int) -> int:
    vision, size = client.encode(picture)
    return [client.prompt(vision, size, text) for _ in range(prompts)][-1]


class Runtime:
    """sam3_build.runtime."""

    def __init__(self, model: runtime.Model) -> None:
        self.model = model

    def encode(self, picture: Path) -> tuple[runtime.Scene, tuple[int, int]]:
        return self.model.encode(picture), (0, 0)

    def prompt(self, vision: runtime.Scene, size: tuple[int, int], text: str) -> int:
        return len(vision.segment(text))


class ByHand:
    """A client as people write it for these four files."""

    def __init__(self, folder: Path, open_file: Callable[[str], onnxruntime.InferenceSession]) -> None:
        described = json.loads((folder / "model.json").read_bytes())
        graphs = [f for f in described["files"] if f["precision"] == "fp32" and f["backend"] == "onnxruntime"]
        paths = {f["component"]: folder / f["path"] for f in graphs}
        self.size, self.length = described["static"]["image_size"], described["static"]["text_len"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        padding = self.tokenizer.padding or {}
        self.pad = padding.get("pad_id", self.tokenizer.token_to_id("<|endoftext|>"))
        self.sessions = {name: open_file(str(path)) for name, path in paths.items()}

    def run(self, name: str, **feeds: object) -> dict[str, np.ndarray]:
        session = self.sessions[name]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    def pixels(self, picture: Path) -> tuple[np.ndarray, tuple[int, int]]:
        image = Image.open(picture).convert("RGB")
        small = np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR), np.float32)
        return ((small / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None].astype(np.float32), image.size

    def tokens(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        self.tokenizer.no_padding()
        ids = self.tokenizer.encode(text).ids
        mask = [1] * len(ids) + [0] * (self.length - len(ids))
        return np.array([ids + [self.pad] * (self.length - len(ids))]), np.array([mask])

    def encode(self, picture: Path) -> tuple[Arrays, tuple[int, int]]:
        pixels, size = self.pixels(picture)
        return self.run("vision_encoder", images=pixels), size

    def prompt(self, vision: Arrays, size: tuple[int, int], text: str) -> int:
        ids, mask = self.tokens(text)
        words = self.run("text_encoder", input_ids=ids, attention_mask=mask)
        geometry = self.run(
            "geometry_encoder",
            input_boxes=np.zeros((1, 1, 4), np.float32),
            input_boxes_labels=np.full((1, 1), -10),
            fpn_feat_2=vision["fpn_feat_2"],
            fpn_pos_2=vision["fpn_pos_2"],
        )
        found = self.run(
            "decoder",
            **vision,
            prompt_features=np.concatenate([words["text_features"], geometry["geometry_features"]], 1),
            prompt_mask=np.concatenate([words["text_mask"], geometry["geometry_mask"]], 1),
        )
        return count(found, size)


class Eager(ByHand):
    """The same with transformers' model. It runs no geometry encoder for a prompt without boxes."""

    def __init__(self, folder: Path, threads: int) -> None:
        super().__init__(folder, lambda path: None)
        torch.set_num_threads(threads)
        self.model = transformers.Sam3Model.from_pretrained(WEIGHTS).eval()

    def encode(self, picture: Path) -> tuple[object, tuple[int, int]]:
        pixels, size = self.pixels(picture)
        with torch.inference_mode():
            return self.model.get_vision_features(torch.from_numpy(pixels)), size

    def prompt(self, vision: object, size: tuple[int, int], text: str) -> int:
        ids, mask = self.tokens(text)
        with torch.inference_mode():
            found = self.model(
                vision_embeds=vision, input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            )
        names = ("pred_masks", "pred_logits", "presence_logits")
        return count({name: getattr(found, name).numpy() for name in names}, size)


def count(found: Arrays, size: tuple[int, int]) -> int:
    """Return how many masks pass the threshold, each enlarged to the picture."""
    presence = 1 / (1 + np.exp(-found["presence_logits"][0]))
    scores = 1 / (1 + np.exp(-found["pred_logits"][0])) * presence
    return len([cv2.resize(mask, size) > 0 for mask in found["pred_masks"][0][scores > 0.5]])


@dataclass
class Taken:
    """Milliseconds of a call, one number a round: as the clock shows, and of all CPUs that the process used."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure(rounds: int, calls: int, clients: Mapping[str, Callable[[], object]]) -> dict[str, Taken]:
    """Return what each client took. Each round begins with another client."""
    names, taken = list(clients), {name: Taken() for name in clients}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            time.sleep(PAUSE)
            clients[name]()
            began, used = time.perf_counter(), time.process_time()
            for _ in range(calls):
                clients[name]()
            taken[name].wall.append(1000 * (time.perf_counter() - began) / calls)
            taken[name].cpu.append(1000 * (time.process_time() - used) / calls)
    return taken


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Return the quartiles of the ratios of rounds."""
    return statistics.quantiles([a / b for a, b in zip(of, to, strict=True)], n=4)


def table_lines(title: str, taken: Mapping[str, Taken]) -> Iterator[str]:
    """Yield each client's times, and the runtime's beside it, round by round."""
    yield f"{title + ', ms':38}    best  median  CPU median   the runtime's of it: wall, CPU (median, quartiles)"
    for name, times in taken.items():
        numbers = (min(times.wall), statistics.median(times.wall), statistics.median(times.cpu))
        line = f"  {name:36} {numbers[0]:7.1f} {numbers[1]:7.1f} {numbers[2]:7.1f}"
        if name != OURS:
            pairs = ((taken[OURS].wall, times.wall), (taken[OURS].cpu, times.cpu))
            for low, middle, high in (ratios(*pair) for pair in pairs):
                line += f"   {middle:.3f} ({low:.2f} .. {high:.2f})"
        yield line
    ratio = ratios(taken[OURS].wall, taken[DEFAULT].wall)[1]
    yield f"  {'reached' if ratio <= GOALS[title] else 'MISSED'}: at most {GOALS[title]} of {DEFAULT}: {ratio:.3f}"
    added = statistics.median(a - b for a, b in zip(taken[OURS].cpu, taken[SAME].cpu, strict=True))
    yield f"  the runtime itself adds {added:.1f} ms of CPU time to {SAME}"


def main(arguments: argparse.Namespace) -> int:
    threads = len(os.sched_getaffinity(0))
    with runtime.load(arguments.folder, precision="fp32", target="onnxruntime", memory=0) as model:
        clients = {
            OURS: Runtime(model),
            DEFAULT: ByHand(arguments.folder, onnxruntime.InferenceSession),
            SAME: ByHand(arguments.folder, lambda path: _onnxruntime.open_session(Path(path), "cpu")),
            "PyTorch, eager": Eager(arguments.folder, threads),
        }

        def asking(client: Client, prompts: int) -> Callable[[], int]:
            return lambda: ask(client, arguments.picture, arguments.text, prompts)

        found = {name: asking(client, 1)() for name, client in clients.items()}
        assert len(set(found.values())) == 1, found
        before = model.runs["vision_encoder"]
        asking(clients[OURS], PROMPTS)()
        encoded = model.runs["vision_encoder"] - before
        taken = {
            title: measure(arguments.rounds, calls, {name: asking(client, n) for name, client in clients.items()})
            for title, n, calls in (("one prompt", 1, CALLS), ("ten prompts", PROMPTS, 1))
        }
    print(f"{platform.machine()}, {threads} CPUs, load {os.getloadavg()[0]:.1f}, {arguments.rounds} rounds")
    print(", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "torch", "transformers", "numpy")))
    lines = [line for title, of_title in taken.items() for line in table_lines(title, of_title)]
    print("\n".join(lines))
    print(f"the vision encoder ran {encoded} time for ten prompts")
    return int(encoded != 1 or any("MISSED" in line for line in lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, default=ROOT / "artifacts" / "sam3_mini")
    parser.add_argument("--picture", type=Path, default=ROOT / "manifests" / "samples" / "scene1.png")
    parser.add_argument("--text", default="red circle")
    parser.add_argument("--rounds", type=int, default=20)
    sys.exit(main(parser.parse_args()))
