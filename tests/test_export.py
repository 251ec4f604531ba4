"""The exported ONNX network gives the same outputs as PyTorch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from spinet.config import PRESETS
from spinet.config.baselines import BASELINES
from spinet.speed.export import export
from spinet.synthcity.mosaic import CATEGORIES
from spinet.systems import build_model
from spinet.weights import freeze

SIZE = (64, 128)


def untrained(system: str = "spinet"):
    torch.manual_seed(0)
    model = build_model(PRESETS["tiny"].with_system(system), CATEGORIES)
    freeze(model.network)
    return model


def test_the_file_says_what_pytorch_says(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, path = untrained(), tmp_path / "spinet.onnx"
    deviations = export(model, path, size=SIZE)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == list(deviations)
    assert names == [*(f"classes_{level}" for level in range(4)), *(f"filters_{level}" for level in range(4)), "phi"]
    picture = np.random.default_rng(7).integers(0, 256, (1, 3, *SIZE), dtype=np.uint8)  # not export's noise
    found = dict(zip(names, session.run(None, {"image": picture}), strict=True))
    with torch.inference_mode():
        features = model.network(torch.from_numpy(picture))
    np.testing.assert_allclose(found["phi"], features.phi, atol=1e-4)
    for level in range(4):
        np.testing.assert_allclose(found[f"classes_{level}"], features.class_logits[level], atol=1e-4)
        np.testing.assert_allclose(found[f"filters_{level}"], features.filter_features[level], atol=1e-4)
    assert features.phi.std() > 0.01
    assert set(deviations.values()) != {0.0}
    assert [file.name for file in tmp_path.iterdir()] == ["spinet.onnx"]


def test_engines_that_disagree_leave_no_file(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("spinet.speed.export.TOLERANCE", 1e-12)
    with pytest.raises(RuntimeError, match=r"spinet\.onnx: not written: onnxruntime's \w+ deviates"):
        export(untrained(), tmp_path / "spinet.onnx", size=SIZE)
    assert not list(tmp_path.iterdir())


def test_other_systems_are_refused(tmp_path):
    with pytest.raises(ValueError, match="only SPINet is exported, not PanopticFPN"):
        export(untrained(next(iter(BASELINES))), tmp_path / "other.onnx", size=SIZE)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeError, match=r"onnxruntime is missing: pip install 'spinet\[export\]'"):
        export(untrained(), tmp_path / "spinet.onnx", size=SIZE)


def test_the_package_does_not_need_them():
    code = "import sys, spinet; print([name for name in sys.modules if name.split('.')[0] in ('onnx', 'onnxruntime')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
