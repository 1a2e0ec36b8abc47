"""Which nodes must stay FP32: `sam3-build search` beside onnxconverter-common's automatic search, in one run.

`pip install -e '.[benchmark]'`, then `python benchmarks/search.py`. Both get toy transformers with planted faults
(tests/planted_overflow.py), the same inputs and the same gates; the other one is `auto_convert_mixed_precision`.
`tries` are sets of nodes that were run; `kept` is how many nodes end in FP32, `planted` how many of the planted ones
are among them, and `sound` whether the result passes the gates where every FP16 tensor is rounded and may overflow, as
on a GPU. The other is run as it is, on ONNX Runtime's CPU, and then with that emulation in place of its own runs, so
that both judge by the same numbers. Here each try takes a process of its own, which is most of its time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxconverter_common import auto_mixed_precision

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT), str(ROOT / "tests")]

import planted_space  # noqa: E402
from planted_overflow import cases, planted  # noqa: E402

from sam3_build.commands.output import outlive_readers  # noqa: E402
from sam3_build.compare.judge import Verdict, gates_for, judge  # noqa: E402
from sam3_build.compare.statistics import OutputStatistics  # noqa: E402
from sam3_build.graph import files  # noqa: E402
from sam3_build.graph.casts import write_types  # noqa: E402
from sam3_build.graph.emulation import write_emulation  # noqa: E402
from sam3_build.machine.toolchain import version  # noqa: E402
from sam3_build.spec import Comparison  # noqa: E402

SUBJECTS: dict[str, tuple[int, dict[str, str]]] = {
    "1 overflow": (6, {"layers.3.mlp": "overflow"}),
    "3 overflows": (12, dict.fromkeys(("layers.2.mlp", "layers.5.mlp", "layers.11.mlp"), "overflow")),
    "1 cancellation": (12, {"layers.7.attn": "cancel"}),
    "1 overflow, 2 cancellations": (
        12,
        {"layers.3.mlp": "overflow"} | dict.fromkeys(("layers.5.attn", "layers.10.mlp"), "cancel"),
    ),
    "6 overflows": (24, {f"layers.{i}.mlp": "overflow" for i in range(1, 24, 4)}),
}


@dataclass
class Result:
    """What one way found."""

    tries: int
    seconds: float
    kept: frozenset[str]
    note: str = ""


# ------------------------------------------------------------------ one judge for all


def passes(expected: np.ndarray, actual: np.ndarray) -> bool:
    """Judge by the default gates of fp16."""
    statistics = OutputStatistics(expected.dtype.name)
    statistics.add("all", actual, expected)
    gates = {"y": tuple(gate for gate in gates_for("fp16", "float32", {}) if gate.metric in statistics.metrics())}
    comparison = Comparison("encoder", "", "fp16", None, "trial", None, ("y",), gates)
    verdicts = {row.verdict for row in judge(comparison, {"outputs": {"y": statistics.summary()}})}
    assert verdicts - {Verdict.NOT_RUN}, "nothing was judged"
    return Verdict.FAIL not in verdicts


def run(model: bytes | Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, {"x": x})[0]
    return output


def run_rounded(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Run a low model with every low tensor rounded."""
    with tempfile.TemporaryDirectory() as folder:
        shipped = Path(folder) / "shipped.onnx"
        onnx.save(model, shipped)
        return run(write_emulation(shipped, Path(folder)) or shipped, x)


def is_sound(model: onnx.ModelProto, kept: frozenset[str], x: np.ndarray) -> bool:
    """Tell whether the model passes with these nodes in FP32, by this project's types and emulation."""
    with tempfile.TemporaryDirectory() as folder:
        source, typed = Path(folder) / "source.onnx", Path(folder) / "typed.onnx"
        onnx.save(model, source)
        loaded = files.load(source)
        write_types(loaded, "FLOAT16", lambda name: "kept" if name in kept else None)
        files.save(loaded, typed)
        return passes(run(source, x), run_rounded(onnx.load(typed), x))


# ------------------------------------------------------------------ the two


