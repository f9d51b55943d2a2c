"""Vectors -> HDBSCAN clusters: exactly, over a graph of neighbours, or on a GPU.

exact  the hdbscan library compares every pair: time grows with the square of the skills.
fast   the same clustering on the graph of each skill's NEIGHBOURS nearest: the spanning tree of
       all pairs hardly ever needs another edge (benchmarks/cluster.py measures the agreement).
cuml   RAPIDS' HDBSCAN, where it is installed.
Nothing is projected to fewer dimensions first: that is what costs clusters of names their quality.
"""

import importlib.util
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from localism.clustering.neighbours import NONE, nearest
from localism.clustering.own_process import in_own_process
from localism.config import Cluster as ClusterConfig
from localism.errors import ConfigError

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]

AUTO_EXACT_UP_TO = 3_000
NEIGHBOURS = 16
FARTHEST = 2.0
"""Distance of opposite unit vectors."""


class Found(NamedTuple):
    """What HDBSCAN says."""

    labels: Labels
    """Cluster of each skill; -1 is noise."""
    strengths: Vectors
    """Membership strength of each skill, 0 to 1."""
    persistence: Vectors
    """Of each cluster."""
    relative_validity: float | None
    """DBCV approximated on the spanning tree; None without clusters, and from cuml."""


def chosen_method(config: ClusterConfig, skills: int) -> str:
    """hdbscan, fast or cuml. Raises ConfigError for cuml where it is not installed."""
    if config.method == "cuml" and importlib.util.find_spec("cuml") is None:
        raise ConfigError(
            "cuML is not installed",
            where='[cluster].method = "cuml"',
            fix='install RAPIDS cuML for your CUDA, or set [cluster].method = "fast": the CPU'
            " clusters 100,000 names in about a minute",
        )
    if config.method != "auto":
        return config.method
    return "hdbscan" if skills <= AUTO_EXACT_UP_TO else "fast"


def find_clusters(vectors: Vectors, config: ClusterConfig, method: str, seed: int) -> Found:
    """HDBSCAN of unit vectors (n, dimension) by one of the methods; deterministic.

    'leaf' is the default selection because 'eom' collapses into one giant cluster on names, and
    the Euclidean distance of unit vectors orders pairs as the cosine does.
    """
    # Too few neighbours to speak of density, or too few skills for a cluster.
    if len(vectors) <= max(config.min_samples, config.min_cluster_size - 1):
        return Found(np.full(len(vectors), -1), np.zeros(len(vectors)), np.zeros(0), None)
    if method == "cuml":
        out_of_memory = '[cluster].method = "fast" needs no GPU'
        found: Found = in_own_process(out_of_memory, _cuml, vectors, _parameters(config))
        return found
    if method == "fast":
        return _on_tree(spanning_tree(vectors, config.min_samples, seed), config)
    return _on_all_pairs(vectors, config)


def _parameters(config: ClusterConfig) -> dict[str, Any]:
    return {
        "min_cluster_size": config.min_cluster_size,
        "min_samples": config.min_samples,
        "cluster_selection_method": config.selection,
    }


def _on_all_pairs(vectors: Vectors, config: ClusterConfig) -> Found:
    import hdbscan

    model = hdbscan.HDBSCAN(
        **_parameters(config), metric="euclidean", core_dist_n_jobs=1, gen_min_span_tree=True
    ).fit(vectors)
    edges = model.minimum_spanning_tree_.to_numpy()
    validity = relative_validity(model.labels_, edges)
    return Found(model.labels_, model.probabilities_, model.cluster_persistence_, validity)


