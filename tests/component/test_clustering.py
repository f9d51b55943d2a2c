"""The parts of clustering on real MiniLM and real HDBSCAN, and on the lists of the paper."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localism.clustering import duplicates, layout, neighbours, quality, skills
from localism.clustering.duplicates import merge_duplicates
from localism.clustering.embed import cached, embed_here, encode, fingerprint, vectors_of
from localism.clustering.methods import (
    AUTO_EXACT_UP_TO,
    chosen_method,
    find_clusters,
    relative_validity,
)
from localism.clustering.own_process import in_own_process
from localism.clustering.skills import cluster_names
from localism.config import Cluster, Embedder
from localism.errors import ConfigError, MachineError
from localism.paths import embedded

pytestmark = pytest.mark.component

LIST = Path(__file__).parents[1] / "data" / "skills_sda.txt"
NAMES = sorted({n.lower() for n in LIST.read_text().splitlines() if not n.startswith("#")})


@pytest.fixture(scope="module")
def listed() -> np.ndarray:
    """Vectors of the paper's 1,131 distinct SDA skills."""
    return encode(NAMES, Embedder())


def jittered(vectors: np.ndarray, n: int) -> np.ndarray:
    """n unit vectors in groups around real ones."""
    rng = np.random.default_rng(7)
    around = vectors[rng.integers(len(vectors), size=n)]
    moved = around + rng.normal(size=around.shape) * 0.035
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    from sklearn.metrics import adjusted_rand_score

    return adjusted_rand_score(quality.singled(one), quality.singled(other))


# ---- vectors ---------------------------------------------------------------------------------


def test_only_texts_without_a_vector_are_embedded(new_context) -> None:
    store = new_context().store
    told: list[int] = []
    first = vectors_of(store, ["tax_law", "origami"], Embedder(), told.append)
    assert told == [0, 2] and np.allclose(
        first, encode(["tax law", "origami"], Embedder()), atol=1e-6
    )
    store.execute("UPDATE embedding SET vector = list_reverse(vector)")  # to be told apart
    again = vectors_of(store, ["origami", "sailing", "tax law", "tax_law"], Embedder())
    assert np.allclose(again[[0, 2, 3]], first[[1, 0, 0]][:, ::-1], atol=1e-12)
    assert np.allclose(again[1], encode(["sailing"], Embedder())[0], atol=1e-6)
    assert np.allclose(np.linalg.norm(again, axis=1), 1, atol=1e-12)
    assert store.value("SELECT count(*) FROM embedding") == 3


def test_another_embedder_has_vectors_of_its_own(new_context, tmp_path) -> None:
    import shutil

    store = new_context().store
    vectors_of(store, ["origami"], Embedder())
    copy = shutil.copytree(embedded("embedded:minilm"), tmp_path / "minilm")
    same = Embedder(path=str(copy))
    assert fingerprint(same) == fingerprint(Embedder())
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("true", "false", 1))
    fingerprint.cache_clear()
    assert fingerprint(same) != fingerprint(Embedder())
    assert cached(store, fingerprint(same)) == {}


def test_in_a_process_of_its_own_the_vectors_are_the_same() -> None:
    folder = embedded("embedded:minilm")
    texts = ["origami", "tax law"]
    there = in_own_process("", embed_here, texts, folder, "cpu", 32)
    assert np.allclose(there, embed_here(texts, folder, "cpu", 32), atol=1e-6)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_out() -> None:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("function", [die, run_out])
def test_a_process_without_enough_memory_is_an_error_with_the_way_out(
    function: Callable[[], Any],
) -> None:
    with pytest.raises(MachineError) as caught:
        in_own_process("a smaller batch", function)
    assert caught.value.fix == "a smaller batch"


def test_a_gpu_that_is_not_there_is_an_error_with_the_way_out() -> None:
    import torch

    if torch.cuda.device_count():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError) as caught:
        encode(["origami"], Embedder(device="cuda"))
    assert '"auto"' in caught.value.fix


# ---- neighbours and methods ------------------------------------------------------------------


