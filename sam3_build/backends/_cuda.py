"""Memory of the GPU that CUDA would use first, and one stream on it: what a session of an engine needs of CUDA.

It calls the driver's library, which every machine with a GPU has, and not the CUDA runtime, which would have to be
looked for. TensorRT works in the GPU's primary context, so this does too. No test has run it on a GPU: a stub of the
driver that the tests compile shows that arguments and types are those of `cuda.h`.
"""

from __future__ import annotations

import ctypes
import logging
import math
import sys
import weakref
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


class Device:
    """The first GPU and a stream; what is copied and run on the stream is done when `synchronize` returns.

    Raises BuildError with CUDA's own words. `stream` is the handle that TensorRT takes.
    """

    def __init__(self) -> None:
        """Open the GPU's primary context, which others in this process may share, in this thread."""
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise BuildError(f"an engine needs an NVIDIA driver, and its library cannot be loaded ({error})") from error
        self._device, self._context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        try:
            self.activate()
            self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        except BuildError:
            self._call("cuDevicePrimaryCtxRelease_v2", self._device)
            raise
        self._stream = stream
        self.stream = stream.value or 0
        self._arrays: weakref.WeakSet[DeviceArray] = weakref.WeakSet()

    def activate(self) -> None:
        """Make the context that of the calling thread; what follows in it, here and in TensorRT, is on this GPU."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes, at least one."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)), size=size)
        return address.value

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""
        self._release("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address: int, array: NDArray[np.generic]) -> None:
        """Copy a contiguous array to the GPU. It must stay as it is until `synchronize`."""
        if array.nbytes:
            source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
            self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, size, self._stream)

    def download(self, array: NDArray[np.generic], address: int) -> None:
        """Fill a contiguous array from the GPU; it is filled when `synchronize` returns."""
        if array.nbytes:
            target, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
            self._call("cuMemcpyDtoHAsync_v2", target, ctypes.c_uint64(address), size, self._stream)

    def copy(self, address: int, source: int, size: int) -> None:
        """Copy bytes on the GPU, when the stream comes to it."""
        if size:
            places = ctypes.c_uint64(address), ctypes.c_uint64(source)
            self._call("cuMemcpyDtoDAsync_v2", *places, ctypes.c_size_t(size), self._stream)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> DeviceArray:
        """Return an array on the GPU that holds anything yet; it is freed when nobody has it, or with the device."""
        made = DeviceArray(self, shape, dtype)
        self._arrays.add(made)
        return made

    def synchronize(self) -> None:
        """Wait for all that the stream has been given; an error of a kernel shows here."""
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Give back the stream, the context and all arrays."""
        for array in list(self._arrays):
            array.free()
        self._release("cuStreamDestroy_v2", self._stream)
        self._release("cuDevicePrimaryCtxRelease_v2", self._device)

    def _release(self, function: str, handle: object) -> None:
        """Give something back. What the driver refuses is logged: it follows from an error, which it must not hide."""
        try:
            self._call("cuCtxSetCurrent", self._context)
            self._call(function, handle)
        except BuildError as error:
            logging.getLogger(__name__).warning("%s", error)

    def _call(self, function: str, *args: object, size: int = 0) -> None:
        code = getattr(self._library, function)(*args)
        if code == _OUT_OF_MEMORY and size:
            raise BuildError(f"the GPU has no {-(-size // (1 << 20))} MiB of memory left; end what else runs on it")
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            message = (text.value or b"unknown error").decode()
            raise BuildError(f"CUDA: {function} says {message!r} ({code}); does `nvidia-smi` work?")


class DeviceArray:
    """A C-contiguous array on the GPU. Numpy copies it to the host when it reads it; BuildError once it is freed."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        """Take memory."""
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
        self.nbytes = math.prod(shape) * dtype.itemsize
        self._device = device
        self._buffer = Buffer(device)
        self._buffer.reserve(self.nbytes)

    @property
    def address(self) -> int:
        """Where it lies. All sessions share the GPU's primary context, and so their addresses."""
        if not self._buffer.address:
            raise BuildError("an array on the GPU lives no longer than the session that gave it, which is closed")
        return self._buffer.address

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> NDArray[np.generic]:
        """Return a copy on the host."""
        import numpy as np

        if copy is False:
            raise ValueError("an array on the GPU is not read without a copy")
        host: NDArray[np.generic] = np.empty(self.shape, self.dtype)
        self._device.activate()
        self._device.download(host, self.address)
        self._device.synchronize()
        return host if dtype is None else host.astype(dtype)

    def repeat(self, repeats: int, axis: int) -> DeviceArray | NDArray[np.generic]:
        """Return each slice along `axis` so many times, as numpy.repeat; of one slice first on the GPU."""
        import numpy as np

        if math.prod(self.shape[: axis + 1]) != 1:
            return np.repeat(np.asarray(self), repeats, axis)
        self._device.activate()
        shape = (*self.shape[:axis], repeats, *self.shape[axis + 1 :])
        whole = self._device.array(shape, self.dtype)
        for turn in range(repeats):
            self._device.copy(whole.address + turn * self.nbytes, self.address, self.nbytes)
        self._device.synchronize()
        return whole

    def take(self, indices: Sequence[int], axis: int) -> NDArray[np.generic]:
        """Return some slices along `axis`, on the host, as numpy.take."""
        import numpy as np

        return np.asarray(self).take(indices, axis)

    def free(self) -> None:
        """Give the memory back."""
        self._buffer.free()

    def __del__(self) -> None:
        """Give the memory back when nobody has it."""
        if hasattr(self, "_buffer"):  # else the GPU had no memory left
            self._buffer.free()


class Buffer:
    """Memory on the GPU that only grows, so that a session's hundredth run allocates nothing."""

    def __init__(self, device: Device) -> None:
        """Take no memory yet; `address` is 0 until `reserve`."""
        self._device = device
        self.address = self._size = 0

    def reserve(self, size: int) -> int:
        """Return the address of at least `size` bytes. What lay there may be gone; nothing may still use it."""
        if not self.address or size > self._size:
            self.free()
            self.address, self._size = self._device.allocate(size), size
        return self.address

    def free(self) -> None:
        """Give the memory back."""
        address, self.address, self._size = self.address, 0, 0
        if address:
            self._device.free(address)
