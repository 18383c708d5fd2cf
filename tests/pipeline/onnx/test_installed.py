"""Without the extra one sentence says what to install, before anything is loaded or written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from finished_views import finished
from merged_models import of

from listflow.data.errors import InputError
from listflow.pipeline.results.export import export


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_package_that_is_missing_is_named_with_the_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", sys)  # which need not be there for this test
    monkeypatch.setitem(sys.modules, package, None)
    run = finished(tmp_path, "bert", of("list"))
    with pytest.raises(InputError, match=rf"needs the package {package}\b.*`pip install 'listflow\[onnx\]'`\.$"):
        export(run, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()
    export(run, tmp_path / "out")  # the other form needs none of it
