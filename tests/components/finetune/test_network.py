"""The network that is trained, and the files that it starts from."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.components.finetune.models import tiny_bert
from tracer_serve.components.finetune.network import Network
from tracer_serve.errors import ArtifactError


def _lies(content: bytes, kind: str) -> bytes:
    """A safetensors file whose header lies."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if kind == "header length":
        return (1 << 62).to_bytes(8, "little") + content[8:]
    first = next(name for name in header if name != "__metadata__")
    header[first] |= {"shape": [1 << 40]} if kind == "shape" else {"data_offsets": [0, 1 << 40]}
    changed = json.dumps(header).encode()
    return len(changed).to_bytes(8, "little") + changed + content[8 + length :]


@pytest.mark.parametrize("kind", ["header length", "shape", "offsets"])
def test_hostile_safetensors_are_refused(tmp_path: Path, kind: str) -> None:
    """A header that lies about its length, a shape or an offset is an error, in a model as in a warm start."""
    classes = np.array(["a", "b"])
    network = Network(tiny_bert(tmp_path / "bert"), classes, frozen_layers=0, cosine=False)
    with pytest.raises(ArtifactError, match="the earlier encoder's tensors cannot be read"):
        network.resume(_lies(network.trained(), kind), classes)
    weights = tmp_path / "bert" / "model.safetensors"
    weights.write_bytes(_lies(weights.read_bytes(), kind))
    with pytest.raises(ArtifactError, match="bert cannot be read"):
        Network(tmp_path / "bert", classes, frozen_layers=0, cosine=False)
