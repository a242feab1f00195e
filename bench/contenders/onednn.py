"""oneDNN through bench/native/onednn_shim.cpp, everything allocated before the timing.

Two builds are looked for: that of the package `onednn-devel`, whose CPU engine runs on SYCL, and one that the
compiler finds by itself (Debian's `libdnnl-dev`), which is an older version on OpenMP.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contenders import AbsentError, Call
from bench.contenders.native import compiled
from bench.grid import Case
from bench.inputs import EPS, Inputs

KINDS = {("ln", "fwd"): 0, ("ln", "bwd"): 1, ("bn", "fwd"): 2, ("bn", "bwd"): 3, ("bn", "inf"): 4}
SRC, DST, DIFF_DST, DIFF_SRC, MEAN, VARIANCE, SCALE, SHIFT, DIFF_SCALE, DIFF_SHIFT = range(10)


def _located(package: str, name: str) -> Path | None:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).resolve() for file in files if file.name == name), None)


def package_environment() -> dict[str, str]:
    """What the process has to start with for the package's library to find its device and its own libraries."""
    library, device = _located("onednn", "libdnnl.so"), _located("intel-opencl-rt", "libintelocl.so")
    if library is None or device is None:
        return {}
    paths = [str(library.parent), *filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))]
    return {"LD_LIBRARY_PATH": ":".join(dict.fromkeys(paths)), "OCL_ICD_FILENAMES": str(device)}


class OneDnn:
    def __init__(self, name: str, *, package: bool) -> None:
        self.name = name
        options = ["-ldnnl"]
        if package:
            header, library = _located("onednn-devel", "dnnl.hpp"), _located("onednn", "libdnnl.so")
            if header is None or library is None:
                raise AbsentError("onednn-devel is not installed: pip install --group bench")
            # The headers of the package lie in include/ and include/oneapi/dnnl/; the former forward to the latter.
            include = header.parent if header.parent.name == "include" else header.parents[2]
            options = [f"-I{include}", f"-L{library.parent}", f"-Wl,-rpath,{library.parent}", "-ldnnl"]
        self.library = compiled("onednn_shim.cpp", *options)
        for function in ("shim_error", "shim_version", "shim_implementation"):
            getattr(self.library, function).restype = ctypes.c_char_p
        self.library.shim_new.restype = ctypes.c_void_p
        self.version = self.library.shim_version().decode()

    def supports(self, case: Case) -> bool:
        return True

    def prepare(self, inputs: Inputs) -> Call:
        case, library = inputs.case, self.library
        n, c, inner = (*case.shape, 1) if case.op == "ln" else case.planes
        last = case.layout in ("nhwc", "nc")
        kind = KINDS[case.op, case.direction]
        numbers = (ctypes.c_int64(v) for v in (n, c, inner))
        problem = ctypes.c_void_p(library.shim_new(kind, *numbers, int(last), ctypes.c_float(EPS)))
        if not problem:
            raise RuntimeError(self.library.shim_error().decode())
        backward = case.direction == "bwd"
        arrays: dict[int, NDArray[Any]] = {SRC: inputs.x, SCALE: inputs.weight, SHIFT: inputs.bias}
        if backward:
            arrays[DIFF_DST] = inputs.dy
        if backward or case.direction == "inf":
            arrays[MEAN], arrays[VARIANCE] = inputs.mean.astype(np.float32), inputs.var.astype(np.float32)
        for which, array in arrays.items():
            self._checked(library.shim_set(problem, which, array.ctypes.data_as(ctypes.c_void_p)))

        def get(which: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
            array = np.empty(shape, np.float32)
            self._checked(library.shim_get(problem, which, array.ctypes.data_as(ctypes.c_void_p)))
            return array

        def results() -> tuple[Any, ...]:
            self._checked(library.shim_run(problem, 1))
            if not backward:
                return (get(DST, inputs.x.shape),)
            return get(DIFF_SRC, inputs.x.shape), get(DIFF_SCALE, (c,)), get(DIFF_SHIFT, (c,))

        return _Owned(
            lambda times: self._checked(library.shim_run(problem, times)),
            results,
            library.shim_implementation(problem).decode(),
            lambda: library.shim_delete(problem),
        )

    def _checked(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(self.library.shim_error().decode())


class _Owned(Call):
    """A call whose memory ends with it."""

    def __init__(self, run: Any, results: Any, note: str, release: Any) -> None:
        super().__init__(run, results, note)
        self._release = release

    def __del__(self) -> None:
        self._release()