def test_cells_find_the_neighbours_that_comparing_all_finds(listed, monkeypatch) -> None:
    vectors = jittered(listed, 4000)
    _, exact = neighbours.nearest(vectors, 5, 0)
    pairs = set(zip(*neighbours.close_pairs(vectors, 0.65, 1.1, 0), strict=True))
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 100)
    indices, found = neighbours.nearest(vectors, 5, 0)
    assert np.mean(np.isclose(np.sort(found), np.sort(exact))) > 0.97
    rows = np.arange(4000)[:, None]
    assert np.allclose(np.einsum("nd,nkd->nk", vectors, vectors[indices]), found)
    assert (indices != rows).all()
    near = set(zip(*neighbours.close_pairs(vectors, 0.65, 1.1, 0), strict=True))
    assert near <= pairs and len(near) > 0.97 * len(pairs) > 1000


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("selection", ["leaf", "eom"])
def test_fast_finds_what_the_exact_method_finds(size: int, selection: str, listed) -> None:
    config = Cluster(min_cluster_size=size, selection=selection)
    exact = find_clusters(listed, config, "hdbscan", 0)
    fast = find_clusters(listed, config, "fast", 0)
    assert agreement(exact.labels, fast.labels) == 1
    assert np.allclose(exact.strengths, fast.strengths)
    assert fast.relative_validity == pytest.approx(exact.relative_validity)


def test_groups_that_no_neighbour_connects_are_no_obstacle() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(8)[:4].repeat(30, axis=0)
    vectors = centres + rng.normal(size=centres.shape) * 0.01
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = find_clusters(vectors, Cluster(min_cluster_size=10), "hdbscan", 0).labels
    fast = find_clusters(vectors, Cluster(min_cluster_size=10), "fast", 0).labels
    assert agreement(exact, fast) == 1


def test_relative_validity_is_that_of_hdbscan(listed) -> None:
    import hdbscan

    model = hdbscan.HDBSCAN(
        min_cluster_size=3, min_samples=2, cluster_selection_method="leaf", gen_min_span_tree=True
    ).fit(listed[:300])
    edges = model.minimum_spanning_tree_.to_numpy()
    assert relative_validity(model.labels_, edges) == pytest.approx(model.relative_validity_)
    assert relative_validity(np.full(300, -1), edges) is None


def test_auto_is_exact_for_lists_and_fast_beyond() -> None:
    assert chosen_method(Cluster(), AUTO_EXACT_UP_TO) == "hdbscan"
    assert chosen_method(Cluster(), AUTO_EXACT_UP_TO + 1) == "fast"
    assert chosen_method(Cluster(method="hdbscan"), 10**6) == "hdbscan"


def test_cuml_where_it_is_not_installed_is_an_error_with_the_way_out() -> None:
    with pytest.raises(ConfigError) as caught:
        chosen_method(Cluster(method="cuml"), 10)
    assert '"fast"' in caught.value.fix


def test_a_list_of_near_copies_is_merged_within_bounded_memory(monkeypatch) -> None:
    monkeypatch.setattr(duplicates, "LARGEST_COMPONENT", 50)
    names = [f"word{n}" for n in range(200)]
    angles = np.linspace(0, 3, 200)
    arc = np.column_stack([np.cos(angles), np.sin(angles)])
    groups = merge_duplicates(names, arc, 0.9)
    assert sorted(i for group in groups for i in group) == list(range(200))
    assert len(groups) < 20
    for group in groups:
        assert (arc[group] @ arc[group].T).min() >= 0.9 - 1e-9


# ---- noise, quality, map ---------------------------------------------------------------------


def test_noise_policies_give_homes_and_keep_what_hdbscan_said(listed) -> None:
    counts = dict.fromkeys(NAMES, 1)
    found = {
        policy: cluster_names(counts, listed, Cluster(noise=policy, absorb_cosine=0.6))
        for policy in ("rare", "absorb", "assign-all")
    }
    rare = {policy: sum(s.is_rare for s in c.skills) for policy, c in found.items()}
    assert rare["rare"] > rare["absorb"] > rare["assign-all"] == 0
    raw = [[s.hdbscan_label for s in c.skills] for c in found.values()]
    assert raw[0] == raw[1] == raw[2] and -1 in raw[0]
    assert found["rare"].persistence == found["assign-all"].persistence
    vector_of = dict(
        zip([s.name for s in found["absorb"].skills], found["absorb"].vectors, strict=True)
    )
    core: dict[str, list[np.ndarray]] = {}
    for skill in found["absorb"].skills:
        if skill.hdbscan_label >= 0:
            core.setdefault(skill.cluster, []).append(vector_of[skill.name])
    names = list(core)
    centroids = np.array([np.mean(core[name], axis=0) for name in names])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    for skill in found["absorb"].skills:
        if skill.hdbscan_label < 0:
            cosines = centroids @ vector_of[skill.name]
            assert skill.is_rare == (cosines.max() < 0.6)
            assert skill.is_rare or skill.cluster == names[cosines.argmax()]
            assert skill.strength == 0


