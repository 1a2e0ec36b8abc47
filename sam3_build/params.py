"""The parameters of each stage: what a plan writes into an action, and its stage reads. Names, types and defaults."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.documents import Json, Params
from sam3_build.model_format import FORMAT, TOKENIZER, ModelComponent, ModelDescription, ModelFile, ModelPipeline
from sam3_build.spec import Feed, Per, Profile, TensorSpec

# ------------------------------------------------------------------ weights and samples


class CheckpointParams(Params):
    """Stage `checkpoint`. source: where the weights come from; image_size: height and width, None for the config's."""

    family: str
    layout: str
    source: Mapping[str, Json]
    image_size: tuple[int, int] | None = None


class SampleParams(Params):
    """A sample: the roles of its picture or of a clip's, and its prompts, a document of `Pipeline.prompts`.

    number: where it stands among the manifest's samples
    frames: how many of a clip's frames are taken; 0 for a picture
    is_reordered: whether it is the sample before it with its objects in another order, which must change nothing
    """

    number: int
    pictures: tuple[str, ...]
    prompts: Mapping[str, Json]
    frames: int = 0
    reverse: bool = False
    is_reordered: bool = False


class SamplesParams(Params):
    """Stage `samples`. padding: by how much a batch is padded, such as the number of ignored boxes."""

    family: str
    layout: str
    pipeline: str
    reference: str
    samples: tuple[SampleParams, ...]
    padding: int


# ------------------------------------------------------------------ PyTorch


class InterfaceParams(Params):
    """The inputs and outputs of a component, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class TorchParams(Params):
    """What runs a component in PyTorch: a network of the family's, and where its weights come from."""

    family: str
    component: str
    network: str
    source: Mapping[str, Json]
    spec: InterfaceParams


class ReferenceParams(TorchParams):
    """Stage `reference`. per: how often the component runs."""

    feeds: tuple[Feed, ...]
    per: str = Per.CASE


class ExportParams(TorchParams):
    """Stage `export`. dynamic_dims: those of the component that stay symbolic."""

    opset: int
    dynamic_dims: tuple[str, ...]


class ReferenceGapParams(TorchParams):
    """Stage `reference_gap`. samples: positions of those concerned; absent: what one row of them gives of inputs."""

    feeds: tuple[Feed, ...]
    samples: tuple[int, ...]
    absent: Mapping[str, Json]


class LoopParams(Params):
    """What a loop is: see `spec.Loop`."""

    name: str
    outputs: tuple[str, ...]
    given: tuple[str, ...]
    feeds: tuple[Feed, ...]
    frames: tuple[str, ...]


class ReferenceLoopParams(Params):
    """Stage `reference_loop`. networks: one for each component of the loop."""

    family: str
    loop: LoopParams
    networks: tuple[TorchParams, ...]


# ------------------------------------------------------------------ graphs


class SimplifyParams(Params):
    """Stage `simplify`."""

    component: str


class PatchParams(Params):
    """Stage `patch`. patches: names, in the order in which they are applied."""

    component: str
    patches: tuple[str, ...]


class LockedNodes(Params):
    """What a search found: the fingerprint of the graph, and the names of its nodes that stay FP32."""

    graph: str
    nodes: tuple[str, ...]


class PrecisionParams(Params):
    """Stages `precision` and `quantize`, and what `verify` expects of the types of GEMMs.

    keep_fp32, fp32_nodes: patterns on node names, the manifest's and the family's, of which each must match a node
    options: the recipe's
    require_low: false where a search tries how much can be kept
    """

    component: str
    precision: str
    keep_fp32: tuple[str, ...] = ()
    fp32_nodes: tuple[str, ...] = ()
    options: Mapping[str, Json] = {}
    locked: LockedNodes | None = None
    require_low: bool = True

    @property
    def stem(self) -> str:
        """The name of the graph's file, without the suffix."""
        return f"{self.component}.{self.precision}"