def search(folder: Path, blocks: int, plants: dict[str, str]) -> tuple[Result, Result]:
    """Run the command twice, in a project of its own; its time is that of the whole process, workers and all."""
    space, _ = planted_space.create(folder / "project", blocks, plants)
    results = []
    for _ in range(2):
        began = time.perf_counter()
        done = space.cli("search", "encoder", timeout=3600)
        took = time.perf_counter() - began
        if done.code:
            sys.exit(done.output)
        text = (space.root / "manifests" / "toy.lock.yaml").read_text()
        tries, ran = (int(n) for n in re.findall(r"(\d+) sets tried, (\d+) actions run$", done.output, re.M)[0])
        kept = frozenset(re.findall(r"^    - (.*)$", text, re.M))
        results.append(Result(tries, took, kept, f"{ran} actions run"))
    return results[0], results[1]


@dataclass
class Watched:
    """auto_convert with its tries counted and, if asked for, its runs emulated."""

    rounded: bool
    tries: int = 0
    blocked: list[str] = field(default_factory=list)

    def convert(self, real: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
        def converted(model: onnx.ModelProto, **options: object) -> onnx.ModelProto:
            self.tries += 1
            listed = options["node_block_list"]
            assert isinstance(listed, list)
            self.blocked = listed
            return real(model, **options)

        return converted

    def infer(self, real: Callable[..., list[np.ndarray]]) -> Callable[..., list[np.ndarray]]:
        def inferred(model: onnx.ModelProto, feed: dict[str, np.ndarray], *more: object) -> list[np.ndarray]:
            low = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
            return [run_rounded(model, feed["x"])] if self.rounded and low and not more else real(model, feed, *more)

        return inferred


def auto_convert(model: onnx.ModelProto, x: np.ndarray, *, rounded: bool) -> Result:
    watched = Watched(rounded)
    library = auto_mixed_precision
    real_convert, real_infer = library.float16.convert_float_to_float16, library.get_tensor_values_using_ort
    library.float16.convert_float_to_float16 = watched.convert(real_convert)
    library.get_tensor_values_using_ort = watched.infer(real_infer)
    began, note = time.perf_counter(), ""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            library.auto_convert_mixed_precision(
                model, {"x": x}, lambda expected, actual: passes(expected[0], _wide(actual[0])), keep_io_types=True
            )
    except ValueError as error:
        note = str(error)
    finally:
        library.float16.convert_float_to_float16, library.get_tensor_values_using_ort = real_convert, real_infer
    return Result(watched.tries, time.perf_counter() - began, frozenset(watched.blocked), note)


def _wide(output: np.ndarray) -> np.ndarray:
    """Return an output in FP32: where its node stays FP32, the other tool writes it in FP16 all the same."""
    return output.astype(np.float32)


# ------------------------------------------------------------------ the table


def compare(name: str, blocks: int, plants: dict[str, str]) -> None:
    model, wanted = planted(blocks, plants)
    x = np.concatenate(list(cases().values()))
    print(f"\n{name}: {blocks} blocks, {len(model.graph.node)} nodes, {len(wanted)} of them planted", flush=True)
    print(f"  {'':34}{'tries':>6}{'seconds':>9}{'kept':>6}{'planted':>9}  sound")
    with tempfile.TemporaryDirectory() as folder:
        first, second = search(Path(folder), blocks, plants)
    results = {
        "sam3-build search": first,
        "  a second time": second,
        "auto_convert_mixed_precision": auto_convert(model, x, rounded=False),
        "  the same, FP16 rounded": auto_convert(model, x, rounded=True),
    }
    for way, result in results.items():
        share = f"{len(result.kept & wanted)}/{len(wanted)}"
        sound = "yes" if is_sound(model, result.kept, x) else "NO"
        row = f"{result.tries:>6}{result.seconds:>9.1f}{len(result.kept):>6}{share:>9}  {sound:<5}"
        print(f"  {way:<34}{row}  {result.note}".rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--subject", action="append", choices=list(SUBJECTS), help="only these; else all")
    given = parser.parse_args()
    versions = ", ".join(f"{tool} {version(tool)}" for tool in ("onnxruntime", "onnxconverter-common", "onnx"))
    print(f"{versions}; {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start")
    for name in given.subject or SUBJECTS:
        compare(name, *SUBJECTS[name])


if __name__ == "__main__":
    outlive_readers()
    main()
