"""The `sam3-build` command. The base installation has `segment` and `track`; `commands/building` has the others."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sam3_build import __version__
from sam3_build.commands import building
from sam3_build.commands.output import outlive_readers
from sam3_build.errors import BuildError
from sam3_build.manifest.paths import DEFAULT_MANIFEST

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Segment pictures and clips with what was built; plan, explain, inspect and clean up builds.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    pass


# Options of `segment` and `track` alike.
Boxes = Annotated[str | None, typer.Option(help="'pos:x,y,w,h;neg:x,y,w,h' in pixels")]
Corners = Annotated[list[str] | None, typer.Option(help="'x1,y1,x2,y2' in pixels; give it again for more")]
Points = Annotated[str | None, typer.Option(help="'pos:x,y;neg:x,y' in pixels")]
Places = Annotated[list[str] | None, typer.Option(help="'x,y' in pixels; give it again for more")]
Mask = Annotated[Path | None, typer.Option(help="A mask as large as the picture or frame; what is not 0 is meant")]
PromptFile = Annotated[
    Path | None, typer.Option("--prompts", "--prompt-file", help="A JSON file of prompts, also by file name")
]
From = Annotated[
    Path | None,
    typer.Option("--from", "--model-dir", "--model", help="artifacts/MANIFEST, a MANIFEST, or a published folder"),
]
Target = Annotated[str, typer.Option(help="A target of the manifest; auto takes what passed and runs here")]
Precision = Annotated[str | None, typer.Option(help="One precision alone")]
Unverified = Annotated[bool, typer.Option("--unverified", help="Run files that did not pass, too")]


@app.command()
def segment(
    pictures: Annotated[list[Path] | None, typer.Argument(help="Pictures, or folders of them")] = None,
    image: Annotated[list[Path] | None, typer.Option("--image", "--input-dir", help="The same as PICTURES")] = None,
    text: Annotated[list[str] | None, typer.Option(help="What to look for; give it again for more")] = None,
    boxes: Boxes = None,
    box: Corners = None,
    points: Points = None,
    point: Places = None,
    mask: Mask = None,
    prompts: PromptFile = None,
    threshold: Annotated[float | None, typer.Option(help="Keep scores above it; the manifest's without")] = None,
    most: Annotated[int | None, typer.Option("--max", help="Keep the best so many of each picture")] = None,
    nms: Annotated[str, typer.Option(help="Drop what overlaps: mask:IOU or box:IOU")] = "none",
    post: Annotated[
        str | None, typer.Option(help="Steps on each mask, in order, such as open:3,close:5,smooth:1,fill:100")
    ] = None,
    multimask: Annotated[bool, typer.Option("--multimask", help="Keep all masks of a prompt, not the best")] = False,
    refine: Annotated[
        str | None, typer.Option(help="Feed a mask back N times at most: N[,by:stability][,score:0.9][,iou:0.8]")
    ] = None,
    scales: Annotated[str | None, typer.Option(help="The picture at several scales, such as 0.5,1,1.5, fused")] = None,
    folder: From = None,
    target: Target = "auto",
    precision: Precision = None,
    unverified: Unverified = False,
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json in the place of the folder's own")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--output-dir", help="The folder for what is saved [default: segmented]")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="One overlay, such as found.png, or the folder")] = None,
    save: Annotated[str, typer.Option(help="Some of overlay,masks,coco")] = "overlay",
    times: Annotated[bool, typer.Option("--times", help="Print how long each network took")] = False,
) -> None:
    """Find what texts, boxes or points mean in pictures, with what was built, and draw it."""
    from sam3_build.commands import segment as segmenting
    from sam3_build.commands.asked import Typed
    from sam3_build.commands.built import Built
    from sam3_build.runtime import scales as of_scales
    from sam3_build.runtime.keep import Keep
    from sam3_build.runtime.options import Effort

    request = segmenting.Request(
        pictures=[*(pictures or ()), *(image or ())],
        built=Built(_built(folder), target, precision, unverified),
        prompts=Typed(text or (), boxes, box or (), points, point or (), mask, file=prompts),
        keep=Keep.of(threshold, most, nms, post, multimask=multimask),
        effort=Effort.of(refine, None if scales is None else of_scales.read(scales)),
        tokenizer=tokenizer,
        out=out,
        output=output,
        save=save,
        times=times,
    )
    segmenting.segment(request, lambda line: print(line, flush=True))


@app.command()
def track(
    clip: Annotated[Path, typer.Argument(help="A video file, or a folder of pictures")],
    text: Annotated[list[str] | None, typer.Option(help="Find all of it, in the whole clip; again for more")] = None,
    boxes: Boxes = None,
    box: Corners = None,
    points: Points = None,
    point: Places = None,
    mask: Mask = None,
    frame: Annotated[int, typer.Option(help="The frame that these are on", min=0)] = 0,
    prompts: PromptFile = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="Begin with the last frame, then frame 0")] = False,
    folder: From = None,
    target: Target = "auto",
    precision: Precision = None,
    unverified: Unverified = False,
    out: Annotated[Path, typer.Option("--out", "--output-dir", help="The folder for what is saved")] = Path("tracked"),
    save: Annotated[str, typer.Option(help="Some of sheet,video,masks,json")] = "sheet",
) -> None:
    """Follow objects through a clip, with what was built, and draw them."""
    from sam3_build.commands import track as tracking
    from sam3_build.commands.asked import Typed
    from sam3_build.commands.built import Built

    typed = Typed(text or (), boxes, box or (), points, point or (), mask, frame, prompts)
    built = Built(_built(folder), target, precision, unverified)
    tracking.track(tracking.Request(clip, built, typed, reverse, out, save), lambda line: print(line, flush=True))


def _built(folder: Path | None) -> Path:
    from sam3_build.commands.built import built

    return built(folder, os.environ.get("SAM3_MANIFEST") or DEFAULT_MANIFEST, Path.cwd())


app.add_typer(building.app)


def _take_manifest(arguments: Sequence[str], environ: MutableMapping[str, str]) -> list[str]:
    """Return the words without `manifest=NAME`, which may stand anywhere, as after `doit`; it goes to `environ`."""
    chosen = [word for word in arguments if word.startswith("manifest=")]
    for word in chosen:
        environ["SAM3_MANIFEST"] = word.partition("=")[2]
    return [word for word in arguments if word not in chosen]


def main() -> None:
    """Run a command; a BuildError is one message on stderr and exit code 1, and so is output that is lost."""
    lost = outlive_readers()
    try:
        app(_take_manifest(sys.argv[1:], os.environ))
    except BuildError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    finally:
        print(end="", flush=True)
        if lost:
            sys.exit(1)


if __name__ == "__main__":
    main()
