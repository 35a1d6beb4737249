"""Fixtures of the surrogates: a tiny encoder."""

from pathlib import Path

import pytest

from tests.components.finetune.models import tiny_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights."""
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")
