"""The folders of this package: in which order they may import, and which of them decide no output of an action."""

from __future__ import annotations

# A folder imports from itself and from those above it, never from those below. Plug-ins stand on one line: they do not
# import each other.
ORDER: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("layers",),
    ("documents",),
    ("actions",),
    ("spec",),
    ("model_format",),
    ("params",),
    ("plugins",),
    ("family_code",),
    ("family_checks",),
    ("registry",),
    ("folders",),
    ("digest",),
    ("machine",),
    ("pipeline",),
    ("graph",),
    ("weights",),
    ("torch_modules",),
    ("compare",),
    ("drawing",),
    ("families", "patches", "precisions", "backends", "results"),
    ("manifest",),
    ("store",),
    ("runtime",),
    ("plan",),
    ("stages",),
    ("execution",),
    ("report",),
    ("diagnose",),
    ("publish",),
    ("commands",),
    ("__main__",),
)

# What a plug-in may import besides the vocabulary and its own folder.
PLUG_INS = {
    "families": ("params", "pipeline", "weights", "torch_modules"),
    "patches": ("graph",),
    "precisions": ("graph",),
    "backends": ("folders", "pipeline"),
    "results": ("compare", "drawing", "pipeline"),
}

# They only run what was built: nothing that a build calls imports them, so that an edit of one builds no engine anew.
RUN_ONLY = frozenset(
    {
        "backends._cuda",
        "backends._engine_session",
        "backends._engines",
        "backends._openvino_layers",
        "backends._openvino_session",
    }
)

# A change to one of these does not change what an action produces, so that an edit of the store does not rebuild the
# world. Where such a change does alter outputs, raise `digest.KEY_VERSION`, which is part of every key.
CORE = frozenset(
    {
        "__main__",
        "actions",
        "commands",
        "diagnose",
        "digest",
        "documents",
        "errors",
        "execution",
        "family_checks",
        "family_code",
        "folders",
        "layers",
        "machine",
        "manifest",
        "model_format",
        "params",
        "plan",
        "plugins",
        "publish",
        "registry",
        "report",
        "runtime",
        "spec",
        "store",
    }
)