class BuildParams(Params):
    """Stage `build`. profiles: those of the engine, in its order; options: the backend's."""

    component: str
    precision: str
    backend: str
    options: Mapping[str, Json]
    profiles: tuple[Profile, ...]


class ModelParams(Params):
    """Stage `model`: what model.json says, but for the model config and the digests of files."""

    family: str
    layout: str
    reference: str
    score_threshold: float
    components: tuple[ModelComponent, ...]
    pipelines: tuple[ModelPipeline, ...]
    files: tuple[ModelFile, ...]

    def description(
        self,
        config: Mapping[str, Json],
        static: Mapping[str, int],
        files: tuple[ModelFile, ...],
        has_tokenizer: bool,
    ) -> ModelDescription:
        """Return what model.json says. files: with their digests."""
        return ModelDescription(
            format=FORMAT,
            family=self.family,
            layout=self.layout,
            reference=self.reference,
            score_threshold=self.score_threshold,
            config=config,
            static=static,
            components=self.components,
            pipelines=self.pipelines,
            files=files,
            tokenizer=TOKENIZER if has_tokenizer else None,
        )


# ------------------------------------------------------------------ what is measured


class NetworkParams(Params):
    """What runs a component: the graph on ONNX Runtime's CPU, or (with a backend) what that backend built.

    profiles: those of the engine, in its order; row_dim: the dim whose rows can be fed in groups
    row_axes: of each input and output that has rows, the axis along which they lie
    """

    component: str
    precision: str
    backend: str | None = None
    options: Mapping[str, Json] = {}
    profiles: tuple[Profile, ...] = ()
    row_dim: str | None = None
    row_axes: Mapping[str, int] = {}

    @property
    def stem(self) -> str:
        """The name of the graph's file, without the suffix."""
        return f"{self.component}.{self.precision}"


class VerifyParams(NetworkParams):
    """Stage `verify`.

    keep_outputs: whether outputs are written, for other actions
    rows: how many rows of a case are fed once more, together
    meaningful_where, chosen_by: as TensorSpec has them, of the outputs that have them
    types: what the graph's types were written by; None where GEMMs' types are not measured
    """

    keep_outputs: bool
    rows: int
    types: PrecisionParams | None = None
    meaningful_where: Mapping[str, str] = {}
    chosen_by: Mapping[str, str] = {}


class ChainParams(NetworkParams):
    """Stage `chain`. inputs: names, in order; feeds: those of the component; per: how often it runs."""

    inputs: tuple[str, ...]
    feeds: tuple[Feed, ...]
    per: str = Per.CASE


class ChainLoopParams(Params):
    """Stage `chain_loop`. networks: one for each component of the loop, all on one side."""

    family: str
    loop: LoopParams
    networks: tuple[NetworkParams, ...]


class LocalizeParams(NetworkParams):
    """Stage `localize`."""


class CompareParams(Params):
    """Stage `compare`. target: what computed it; parity: what agreement is called, as words that follow the target.

    result: the kind of result
    draws: false where a search tries how much can be kept, and only the statistics are read
    """

    family: str
    result: str
    precision: str
    target: str
    parity: str
    score_threshold: float
    samples: tuple[SampleParams, ...]
    draws: bool = True


class RangesParams(Params):
    """Stage `ranges`. typed: the parameters of the precision action; cases: how many recorded ones, None for all."""

    component: str
    precision: str
    typed: PrecisionParams
    cases: int | None


class TrialStep(Params):
    """One step of a trial: what an action of a stage would do.

    inputs: role -> an input of the trial or the name of an earlier step, then `/` and a path in it where it has one
    """

    name: str
    stage: str
    params: Mapping[str, Json]
    inputs: Mapping[str, str]


class TrialParams(Params):
    """Stage `trial`: steps, the last of which measures. cases: on how many recorded ones it does, None for all."""

    steps: tuple[TrialStep, ...]
    cases: int | None = None

    @property
    def components(self) -> tuple[str, ...]:
        """The components that its steps run."""
        return tuple(dict.fromkeys(str(step.params["component"]) for step in self.steps if "component" in step.params))
