"""Made-up reports: the default manifest with statistics, records and overlays invented, as far as a page needs them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from sam3_build.compare.dependencies import Judged, of_pipeline
from sam3_build.compare.details import DETAILS
from sam3_build.compare.judge import RANGE_PARITY, result_gates
from sam3_build.compare.statistics import OutputStatistics
from sam3_build.documents import Params
from sam3_build.execution.session import Session, open_session
from sam3_build.plan.make import make_plan
from sam3_build.report.html.sources import Sources
from sam3_build.report.table import judged
from sam3_build.results.instances.result import RESULT
from sam3_build.spec import PIPELINE, Action, Comparison, Json, Kind
from sam3_build.store.objects import FileFact, Record

ROOT = Path(__file__).parents[1]
NO_GPU = "running TensorRT-RTX engines needs a CUDA GPU; none found on this machine"
METRICS = ("max_abs_over_std", "max_abs_over_range", "cosine", "std_ratio", "mismatches", "nonfinite", "incomparable")
TASK_GATES = result_gates(RESULT, "fp16", {})
CLEAN = {"nonfinite": 0, "incomparable": 0}
FINE = {"count": 0, "mask_iou": 0.9987, "box_iou": 0.9991, "score": 0.0012, "presence": 0, **CLEAN}


@cache
def session() -> Session:
    """Return a session of the default manifest without what OpenVINO runs: no machine's own verdicts are in a world."""
    opened = open_session(ROOT, None, {"SAM3_STORE": "/nonexistent"})
    targets = {name: target for name, target in opened.manifest.targets.items() if target.backend != "openvino"}
    manifest = replace(opened.manifest, precisions=("fp32", "fp16"), targets=targets)
    return replace(opened, manifest=manifest, plan=make_plan(manifest))


@dataclass(frozen=True)
class World:
    """What the page is made of: `known` as a session would tell it, and its verdicts."""

    known: Sources
    found: Judged


def world(
    root: Path,
    noise: Callable[[Comparison, str], float] = lambda comparison, output: (
        1e-6 if comparison.precision == "fp32" else 1e-3
    ),
    task: Callable[[Comparison], Mapping[str, float]] = lambda comparison: FINE,
    gpu: bool = True,
    informs: Mapping[str, str] | None = None,
    pictures: int = 1,
    asked: str = "red circle",
    gap: bool = False,
) -> World:
    """Return a report. noise: of an output in a comparison, relative to its values; task: the pipeline's metrics.

    gap: whether it has the reference gap
    """
    plan, manifest = session().plan, session().manifest
    comparisons = [_as_if(c, gpu) for c in plan.comparisons if c.kind not in (Kind.RESULT, Kind.GAP)]
    comparisons += [c for c in plan.comparisons if gap and c.kind == Kind.GAP]
    comparisons += [
        _pipeline(p, t, gpu, informs or {}) for p in ("fp32", "fp16") for t in (None, "ampere", "ada", "blackwell")
    ]
    plan = replace(plan, comparisons=tuple(comparisons))
    records = {a.name: _record(a) for a in plan.actions if a.stage not in ("verify", "compare", "chain")}
    for c in comparisons:
        if c.action:
            files = _task_files(task(c), pictures, asked) if c.kind == Kind.RESULT else _verify_files(c, noise)
            folder = root / c.action
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                (folder / name).write_bytes(data)
            facts = {name: FileFact("0" * 64, len(data)) for name, data in files.items()}
            action = Action(c.action, c.action.partition(":")[0], Params(), (), ())
            records[c.action] = replace(_record(action), files=facts)
    known = Sources(manifest, plan, records, lambda record: root / record.action, "doit manifest=sam3_mini")
    return World(known, judged(plan, lambda name: root / name if (root / name).is_dir() else None))


def _as_if(comparison: Comparison, gpu: bool) -> Comparison:
    """Return a comparison by the gates that these statistics know, run here or nowhere."""
    kept = {o: tuple(gate for gate in gates if gate.metric in METRICS) for o, gates in comparison.gates.items()}
    gates = {output: some for output, some in kept.items() if some}
    comparison = replace(comparison, outputs=tuple(gates), gates=gates, informs={})
    if comparison.target is None:
        return comparison
    action = f"verify:{comparison.name}" if gpu else None
    return replace(comparison, action=action, not_run=None if gpu else NO_GPU)


def _pipeline(precision: str, target: str | None, gpu: bool, informs: Mapping[str, str]) -> Comparison:
    side = f"{precision}.{target}" if target else precision
    runs = gpu or target is None
    label = f"pytorch fp32 vs {target or 'onnxruntime'} {precision}, as a user sees it"
    if target is None and precision != "fp32":
        label += f" ({RANGE_PARITY})"
    return Comparison(
        component=PIPELINE,
        label=label,
        precision=precision,
        target=target,
        action=f"compare:{side}" if runs else None,
        not_run=None if runs else NO_GPU,
        outputs=("instances",),
        gates={"instances": TASK_GATES},
        kind=Kind.RESULT,
        depends_on=of_pipeline(
            PIPELINE, [(name, "") for name in session().manifest.components], precision, target, fp32_engines=True
        ),
        informs=informs if precision != "fp32" else {},
        result=RESULT.name,
    )


