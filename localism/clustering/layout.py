"""Vectors -> a two-dimensional map, for people to look at."""

import numpy as np
from numpy.typing import NDArray

# t-SNE takes about 4 ms a skill on one core, 20 s here; more dots than this show only an outline.
TSNE_UP_TO = 5_000
# Fewer have no neighbourhoods worth keeping.
TSNE_FROM = 30
PERPLEXITY = 30.0
DIGITS = 3


def places(vectors: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Coordinates (n, 2) of unit vectors; the same vectors and seed give the same map.

    t-SNE started from the principal components, which keeps far apart what is far apart; the two
    components alone where there are few or very many.
    """
    from sklearn.decomposition import PCA

    n = len(vectors)
    if n < 3:
        return np.column_stack([np.arange(n), np.zeros(n)])
    if not TSNE_FROM <= n <= TSNE_UP_TO:
        # Covariance of the columns: exact, and its cost grows with n alone.
        flat = PCA(2, svd_solver="covariance_eigh").fit_transform(vectors)
    else:
        from sklearn.manifold import TSNE

        tsne = TSNE(2, init="pca", perplexity=min(PERPLEXITY, n / 4), random_state=seed)
        flat = tsne.fit_transform(vectors)
    rounded: NDArray[np.float64] = np.round(flat.astype(np.float64), DIGITS)
    return rounded + 0.0  # of two zeros the one without a minus
