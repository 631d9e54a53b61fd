"""Data: those who ask for the same cache at the same time share one decoding, and its failure."""
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from subspace_match.networks import data


@pytest.fixture
def builds(monkeypatch):
    "A list that gets an entry for every decoding, each made slow enough that all others arrive while it runs."
    found, build = [], data._build

    def slow(*arguments):
        found.append(arguments)
        time.sleep(0.3)
        return build(*arguments)

    monkeypatch.setattr(data, "_build", slow)
    return found


def test_those_who_start_together_decode_once(builds, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: data.load_data("digits", root=tmp_path), range(4)))
    assert len(builds) == 1 and len({images.checksum for images in loaded}) == 1


def test_the_next_one_tries_where_the_first_failed(builds, tmp_path, monkeypatch):
    def fails(): raise ValueError("no luck")
    with monkeypatch.context() as patch:
        patch.setattr(data, "_digits", fails)
        with pytest.raises(ValueError, match="no luck"): data.load_data("digits", root=tmp_path)
    assert data.load_data("digits", root=tmp_path).classes == tuple("0123456789") and len(builds) == 2