def _verify_files(comparison: Comparison, noise: Callable[[Comparison, str], float]) -> dict[str, bytes]:
    rng = np.random.default_rng(3)
    outputs: dict[str, Json] = {}
    for name, gates in comparison.gates.items():
        exact = any(gate.metric == "mismatches" for gate in gates)
        found = OutputStatistics("bool" if exact else "float32")
        reference = rng.standard_normal((2, 64)).astype(np.float32)
        actual = (reference * (1 + noise(comparison, name) * rng.standard_normal(reference.shape))).astype(np.float32)
        found.add("sample0", *((actual > 0, reference > 0) if exact else (actual, reference)))
        outputs[name] = found.summary()
    return {"statistics.json": json.dumps({"outputs": outputs}).encode()}


def _task_files(metrics: Mapping[str, float], pictures: int, asked: str) -> dict[str, bytes]:
    lost, flipped = bool(metrics["count"]), bool(metrics["presence"])
    differences = [*(["1 lost"] if lost else []), *(["presence 0.97 became 0.96"] if flipped else [])]
    overlays: list[dict[str, Json]] = [
        {
            # The last one is a row of a batch, whose file comes first by its name.
            "file": f"overlay.{f'sample{i}' if i == 0 or i < pictures - 1 else 'batch'}.0.png",
            "title": f'sample {i}: "{asked}"',
            "caption": f"{2 - lost} found, 2 by PyTorch; smallest mask IoU {metrics['mask_iou']:.3f}",
            "differences": differences,
            "metrics": {name: metrics[name] for name in ("count", "mask_iou", "box_iou", "score", "presence")},
            "repeats": i > 0 and i == pictures - 1,
        }
        for i in range(pictures)
    ]
    outputs = {"instances": {"dtype": "instances", "exact": False, "elements": 3, "metrics": metrics, "problems": []}}
    files = {"statistics.json": json.dumps({"outputs": outputs}), DETAILS: json.dumps({"overlays": overlays})}
    drawn = {str(one["file"]): overlay(lost=lost) for one in overlays}
    return {**{name: text.encode() for name, text in files.items()}, **drawn, "overlay.png": overlay(lost=False)}


def overlay(*, lost: bool) -> bytes:
    """Return a picture such as `compare` draws: as asked, the reference, the target; a lost instance is crossed out."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (768, 192), "#8a9b87")
    draw = ImageDraw.Draw(picture)
    for left in (0, 256, 512):
        draw.ellipse((left + 30, 40, left + 110, 130), fill="#c8553d", outline="white", width=3)
        if left < 512 or not lost:
            draw.rectangle((left + 150, 70, left + 220, 150), fill="#3d6fc8", outline="white", width=3)
        else:
            draw.rectangle((left + 150, 70, left + 220, 150), outline="#ff2222", width=3)
            draw.line((left + 150, 70, left + 220, 150), fill="#ff2222", width=3)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _record(action: Action) -> Record:
    key = f"{abs(hash(action.name)):064x}"[-64:]
    files = {name: FileFact(key[::-1], 1_234_567) for name in action.view} or {"data": FileFact(key, 10)}
    provenance: dict[str, Json] = {"began": "2026-11-20T22:00:00Z", "seconds": 1.5, "peak_bytes": 300_000_000}
    document: dict[str, Json] = {"stage": action.stage, "inputs": {"tensors": key}, "tools": {"onnx": "1.23.2"}}
    return Record(key, action.name, document, key[::-1], files, {}, provenance)


# ------------------------------------------------------------------ the four that people meet


def passing(root: Path) -> World:
    return world(root, pictures=3)


def failing(root: Path) -> World:
    """On one target an FP16 decoder is wrong in two outputs, and in another an instance is lost."""

    def noise(comparison: Comparison, output: str) -> float:
        wrong = comparison.name == "decoder.fp16.ada" and output in ("pred_masks", "pred_logits")
        return 0.9 if wrong else 1e-6 if comparison.precision == "fp32" else 1e-3

    def task(comparison: Comparison) -> Mapping[str, float]:
        lost = comparison.name == "pipeline.fp16.blackwell"
        return {**FINE, "count": 1, "mask_iou": 0.91, "score": 0.04} if lost else FINE

    return world(root, noise, task, pictures=3)


def not_judged(root: Path) -> World:
    """The FP32 graph of the vision encoder is wrong already."""

    def noise(comparison: Comparison, output: str) -> float:
        wrong = comparison.name == "vision_encoder.fp32" and output == "fpn_feat_2"
        return 0.3 if wrong else 1e-6 if comparison.precision == "fp32" else 1e-3

    return world(root, noise, gpu=False)


def mostly_not_run(root: Path) -> World:
    """A machine without a GPU, and random weights."""
    informs = dict.fromkeys(
        (m.name for m in RESULT.metrics), "random weights: what is found in a picture proves nothing"
    )
    return world(root, gpu=False, informs=informs)


WORLDS = {"passing": passing, "failing": failing, "not_judged": not_judged, "mostly_not_run": mostly_not_run}
