"""What must be installed to write ONNX: the packages of the extra ``onnx``."""

from __future__ import annotations

from importlib import import_module

from listflow.data.errors import InputError

PACKAGES = ("onnx", "onnxruntime")


def check_installed() -> None:
    """Returns when ONNX can be written and run here; InputError that names the missing package and the extra."""
    for package in PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise InputError(
                f"--format onnx needs the package {package}, which cannot be loaded here ({error}); install it with "
                "`pip install 'listflow[onnx]'`."
            ) from error
