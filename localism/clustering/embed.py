"""Texts -> unit vectors. A corpus keeps the vector of every text, so none is embedded twice."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localism import weights
from localism.clustering.own_process import in_own_process
from localism.config import Embedder
from localism.errors import ConfigError
from localism.paths import embedded
from localism.records import stable_id
from localism.skill_names import readable
from localism.store import Store

Vectors = NDArray[np.float64]
Single = NDArray[np.float32]

# Texts between two writes to the corpus: a kill loses at most so many, about a minute on a CPU.
CHUNK = 10_000
# Names of a few tokens: on one core 16 to 128 a batch differ by 5 %, 256 is a tenth slower.
BATCH = {"cpu": 32, "cuda": 512}
OUT_OF_MEMORY = 'a smaller [embedder].batch_size, or [embedder].device = "cpu"'


def vectors_of(
    store: Store,
    texts: Sequence[str],
    embedder: Embedder,
    told: Callable[[int], None] = lambda done: None,
) -> Vectors:
    """Unit vectors of texts, float64, shape (len(texts), dimension); cached in the corpus.

    Only what the table embedding lacks is embedded. told(n) is called when n texts have a vector.
    A vector depends in its last bits on the texts that were in its batch; once it is in the corpus
    it stays the same.
    """
    keys = [text_hash(text) for text in texts]
    model = fingerprint(embedder)
    known = cached(store, model)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    done = len(texts) - len(missing)
    told(done)
    names = iter(missing)
    for chunk in _chunks(list(missing.values()), embedder):
        new = dict(zip(names, chunk, strict=False))
        store.add_rows(
            "embedding",
            [{"text_hash": k, "embedder": model, "vector": v} for k, v in new.items()],
        )
        store.flush()
        known |= new
        done += len(new)
        told(done)
    return _unit(np.array([known[key] for key in keys]))


def encode(texts: Sequence[str], embedder: Embedder) -> Vectors:
    """Unit vectors of texts without a corpus, float64, shape (len(texts), dimension)."""
    return _unit(np.vstack(list(_chunks(texts, embedder))))


def reads_whole(texts: Sequence[str], embedder: Embedder) -> list[bool]:
    """Whether the embedder reads each text to its end; of a longer one it would see the start.

    The limit is max_seq_length in sentence_bert_config.json, 256 word pieces for MiniLM (about 190
    English words), or else the model's own number of positions.
    """
    from tokenizers import Tokenizer

    folder = embedded(embedder.path)
    most = _longest(folder)
    if not (folder / "tokenizer.json").is_file():
        raise ConfigError(
            "the embedder has no tokenizer.json, so it is unknown what it reads of a text",
            where=f"[embedder].path = {embedder.path!r}",
            fix="save its fast tokenizer beside it, or set [curate].duplicates_by = 'words' and"
            " overlap_cosine = 1",
        )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    whole: list[bool] = []
    for start in range(0, len(texts), CHUNK):
        some = [readable(text) for text in texts[start : start + CHUNK]]
        whole += [len(encoding.ids) <= most for encoding in tokenizer.encode_batch(some)]
    return whole


def _longest(folder: Path) -> int:
    """Word pieces that the model reads."""
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("config.json", "max_position_embeddings"),
    ):
        path = folder / name
        if path.is_file() and (most := json.loads(path.read_text()).get(key)):
            return int(most)
    raise ConfigError(
        "the embedder does not say how much text it reads",
        where=str(folder),
        fix="sentence_bert_config.json with max_seq_length belongs beside its weights",
    )


def text_hash(text: str) -> str:
    """The key of a text in the table embedding; a skill name and its readable form are one text."""
    return stable_id(readable(text))


@functools.lru_cache(maxsize=8)
def fingerprint(embedder: Embedder) -> str:
    """What the vectors depend on: the weights, and how tokens are pooled (its *.json files)."""
    folder = embedded(embedder.path)
    modules = [(str(p.relative_to(folder)), p.read_text()) for p in sorted(folder.rglob("*.json"))]
    return stable_id(weights.fingerprint(folder), modules)


def cached(store: Store, model: str) -> dict[str, Single]:
    """Vectors of an embedder by text_hash, as they are in the corpus."""
    cursor = store.cursor()
    try:
        query = "SELECT text_hash, vector FROM embedding WHERE embedder = ?"
        table: Any = cursor.sql(query, params=[model]).to_arrow_table()
    finally:
        cursor.close()
    if not table.num_rows:
        return {}
    # By way of Arrow: as Python floats a hundred thousand vectors would take a gigabyte.
    numbers = table.column("vector").combine_chunks().flatten().to_numpy()
    vectors = numbers.reshape(table.num_rows, -1)
    return dict(zip(table.column("text_hash").to_pylist(), vectors, strict=True))


def _unit(vectors: NDArray[Any]) -> Vectors:
    """Of length one in float64. Cached and new ones both come in float32: the same result."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float64).tiny)


# ---- the model -------------------------------------------------------------------------------


def device(embedder: Embedder) -> str:
    """cpu or cuda; what auto means here. Raises ConfigError for a GPU that is not there."""
    import torch

    # Counting does not start CUDA in this process, which would keep GPU memory until it ends.
    has_gpu = torch.cuda.device_count() > 0
    if embedder.device == "cuda" and not has_gpu:
        raise ConfigError(
            "the embedder is to run on a GPU and torch sees none",
            where=f'[embedder].device = "cuda", torch {torch.__version__}',
            fix='[embedder].device = "auto" takes a GPU where there is one, "cpu" never',
        )
    if embedder.device == "auto":
        return "cuda" if has_gpu else "cpu"
    return embedder.device


def _chunks(texts: Sequence[str], embedder: Embedder) -> Iterator[Single]:
    """Vectors of the texts in order, CHUNK at a time."""
    if not texts:
        return
    readables = [readable(text) for text in texts]
    folder, where = embedded(embedder.path), device(embedder)
    batch = embedder.batch_size or BATCH[where]
    if where == "cuda":
        starts = range(0, len(readables), 10 * CHUNK)  # a process takes seconds to start
        for start in starts:
            some = readables[start : start + 10 * CHUNK]
            yield in_own_process(OUT_OF_MEMORY, embed_here, some, folder, where, batch)
        return
    model = _load(folder, where)
    for start in range(0, len(readables), CHUNK):
        yield _encode(model, readables[start : start + CHUNK], batch)


def embed_here(texts: Sequence[str], folder: Path, device: str, batch: int) -> Single:
    """Vectors from a model that is loaded for this call alone."""
    return _encode(_load(folder, device), texts, batch)


def _load(folder: Path, device: str) -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading the weights; ours is the one on the terminal
    return SentenceTransformer(str(folder), device=device, local_files_only=True)


def _encode(model: Any, texts: Sequence[str], batch: int) -> Single:
    vectors = model.encode(
        list(texts), batch_size=batch, show_progress_bar=False, convert_to_numpy=True
    )
    return _unit(vectors).astype(np.float32)