def _on_tree(edges: Vectors, config: ClusterConfig) -> Found:
    import hdbscan
    from scipy.sparse import coo_array

    both_ways = np.vstack([edges, edges[:, [1, 0, 2]]])
    tree = coo_array((both_ways[:, 2], both_ways[:, :2].astype(np.int64).T)).tocsr()
    # The tree's distances hold min_samples already.
    parameters = _parameters(config) | {"metric": "precomputed", "min_samples": 1}
    model = hdbscan.HDBSCAN(**parameters, core_dist_n_jobs=1).fit(tree)
    validity = relative_validity(model.labels_, edges)
    return Found(model.labels_, model.probabilities_, model.cluster_persistence_, validity)


def relative_validity(labels: Labels, edges: Vectors) -> float | None:
    """DBCV (Moulavi et al. 2014) approximated on the spanning tree, -1 to 1; None without clusters.

    `edges` are rows of (from, to, distance). A cluster's sparseness is its longest edge, its
    separation the shortest edge to another cluster (twice the longest of all where there is none);
    noise counts as zero. It is hdbscan's relative_validity_, which its sparse input cannot give.
    Compare it only between clusterings of the same vectors.
    """
    sizes = np.bincount(labels[labels >= 0])
    if not len(sizes):
        return None
    one, other = labels[edges[:, 0].astype(int)], labels[edges[:, 1].astype(int)]
    distances = edges[:, 2]
    within = (one >= 0) & (one == other)
    between = (one >= 0) & (other >= 0) & (one != other)
    sparseness = np.zeros(len(sizes))
    np.maximum.at(sparseness, one[within], distances[within])
    separation = np.full(len(sizes), 2 * distances.max())
    for side in (one, other):
        np.minimum.at(separation, side[between], distances[between])
    validity = (separation - sparseness) / np.maximum(separation, sparseness)
    return float(sizes @ validity / len(labels))


def spanning_tree(vectors: Vectors, min_samples: int, seed: int) -> Vectors:
    """Minimum spanning tree of the mutual reachability among near neighbours: (from, to, distance).

    Distances are Euclidean. Groups that no neighbour connects are joined at FARTHEST, the last
    merge of the hierarchy, where no cluster can depend on it.
    """
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    graph = _reachability(vectors, min_samples, seed)
    tree = minimum_spanning_tree(graph).tocoo()
    _, group_of = connected_components(tree, directed=False)
    first = np.unique(group_of, return_index=True)[1]
    rows = np.concatenate([tree.row, first[:-1]])
    columns = np.concatenate([tree.col, first[1:]])
    distances = np.concatenate([tree.data, np.full(len(first) - 1, FARTHEST)])
    return np.column_stack([rows, columns, distances])


def _reachability(vectors: Vectors, min_samples: int, seed: int) -> Any:
    """Sparse upper triangle: max(distance, both core distances) of each skill and its nearest."""
    from scipy.sparse import coo_array

    n = len(vectors)
    indices, cosines = nearest(vectors, max(NEIGHBOURS, min_samples), seed)
    # Not zero, which in a sparse matrix is no edge; merged skills are farther apart anyway.
    distances = np.sqrt((2 - 2 * cosines).clip(1e-12))
    core = np.sort(distances, axis=1)[:, min_samples - 1]
    rows, columns = np.repeat(np.arange(n), indices.shape[1]), indices.ravel()
    reach = np.maximum(distances.ravel(), np.maximum(core[rows], core[columns]))
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    _, once = np.unique(low * n + high, return_index=True)
    once = once[cosines.ravel()[once] != NONE]
    return coo_array((reach[once], (low[once], high[once])), shape=(n, n)).tocsr()


def _cuml(vectors: Vectors, parameters: dict[str, Any]) -> Found:
    """In a process of its own, for it keeps GPU memory as long as that lives."""
    from cuml.cluster import HDBSCAN

    model = HDBSCAN(**parameters, metric="euclidean", output_type="numpy")
    model.fit(vectors.astype(np.float32))
    return Found(
        np.asarray(model.labels_, dtype=np.int64),
        np.asarray(model.probabilities_, dtype=np.float64),
        np.asarray(model.cluster_persistence_, dtype=np.float64),
        None,
    )
