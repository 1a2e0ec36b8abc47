"""Runs an OpenVINO blob: takes arrays by name, returns arrays by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from sam3_build.backends import _openvino
from sam3_build.errors import BuildError
from sam3_build.pipeline import arrays as feeds
from sam3_build.pipeline import profiles
from sam3_build.plugins import RunRequest
from sam3_build.spec import Profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.plugins import Arrays


class OpenVinoSession:
    """A `plugins.Session` on a blob."""

    def __init__(self, compiled: _openvino.CompiledModel, terms: _openvino.Terms, file: str) -> None:
        """Take a loaded blob, what it was built for, and the name of its file."""
        self._request: _openvino.InferRequest | None = compiled.create_infer_request()
        self._file, self._outputs = file, terms.outputs
        self._profiles = {str(i + 1): _profile(terms, i) for i in range(len(terms.profiles))}
        self.inputs = {tensor.name: tensor for tensor in terms.inputs}

    def run(self, arrays: Arrays) -> Arrays:
        """Return the outputs by name, as `plugins.Session` says."""
        if self._request is None:
            raise BuildError(f"{self._file}: its session is closed")
        if why := feeds.unsuitable(self.inputs, arrays) or self._misfit(arrays):
            raise BuildError(f"{self._file}: {why}")
        try:
            by_position = {position: arrays[name] for position, name in enumerate(self.inputs)}
            outputs = self._request.infer(by_position, share_inputs=False, share_outputs=False)
        except RuntimeError as error:
            raise BuildError(f"{self._file}: OpenVINO cannot run it: {_openvino.brief(error)}") from error
        return {name: cast("NDArray[np.generic]", outputs[i]) for i, name in enumerate(self._outputs)}

    def close(self) -> None:
        """Free what the session holds."""
        self._request = None

    def _misfit(self, arrays: Arrays) -> str | None:
        """Say why no shape profile takes the shapes; None when one does. A blob takes all of its profiles together."""
        sizes = {f"{name}[{axis}]": size for name, array in arrays.items() for axis, size in enumerate(array.shape)}
        if not self._profiles or profiles.first_fit(list(self._profiles.values()), sizes) is not None:
            return None
        return profiles.misfit(self._profiles, sizes, None)


def _profile(terms: _openvino.Terms, index: int) -> Profile:
    """Return what a profile takes, by the input and axis of each open dim."""
    return {
        f"{tensor.name}[{axis}]": (low[axis], usual[axis], high[axis])
        for tensor in terms.inputs
        for low, usual, high in (terms.profiles[index][tensor.name],)
        for axis, dim in enumerate(tensor.dims)
        if not isinstance(dim, int)
    }


@contextmanager
def session(request: RunRequest) -> Iterator[OpenVinoSession]:
    """Yield a session on `<stem>.blob` in the folder `built`. BuildError as `_openvino.load`."""
    compiled, terms = _openvino.load(request)
    opened = OpenVinoSession(compiled, terms, f"{request.stem}.blob")
    try:
        yield opened
    finally:
        opened.close()
