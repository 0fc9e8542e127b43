"""Where a graph runs: opens an onnxruntime session on the CPU, CUDA or TensorRT.

A machine without a GPU must not hear of one: whether there is a device is asked of the driver
first, and only then are the CUDA libraries looked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from typing import Any, Final

from schemas.errors import ModelError

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
DEVICES: Final = ("auto", "cpu", "cuda", "tensorrt")

# onnxruntime's severities. Its warnings are about its own choices, not about our model, and what
# goes wrong comes back as an exception or as a missing provider.
SEVERITY_FATAL: Final = 4


def open_session(graph: bytes, *, threads: int, device: str) -> tuple[Any, str]:
    """An onnxruntime session and the name of the provider it runs on.

    `auto` takes CUDA where a device works and the CPU otherwise. Raises `ModelError` when the
    graph cannot be loaded, or when the device that was asked for by name does not work.
    """
    # Loaded with the first model and not before: a worker without one answers without it.
    import onnxruntime as ort

    if device not in DEVICES:
        raise ModelError(f"no device {device!r}; there are {', '.join(DEVICES)}")
    wanted = _wanted(ort, device)
    try:
        session = ort.InferenceSession(graph, session_options(ort, threads), providers=wanted)
        got = str(session.get_providers()[0])
        if got != wanted[0] and device == "auto":
            # A provider that cannot start leaves a session that was planned for two.
            wanted = [CPU]
            session = ort.InferenceSession(graph, session_options(ort, threads), providers=wanted)
            got = CPU
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise ModelError(f"the ONNX graph cannot be loaded: {error}") from error
    if got != wanted[0]:
        raise ModelError(
            f"device {device} does not work here: onnxruntime fell back to {got}; "
            "check its CUDA libraries (pip install 'headrace[gpu]') or set HEADRACE_DEVICE=auto"
        )
    return session, got


def session_options(ort: Any, threads: int) -> Any:
    """Options for calls from one thread beside other work: no spinning, no parallel operators."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = SEVERITY_FATAL
    # Spinning burns the CPU that the next batch's decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _wanted(ort: Any, device: str) -> list[str]:
    """Providers for `device`, best first. Raises `ModelError` where one asked for is not built in."""
    if device == "cpu":
        return [CPU]
    name = TENSORRT if device == "tensorrt" else CUDA
    fault = None
    if name not in ort.get_available_providers():
        fault = f"this onnxruntime has no {name}"
    elif not has_cuda_device():
        fault = "the NVIDIA driver shows no device"
    if fault is None:
        ort.set_default_logger_severity(SEVERITY_FATAL)
        # It prints what it cannot find; whether that mattered shows in the session's providers.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
        return [name, CUDA, CPU] if name == TENSORRT else [CUDA, CPU]
    if device == "auto":
        return [CPU]
    raise ModelError(
        f"device {device} does not work here: {fault}; set HEADRACE_DEVICE=auto or cpu"
    )


def has_cuda_device() -> bool:
    """Whether the NVIDIA driver is there and counts at least one device."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )
