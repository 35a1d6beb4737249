import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.components.finetune.models import tiny_bert
from tests.components.surrogates.worlds import blobs, share_right
from tests.support.tiny import tiny_task
from tracer_serve.components.contract import check_surrogate
from tracer_serve.components.factory import make_surrogate
from tracer_serve.components.finetune.recipe import Earlier, Tuned
from tracer_serve.components.persistence import save_component
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates.blend import Blend
from tracer_serve.components.surrogates.encoder import Encoder
from tracer_serve.config.base import Component
from tracer_serve.errors import ArtifactError, PluginError
from tracer_serve.types import Inputs, Labels


def quick(folder: Path, **params: Any) -> Encoder:
    """An encoder that learns the small worlds of these tests in a second."""
    usual: dict[str, Any] = {"folder": folder, "learning_rate": 3e-3, "backend": "onnx", "epochs": 4}
    return Encoder(**usual | params)


def tuned(encoder: Encoder) -> Tuned:
    assert encoder.tuned_ is not None
    return encoder.tuned_


def pairs(rows: int) -> tuple[Inputs, Labels]:
    """Pairs whose label is whether both sides name the same letter: neither side alone says it."""
    rng = np.random.default_rng(0)
    left, right = rng.choice(list("abcd"), (2, rows))
    right = np.where(rng.random(rows) < 0.4, left, right)
    texts = [(f"{a} {i}", str(b)) for i, (a, b) in enumerate(zip(left, right, strict=True))]
    return Inputs(texts, np.zeros((rows, 2), np.float32)), np.where(left == right, "same", "other")


@pytest.mark.parametrize("head", ["prototypes", "linear"])
def test_keeps_the_contract_of_a_surrogate(bert: Path, head: str) -> None:
    """Every check that a plugin has to pass, with either head."""
    check_surrogate(partial(quick, bert, head=head, epochs=6))


def test_reads_a_pair_as_one_sequence(bert: Path) -> None:
    """It learns whether two sides agree, which no vector of a single side contains."""
    inputs, labels = pairs(640)
    model = quick(bert, epochs=15, patience=15).fit(inputs, labels)
    assert share_right(model.predict_proba(inputs), model.classes_, labels) > 0.97


def test_stops_where_held_out_rows_no_longer_gain(bert: Path) -> None:
    """With labels that nothing explains it ends `patience` epochs after the best one, and is unsure of everything."""
    inputs, _ = blobs(rows=400)
    labels = np.random.default_rng(5).choice(["x", "y"], 400)
    model = quick(bert, epochs=30, patience=2).fit(inputs, labels)
    agreement = tuned(model).agreement
    assert len(agreement) < 30
    assert max(agreement[-2:]) < max(agreement)
    assert model.predict_proba(inputs).max(axis=1).mean() < 0.75


def test_ends_within_its_time(bert: Path) -> None:
    """A hundred epochs are cut off by `seconds`, and what there is is served."""
    inputs, labels = blobs(rows=300)
    model = quick(bert, epochs=100, patience=100, seconds=0.5).fit(inputs, labels)
    assert 1 <= len(tuned(model).agreement) < 100
    assert share_right(model.predict_proba(inputs), model.classes_, labels) > 0.8


def test_prototypes_know_the_labels_before_the_first_step(bert: Path) -> None:
    """With a rate of next to nothing the head that starts from class means is right, the linear one is not."""
    inputs, labels = blobs(rows=120)
    start, blank = (
        quick(bert, learning_rate=1e-9, epochs=1, head=h).fit(inputs, labels) for h in ("prototypes", "linear")
    )
    assert share_right(start.predict_proba(inputs), start.classes_, labels) > 0.9
    assert share_right(blank.predict_proba(inputs), blank.classes_, labels) < 0.7


def test_descriptions_are_traces_of_their_labels(bert: Path) -> None:
    """A label whose single trace says nothing is known by its description."""
    texts = ["about aaaa"] * 20 + ["number"]
    labels = np.array(["first"] * 20 + ["second"])
    asked = Inputs(["bbbb about"], np.zeros((1, 2), np.float32))
    given = Inputs(texts, np.zeros((21, 2), np.float32))
    described = quick(bert, epochs=20, batch_size=4, descriptions={"second": "bbbb about"}).fit(given, labels)
    plain = quick(bert, epochs=20, batch_size=4, descriptions={"second": "number"}).fit(given, labels)
    assert described.predict_proba(asked)[0, 1] > 0.5 > plain.predict_proba(asked)[0, 1]


def test_starts_from_an_earlier_one(bert: Path) -> None:
    """Without a step of its own it says what the earlier one said of the labels that both know."""
    inputs, labels = blobs(rows=300)
    before = quick(bert, head="linear").fit(inputs, labels)
    after = quick(bert, head="linear", learning_rate=1e-9, warm_epochs=1)
    after.earlier = Earlier(tuned(before).trained, before.classes_)
    more = np.where(np.arange(300) < 20, "a new label", labels)
    after.fit(inputs, more)
    shared = after.predict_proba(inputs)[:, np.isin(after.classes_, before.classes_)]
    assert share_right(shared, before.classes_, labels) > 0.97


def test_goes_on_only_from_one_that_saw_no_row_of_the_certificate(bert: Path, tmp_path: Path) -> None:
    """An earlier one trained on a single row that now calibrates is left alone; so is one of another kind."""
    inputs, labels = blobs(rows=60)
    before = quick(bert, epochs=1)
    before.resume(None, np.array([1, 2, 3], np.uint64), np.array([9], np.uint64))
    save_component(before.fit(inputs, labels), tmp_path / "before")

    def resumed(apart: list[int], **params: Any) -> Encoder:
        model = quick(bert, **params)
        model.resume(tmp_path / "before", np.array([4], np.uint64), np.array(apart, np.uint64))
        return model

    fresh = resumed([8, 9])
    assert fresh.earlier is not None
    assert fresh.seen_.tolist() == [1, 2, 3, 4]  # all rows that its weights have seen
    assert resumed([3, 9]).earlier is None
    assert resumed([8, 9], frozen_layers=1).earlier is None


def test_a_blend_lets_it_go_on_from_the_one_in_its_place(bert: Path, tmp_path: Path) -> None:
    """From a blend whose second member is an encoder it takes that one's weights; from another blend it takes none."""
    inputs, labels = blobs(rows=60)
    block = {"type": "encoder", "folder": str(bert), "learning_rate": 3e-3, "backend": "onnx", "epochs": 1}
    encoder, knn = (Component.model_validate(one) for one in (block, "knn"))
    before, without, fresh = (Blend(members=(knn, member)) for member in (encoder, knn, encoder))
    assert (before.resumes, without.resumes) == (True, False)
    before.resume(None, np.array([1, 2], np.uint64), np.array([9], np.uint64))
    save_component(before.fit(inputs, labels), tmp_path / "before")
    save_component(without.fit(inputs, labels), tmp_path / "without")
    for folder, goes_on in (("without", False), ("before", True)):
        fresh.resume(tmp_path / folder, np.array([4], np.uint64), np.array([9], np.uint64))
        member = fresh.fitted_[1]
        assert isinstance(member, Encoder)
        assert (member.earlier is not None) == goes_on
    fresh.fit(inputs, labels)
    assert isinstance(member, Encoder)
    assert member.seen_.tolist() == [1, 2, 4]


def test_an_earlier_one_of_another_model_is_refused(bert: Path, tmp_path: Path) -> None:
    """Tensors that do not fit are named, not bent."""
    inputs, labels = blobs(rows=60)
    before = quick(tiny_bert(tmp_path / "deep", layers=3), epochs=1).fit(inputs, labels)
    after = quick(bert)
    after.earlier = Earlier(tuned(before).trained, before.classes_)
    with pytest.raises(ArtifactError, match="does not fit the model"):
        after.fit(inputs, labels)


def test_frozen_layers_stay_as_they_were(bert: Path) -> None:
    """Frozen tensors are not saved: with one of two layers frozen, half of the tensors are."""
    inputs, labels = blobs(rows=60)
    half, whole = (len(tuned(quick(bert, epochs=1, frozen_layers=n).fit(inputs, labels)).trained) for n in (1, 0))
    assert 0.4 < half / whole < 0.6


def test_eight_bits_are_served_where_they_do_as_well(bert: Path) -> None:
    """`auto` takes them on an easy task; the graph shrinks, the labels stay."""
    inputs, labels = blobs(rows=400)
    small, full = (quick(bert, backend=backend).fit(inputs, labels) for backend in ("auto", "onnx"))
    assert tuned(small).served.eight_bits
    assert len(tuned(small).served.graph) < len(tuned(full).served.graph)
    assert share_right(small.predict_proba(inputs), small.classes_, labels) > 0.99


def test_serves_without_torch(bert: Path, tmp_path: Path) -> None:
    """Loaded in a process that cannot import torch, it predicts the same."""
    inputs, labels = pairs(80)
    model = quick(bert, epochs=2).fit(inputs, labels)
    save_component(model, tmp_path / "model")
    texts = list(inputs.texts[:5])
    program = (
        "import sys, json; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path; import numpy as np\n"
        "from tracer_serve.types import Inputs; from tracer_serve.components.surrogates.encoder import Encoder\n"
        f"texts = [tuple(pair) for pair in json.loads({json.dumps(json.dumps(texts))})]\n"
        f"found = Encoder.load(Path({str(tmp_path / 'model')!r})).predict_proba(Inputs(texts, np.zeros((5, 1))))\n"
        "print(json.dumps(found.tolist()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    np.testing.assert_allclose(json.loads(ran.stdout), model.predict_proba(inputs.take(np.arange(5))), atol=1e-5)


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    """A state that cannot be read is an error that names its folder."""
    (tmp_path / "encoder.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        Encoder.load(tmp_path)


def test_a_model_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    """It is said what is missing, before anything is trained."""
    folder = tiny_bert(tmp_path / "slow")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"no tokenizer\.json"):
        quick(folder).fit(*blobs(rows=30))


def test_wrong_parameters_are_refused_by_name() -> None:
    """The signature is the schema of the YAML block."""
    with pytest.raises(PluginError, match="learning_rate"):
        surrogates.build("encoder", {"learning_rate": 3})


def test_the_recipe_survives_the_disk(tmp_path: Path) -> None:
    """A model that was never fitted, or knows one label, comes back with its parameters."""
    model = Encoder(folder=tmp_path, revision="main", descriptions={"a": "first"})
    save_component(model, tmp_path / "model")
    assert Encoder.load(tmp_path / "model").recipe == replace(model.recipe, source=(str(tmp_path), "main"))


def test_a_blend_weighs_it_by_the_rows_that_it_held_out(bert: Path) -> None:
    """The rows that the blend asks it about are those of which it kept its best epoch."""
    inputs, labels = pairs(640)
    block = {"type": "encoder", "folder": str(bert), "learning_rate": 3e-3, "backend": "onnx", "epochs": 15}
    members = tuple(Component.model_validate(one) for one in ("logreg", block | {"patience": 15}))
    model = Blend(members=members).fit(inputs, labels)
    encoder = model.fitted_[1]
    assert isinstance(encoder, Encoder)
    assert 30 <= len(encoder.held_out_) < 100
    assert share_right(
        encoder.predict_proba(inputs.take(encoder.held_out_)), model.classes_, labels[encoder.held_out_]
    ) == max(tuned(encoder).agreement)
    assert share_right(model.predict_proba(inputs), model.classes_, labels) > 0.97


def test_the_task_fills_in_its_embedders_model_and_its_labels(bert: Path, tmp_path: Path) -> None:
    """What the YAML says once need not be said again: the embedder's folder and the meaning of the labels."""
    labels = {"red": "a warm colour", "blue": "a cold one"}
    embedder = {"type": "sentence_transformers", "folder": str(bert)}
    own = {"type": "encoder", "model": "other/model", "descriptions": {"red": "mine"}}
    blended = {"type": "blend", "members": ["knn", "encoder"]}
    task = tiny_task(tmp_path, labels=labels, embedder=embedder, surrogates=["encoder", own, blended])
    filled, given, blend = (make_surrogate(task, i) for i in range(3))
    assert isinstance(blend, Blend)
    assert blend.context == {"source": (str(bert), None), "descriptions": labels}
    assert isinstance(filled, Encoder)
    assert isinstance(given, Encoder)
    assert (filled.recipe.source, filled.recipe.descriptions) == ((str(bert), None), labels)
    assert (given.recipe.source, given.recipe.descriptions) == (("other/model", None), {"red": "mine"})