def test_the_defaults_on_the_papers_list_are_no_worse_than_measured(listed) -> None:
    found = find_clusters(listed, Cluster(), "hdbscan", 0)
    assert 260 <= found.labels.max() + 1 <= 280
    assert (found.labels < 0).mean() <= 0.33
    assert quality.stability(listed, Cluster(), 0) >= 0.80
    clustering = cluster_names(dict.fromkeys(NAMES, 1), listed, Cluster())
    measures = {m.metric: m for m in quality.measures(clustering, Cluster(), 0)}
    assert len(clustering.skills) == pytest.approx(1085, abs=10)
    assert measures["silhouette"].value >= 0.33
    assert [m.warning for m in measures.values() if m.warning] == []


@pytest.mark.parametrize(
    ("config", "metric", "fix"),
    [
        ({"min_samples": 5, "min_cluster_size": 5}, "noise_share", "min_samples = 1"),
        ({"min_samples": 5, "min_cluster_size": 5}, "stability", "min_cluster_size = 2"),
        ({"min_samples": 3, "selection": "eom"}, "largest_share", 'selection = "leaf"'),
        ({"min_cluster_size": 200}, "clusters", "min_cluster_size = 2"),
        ({"merge_cosine": 1.0, "NEAR_SHARE": 0.05}, "near_duplicate_rate", "merge_cosine to 0.86"),
    ],
)
def test_what_looks_bad_is_said_with_what_to_change(
    config: dict[str, Any], metric: str, fix: str, listed, monkeypatch
) -> None:
    if "NEAR_SHARE" in config:
        monkeypatch.setattr(quality, "NEAR_SHARE", config.pop("NEAR_SHARE"))
    section = Cluster(**config)
    clustering = cluster_names(dict.fromkeys(NAMES, 1), listed, section)
    measures = {m.metric: m for m in quality.measures(clustering, section, 0)}
    assert fix in (measures[metric].warning or "nothing")


def test_large_inputs_are_sampled_and_the_sample_is_that_of_the_seed(listed, monkeypatch) -> None:
    monkeypatch.setattr(quality, "STABILITY_SKILLS", 300)
    monkeypatch.setattr(quality, "SILHOUETTE_SKILLS", 200)
    monkeypatch.setattr(quality, "NEAR_SKILLS", 200)
    clustering = cluster_names(dict.fromkeys(NAMES, 1), listed, Cluster())
    one, again, other = (quality.measures(clustering, Cluster(), seed) for seed in (1, 1, 2))
    assert one == again != other
    whole = {"silhouette": 0.345, "near_duplicate_rate": 0.075}
    for measure in one:
        if measure.metric in whole:
            assert measure.value == pytest.approx(whole[measure.metric], abs=0.08)


def test_the_same_seed_gives_the_same_clusters_names_and_map(listed) -> None:
    counts = dict.fromkeys(NAMES[:400], 1)
    one, other = (cluster_names(counts, listed[:400], Cluster(method="fast"), 3) for _ in range(2))
    assert one.skills == other.skills and one.keywords == other.keywords
    assert np.array_equal(layout.places(one.vectors, 3), layout.places(other.vectors, 3))
    backwards = cluster_names(dict(reversed(counts.items())), listed[:400][::-1], Cluster())
    assert {s.name: s.cluster for s in backwards.skills} == {s.name: s.cluster for s in one.skills}


def test_near_skills_are_near_on_the_map(listed) -> None:
    vectors = listed[:300]
    flat = layout.places(vectors, 0)
    cosines = vectors @ vectors.T - 2 * np.eye(300)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    nearest = distances[np.arange(300), cosines.argmax(axis=1)]
    assert np.median(nearest) < 0.25 * np.median(distances)


@pytest.mark.parametrize("n", [1, 2, 3, 29, 30])
def test_a_few_skills_have_a_map_too(n: int, listed) -> None:
    flat = layout.places(listed[:n], 0)
    assert flat.shape == (n, 2) and np.isfinite(flat).all() and len(np.unique(flat, axis=0)) == n


def test_without_a_cluster_no_policy_finds_a_home(listed) -> None:
    labels = np.array([0, 0, -1])
    nobody = np.array([-1, -1, -1])
    for policy in ("rare", "absorb", "assign-all"):
        config = Cluster(noise=policy)
        assert list(skills.homes(listed[:3], nobody, config)) == [-1, -1, -1]
    assert list(skills.homes(listed[:3], labels, Cluster(noise="assign-all"))) == [0, 0, 0]
