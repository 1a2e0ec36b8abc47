"""Takes a family's declaration, returns what is wrong with it: names that lead nowhere. Pure.

A misspelt input would otherwise count as one that a case does not have, and its component as one that does not run.
"""

from __future__ import annotations

from collections.abc import Iterator

from sam3_build.errors import did_you_mean
from sam3_build.spec import PIPELINE, SAMPLES, ComponentSpec, Layout, Loop, ModelFamily, Per, Pipeline, Step

# What plans call other things by the side of components and steps.
TAKEN = (PIPELINE, SAMPLES)


def problems(family: ModelFamily) -> list[str]:
    """Return all that is wrong, a sentence each; empty for a sound declaration."""
    return [
        f"layout {name}: {problem}"
        for name, layout in family.layouts.items()
        for problem in (
            *_names(layout),
            *(p for component in layout.components for p in (*_rows(component, layout), *_meaning(component))),
            *(p for pipeline in layout.pipelines for p in _pipeline(layout, pipeline)),
        )
    ]


def _names(layout: Layout) -> Iterator[str]:
    """Yield names that two components, loops or pipelines share."""
    loops = [step.name for p in layout.pipelines for step in p.steps if isinstance(step, Loop)]
    names = [*(c.name for c in layout.components), *(p.name for p in layout.pipelines), *dict.fromkeys(loops)]
    for name in dict.fromkeys(n for n in names if names.count(n) > 1):
        yield f"two components, loops or pipelines are called {name!r}"
    for name in (n for n in TAKEN if n in names):
        yield f"no component, loop or pipeline may be called {name!r}"
    # Actions and files are called after them, and `@`, `.`, `:` and `/` mean something there.
    for name in dict.fromkeys(n for n in names if not n.isidentifier()):
        yield f"{name!r} is no name of a component, loop or pipeline: letters, digits and _ make one"
    for pipeline in layout.pipelines:
        run = pipeline.components
        for name in dict.fromkeys(n for n in run if run.count(n) > 1):
            yield f"pipeline {pipeline.name}: {name} stands in two steps; what both record would have one name"


def _rows(component: ComponentSpec, layout: Layout) -> Iterator[str]:
    """Yield what is wrong with a declared dim of rows: rows are fed in groups, and outputs joined along it.

    An output without any open dim, such as a table, is the same for all rows.
    """
    dim = component.row_dim
    if dim is None:
        return
    where = f"component {component.name}: row_dim {dim!r}"
    if dim not in layout.dynamic_dims:
        yield f"{where} is no open dim{did_you_mean(dim, layout.dynamic_dims)}"
    elif dim not in component.symbolic_dims:
        yield f"{where} stands in none of its inputs{did_you_mean(dim, component.symbolic_dims)}"
    for tensor in component.outputs:
        if dim not in tensor.dims and set(tensor.dims) & set(layout.dynamic_dims):
            yield f"{where} does not stand in output {tensor.name}, so that its rows cannot be joined"


def _meaning(component: ComponentSpec) -> Iterator[str]:
    """Yield what is wrong with outputs that say which rows of another one mean anything, or what they are chosen by."""
    known = {tensor.name: tensor for tensor in component.outputs}
    for tensor in component.outputs:
        where = f"component {component.name}: output {tensor.name}"
        if name := tensor.meaningful_where:
            means = f"{where} means something where {name!r} is positive, which is"
            if name not in known:
                yield f"{means} no output{did_you_mean(name, known)}"
            elif known[name].dims[1:] not in ((), (1,)) or known[name].dims[:1] != tensor.dims[:1]:
                yield f"{means} not one logit for each of its rows"
        if name := tensor.chosen_by:
            is_chosen = f"{where} is chosen by {name!r}, which is"
            if name not in known:
                yield f"{is_chosen} no output{did_you_mean(name, known)}"
            elif len(known[name].dims) != 2 or known[name].dims[:1] != tensor.dims[:1]:
                yield f"{is_chosen} not a score of each candidate for each of its rows"


def _pipeline(layout: Layout, pipeline: Pipeline) -> Iterator[str]:
    known = {component.name: component for component in layout.components}
    given, computed = set(pipeline.gives), dict[str, set[str]]()
    per_frame = {step.name for step in pipeline.steps if isinstance(step, Step) and step.per == Per.FRAME}
    for step in pipeline.steps:
        where = f"pipeline {pipeline.name}, {step.name}"
        if missing := [name for name in step.components if name not in known]:
            yield f"{where}: no component named {missing[0]!r}{did_you_mean(missing[0], known)}"
            continue
        for feed in step.feeds:
            for source, output in feed.sources:
                if source not in computed:
                    yield f"{where}: {feed.input!r} is fed by {source!r}{did_you_mean(source, computed)}"
                elif output not in computed[source]:
                    hint = did_you_mean(output, computed[source])
                    yield f"{where}: {feed.input!r} is fed by output {output!r} of {source}{hint}"
                elif source in per_frame and not _is_for_each_frame(step, feed.input):
                    yield f"{where}: {feed.input!r} is fed by {source}, which runs once per frame, and is read once"
        yield from _inputs(where, layout, step, given)
        outputs = step.outputs if isinstance(step, Loop) else [tensor.name for tensor in known[step.component].outputs]
        computed[step.name] = set(outputs)


def _is_for_each_frame(step: Step | Loop, name: str) -> bool:
    return name in step.frames if isinstance(step, Loop) else step.per == Per.FRAME


def _inputs(where: str, layout: Layout, step: Step | Loop, given: set[str]) -> Iterator[str]:
    """Yield the inputs of a step, or what a loop gets, that are neither fed nor given; and feeds of no input."""
    fed = {feed.input for feed in step.feeds}
    if isinstance(step, Loop):
        taken = [*step.given, *step.frames]
    else:
        (component,) = (c for c in layout.components if c.name == step.component)
        taken = [tensor.name for tensor in component.inputs]
    for name in taken:
        if name not in fed | given:
            hint = did_you_mean(name, [*fed, *given])
            yield f"{where}: input {name!r} is neither fed nor among what prompts give{hint}"
    for name in fed:
        if name not in taken:
            yield f"{where}: {name!r} is fed, and nothing takes it{did_you_mean(name, taken)}"
