"""The `samples:` of a manifest: reports what is wrong with them, returns them as values.

Which keys a sample has is declared by the family's pipelines: the first one that takes all of them takes the sample.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sam3_build import registry
from sam3_build.documents import document_of
from sam3_build.errors import Keys
from sam3_build.manifest.checkpoints import checkpoint_of, tokenizer_of
from sam3_build.manifest.problems import Report, kind, no_file
from sam3_build.manifest.rules import check_file
from sam3_build.manifest.samples import clip_files, pictures_in, problems
from sam3_build.manifest.shape import ManifestFile, PromptFile, SampleFile
from sam3_build.manifest.types import Sample
from sam3_build.manifest.yaml_tree import Value
from sam3_build.pipeline import prompts
from sam3_build.pipeline.images import SUFFIXES, is_video
from sam3_build.spec import ModelFamily, Pipeline

# What belongs to a clip, beside its prompts.
OF_CLIPS = ("video", "frames", "reverse", "prompts")

# What a message shows of a prompt on a frame.
ON_FRAME = "{frame: 0, object: 1, points: 'pos:40,40'}"


# ------------------------------------------------------------------ which pipeline takes a sample


def pipeline_of(sample: SampleFile, family: ModelFamily) -> Pipeline | None:
    """Return the first pipeline of the layout that takes all that a sample has."""
    return next((p for p in family.pipelines if _takes(p, sample)), None)


def _takes(pipeline: Pipeline, sample: SampleFile) -> bool:
    of_frames = prompts.frame_prompts(pipeline.prompts)
    return (of_frames is not None) == _is_clip(sample) and _keys(sample) <= set(prompts.taken(pipeline.prompts))


def _is_clip(sample: SampleFile) -> bool:
    return any(getattr(sample, key) is not None for key in OF_CLIPS)


def _keys(sample: SampleFile) -> set[str]:
    return {key for _, prompt in _prompts(sample, ()) for key in prompts.FRAME_KEYS if _has(prompt, key)}


def _prompts(sample: SampleFile, keys: Keys) -> Iterator[tuple[Keys, PromptFile]]:
    """Yield the sample, and the prompts on its frames, each with where it stands."""
    yield keys, sample
    for i, prompt in enumerate(sample.prompts or ()):
        yield (*keys, "prompts", i), prompt


def _has(prompt: PromptFile, key: str) -> bool:
    return getattr(prompt, key, None) is not None


# ------------------------------------------------------------------ checks


def check_samples(file: ManifestFile, family: ModelFamily | None, report: Report) -> None:
    """Report samples that no pipeline takes, that say nothing, stand there twice, or lead to no file."""
    root = report.root.get(("samples",))
    raw = [value.plain() for value in root.data] if root and isinstance(root.data, tuple) else []
    for i, sample in enumerate(file.samples):
        keys: Keys = ("samples", i)
        _check_files(keys, sample, report)
        if not report.is_broken(keys):
            _check_prompts(keys, sample, family, report)
        if raw[i] in raw[:i]:
            report.add(keys, f"is the same as samples[{raw.index(raw[i])}]")
    known = {problem.keys for problem in report.sorted()}
    # To look into pictures takes time: here only where a sample is wrong anyway, so that all is said at once.
    if family and any(keys[:1] == ("samples",) for keys in known):
        for keys, text in _looked_into(file, family, known, report):
            if keys not in known:
                report.add(keys, text)


def _check_files(keys: Keys, sample: SampleFile, report: Report) -> None:
    if sample.image is not None and sample.video is not None:
        report.add_key((*keys, "video"), "is a clip, and 'image' a picture: a sample is one of both")
    elif sample.image is None and sample.video is None:
        needed = "video" if _is_clip(sample) else "image"
        report.add((*keys, needed), f"required key {needed!r} is missing")
    check_file((*keys, "image"), report)
    for at, _ in _prompts(sample, keys):
        check_file((*at, "mask"), report)
    if sample.video is None:
        return
    path = report.root.path((*keys, "video"))
    if kind(path) is None:
        report.add((*keys, "video"), no_file(path, sample.video))
    elif path.is_dir():
        there = len(pictures_in(path))
        if not there:
            report.add((*keys, "video"), f"folder {path.name!r} holds no picture ({', '.join(SUFFIXES)})")
        elif sample.frames is not None and sample.frames > there:
            report.add((*keys, "frames"), f"is {sample.frames}, but folder {path.name!r} holds {there} pictures")
    elif not is_video(path) and sample.frames is not None and sample.frames > 1:
        what = "one picture; a clip is a folder of pictures or a video file"
        report.add((*keys, "frames"), f"is {sample.frames}, but {path.name!r} is {what}")
    if sample.frames is None:
        report.add((*keys, "frames"), "required key 'frames' is missing: how many frames of the clip are taken")


def _check_prompts(keys: Keys, sample: SampleFile, family: ModelFamily | None, report: Report) -> None:
    """Report prompts that say nothing, and those that no pipeline of the family takes."""
    takes = _check_keys(keys, sample, family, report) if family else set(prompts.FRAME_KEYS)
    if not takes:
        return
    own = prompts.in_words(tuple(key for key in prompts.FRAME_KEYS if key in takes))
    for at, prompt in _prompts(sample, keys):
        if prompt.text is not None and not prompt.text.strip():
            report.add((*at, "text"), "is empty; write a noun phrase, or leave the key out")
        if not any(_has(prompt, key) for key in prompts.FRAME_KEYS) and not (prompt is sample and _is_clip(sample)):
            report.add(at, f"needs a prompt: {own}")
    if _is_clip(sample):
        _check_clip(keys, sample, report)


def _check_keys(keys: Keys, sample: SampleFile, family: ModelFamily, report: Report) -> set[str]:
    """Report keys that no pipeline takes, and those that none takes together; return those that some pipeline takes."""
    able = [p for p in family.pipelines if (prompts.frame_prompts(p.prompts) is not None) == _is_clip(sample)]
    what = "a clip" if _is_clip(sample) else "a picture"
    takes = {key for pipeline in able for key in prompts.taken(pipeline.prompts)}
    if not takes:
        report.add(keys, f"is {what}, which no pipeline of {_whose(family)} takes{_who_takes(None, sample, family)}")
        return takes
    own = prompts.in_words(tuple(key for key in prompts.FRAME_KEYS if key in takes))
    for at, prompt in _prompts(sample, keys):
        for key in prompts.FRAME_KEYS:
            if _has(prompt, key) and key not in takes:
                text = f"is nothing that {_whose(family)} takes with {what}, but {own}"
                report.add_key((*at, key), f"{text}{_who_takes(key, sample, family)}")
    if _keys(sample) <= takes and not pipeline_of(sample, family):
        each = "; ".join(f"{p.name}: {', '.join(prompts.taken(p.prompts))}" for p in able)
        report.add(keys, f"has {' and '.join(sorted(_keys(sample)))}, which no pipeline takes together ({each})")
    return takes


def _check_clip(keys: Keys, sample: SampleFile, report: Report) -> None:
    """Report prompts on no frame or on one that is not taken, of no object, or that remove one which is not there."""
    if not sample.prompts:
        missing = "required key 'prompts' is missing" if sample.prompts is None else "is empty"
        report.add((*keys, "prompts"), f"{missing}: prompts on frames, such as {ON_FRAME}")
    for key in (key for key in prompts.KEYS if _has(sample, key)):
        report.add_key((*keys, key), f"stands beside a clip, whose prompts are on frames: `prompts: [{ON_FRAME}]`")
    present: set[int] = set()
    for i, prompt in sorted(enumerate(sample.prompts or ()), key=lambda numbered: numbered[1].frame):
        at = (*keys, "prompts", i)
        if sample.frames is not None and prompt.frame >= sample.frames:
            report.add(
                (*at, "frame"), f"is {prompt.frame}, but {sample.frames} frames are taken, 0 to {sample.frames - 1}"
            )
        if prompt.remove is not None and prompt.remove not in present:
            report.add((*at, "remove"), f"object {prompt.remove} has no prompt before this one")
        elif prompt.remove is not None:
            present.discard(prompt.remove)
        elif prompt.object is None and prompt.text is None:
            report.add((*at, "object"), "required key 'object' is missing: a number of your choice for what is meant")
        elif prompt.object is not None:
            present.add(prompt.object)


def _whose(family: ModelFamily) -> str:
    layout = f" in layout {family.layout!r}" if len(family.layouts) > 1 else ""
    return f"family {family.name!r}{layout}"


def _who_takes(key: str | None, sample: SampleFile, family: ModelFamily) -> str:
    """Return which other layouts and families take a key (None: such samples at all); empty without any."""
    names = []
    for other in (registry.family(name) for name in registry.names("families")):
        for layout, cut in other.layouts.items():
            if (other.name, layout) != (family.name, family.layout):
                for pipeline in cut.pipelines:
                    fits = (prompts.frame_prompts(pipeline.prompts) is not None) == _is_clip(sample)
                    if fits and (key is None or key in prompts.taken(pipeline.prompts)):
                        names.append(f"{other.name}, layout {layout}")
    each = list(dict.fromkeys(names))
    return f"; {', '.join(each)} take{'s' if len(each) == 1 else ''} it" if each else ""


def _looked_into(
    file: ManifestFile, family: ModelFamily, known: Collection[Keys], report: Report
) -> list[tuple[Keys, str]]:
    """Return what the family finds wrong with those samples whose keys can be read."""
    fit = {
        i: sample
        for i, sample in enumerate(file.samples)
        if not report.is_broken(("samples", i)) and _can_be_opened(sample, i, known) and pipeline_of(sample, family)
    }
    samples = {i: _sample(sample, family, report.root, i) for i, sample in fit.items()}
    if any(keys[:1] in ((), ("checkpoint",), ("tokenizer",)) for keys in known):
        return problems(family.name, samples, None, None)
    config = checkpoint_of(file.checkpoint, family, report.root).files.get("config")
    return problems(family.name, samples, tokenizer_of(file, family, report.root), config)


def _can_be_opened(sample: SampleFile, number: int, known: Collection[Keys]) -> bool:
    """Tell whether a sample has a picture, or a clip of which nothing is known to be wrong, such as its frames."""
    return bool(sample.image or (sample.video and not any(keys[:2] == ("samples", number) for keys in known)))


# ------------------------------------------------------------------ values


def samples_of(file: ManifestFile, family: ModelFamily, root: Value) -> tuple[Sample, ...]:
    """Return the checked samples."""
    return tuple(_sample(sample, family, root, i) for i, sample in enumerate(file.samples))


def _sample(sample: SampleFile, family: ModelFamily, root: Value, number: int) -> Sample:
    pipeline = pipeline_of(sample, family)
    assert pipeline is not None
    keys: Keys = ("samples", number)
    masks: dict[str, Path] = {}

    def made(kind_of: type, prompt: PromptFile, at: Keys, own: Sequence[str]) -> object:
        given = {key: getattr(prompt, key) for key in own if _has(prompt, key)}
        if "mask" in given:
            given["mask"] = f"mask{len(masks)}"
            masks[given["mask"]] = root.path((*at, "mask"))
        return kind_of(**given)

    of_frames = prompts.frame_prompts(pipeline.prompts)
    if of_frames is None:
        found = made(pipeline.prompts, sample, keys, prompts.KEYS)
        return Sample(pipeline.name, (root.path((*keys, "image")),), document_of(found), masks)
    own = ("frame", "object", *prompts.FRAME_KEYS)
    on_frames = [made(of_frames, prompt, (*keys, "prompts", i), own) for i, prompt in enumerate(sample.prompts or ())]
    video = root.path((*keys, "video"))
    pictures = tuple(clip_files(video, sample.frames or 0))
    return Sample(
        pipeline.name,
        pictures,
        document_of(pipeline.prompts(prompts=tuple(on_frames))),
        masks,
        video,
        sample.frames or 0,
        bool(sample.reverse),
    )
