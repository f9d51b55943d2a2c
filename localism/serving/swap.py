"""Another checkpoint into a running engine: seconds instead of a new start.

vLLM swaps weights without looking: a missing layer keeps its old values, a bad path leaves no
weights at all, and the prefix cache goes on serving the keys of the old ones. So everything is
checked before, serving/worker.py completes the reload, and the cache is reset after.
"""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localism import weights
from localism.errors import ConfigError, StageError

if TYPE_CHECKING:
    from localism.serving.client import Client

# What must be the same. The rest of config.json is not compared: a trainer of another version
# spells it differently (rope_theta becomes rope_parameters, defaults are written out), and what
# matters of it shows in the tensors' shapes. Weights are cast to the engine's type while they load;
# token ids that end a reply go with every request.
ARCHITECTURE = (
    "model_type",
    "architectures",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)
DRAIN_SECONDS = 60.0


async def load_weights(client: "Client", folder: Path) -> None:
    """Make the client's engine answer with the checkpoint in `folder`.

    Raises ConfigError, before the engine is touched, when the checkpoint does not fit it. When the
    reload itself fails the engine is started anew on the checkpoint, rather than losing the run.
    """
    import openai

    engine = client.engine
    assert engine is not None, "only a managed engine can swap its weights"
    fingerprint = engine.fingerprint(folder)
    if fingerprint == client.model_fingerprint:
        return
    check_fits(engine.first_folder, folder)
    outstanding = sum(endpoint.outstanding for endpoint in client.endpoints.all)
    assert not outstanding, f"{outstanding} requests would be answered by two models"
    engine.folder = folder  # whatever happens next, a start must load these
    if engine.generation:
        try:
            await _swap(client, folder)
        except (openai.APIError, StageError) as failed:
            await engine.restart(f"the weights of {folder} could not be swapped in: {failed}"[:500])
    client.stop_token_ids = sorted(end_tokens(folder) - end_tokens(engine.first_folder))
    client.use_fingerprint(fingerprint)


async def _swap(client: "Client", folder: Path) -> None:
    endpoint = await client.endpoints.pick()
    request = {"method": "swap_weights", "kwargs": {"folder": str(folder)}}
    await endpoint.post("/collective_rpc", request)
    await _reset_prefix_cache(client)


async def _reset_prefix_cache(client: "Client") -> None:
    """Forget what the old weights computed. Refused while a request runs, so wait for the last."""
    endpoint = await client.endpoints.pick()
    waited = 0.0
    while not (await endpoint.post("/reset_prefix_cache", {}))["success"]:
        if waited > DRAIN_SECONDS:
            raise StageError(
                "requests that were given up still run in the engine",
                where=endpoint.url,
                fix="run the same command again: what is finished is kept",
            )
        await asyncio.sleep(0.1)
        waited += 0.1


def check_fits(served: Path, checkpoint: Path) -> None:
    """Raise ConfigError unless the checkpoint has the architecture and tokenizer of the served."""
    where = "checkpoint"
    weights.check_model_folder(checkpoint, where)
    here = f"{where} = {str(checkpoint)!r}"
    old, new = _config(served), _config(checkpoint)
    different = sorted(key for key in ARCHITECTURE if old.get(key) != new.get(key))
    if different:
        raise _misfit(f"config.json differs in {', '.join(different)}", here, served)
    different = sorted(_different_shapes(served, checkpoint, bool(new.get("tie_word_embeddings"))))
    if different:
        shown = f"{', '.join(different[:3])}{', …' if len(different) > 3 else ''}"
        raise _misfit(f"tensors are missing, new or of another shape: {shown}", here, served)
    vocabularies = _vocabulary(served), _vocabulary(checkpoint)
    if None not in vocabularies and vocabularies[0] != vocabularies[1]:
        raise _misfit("its tokenizer has other tokens", here, served)


def _misfit(what: str, here: str, served: Path) -> ConfigError:
    return ConfigError(
        f"the checkpoint does not fit the engine: {what}",
        where=f"{here}, served: {served}",
        fix="give a checkpoint that was trained from the served model",
    )


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def _different_shapes(served: Path, checkpoint: Path, is_tied: bool) -> set[str]:
    old, new = weights.folder_shapes(served), weights.folder_shapes(checkpoint)
    different = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    # A tied output layer is the embedding: some savers write it a second time, some do not.
    return different - {"lm_head.weight"} if is_tied else different


def _vocabulary(folder: Path) -> Any:
    """Tokens and their ids; None for a tokenizer without tokenizer.json, which shapes vouch for."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    tokenizer = json.loads(path.read_text())
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}
    return tokenizer["model"]["vocab"], added


def end_tokens(folder: Path) -> set[int]:
    """Token ids that end a reply, as the model folder's configurations name them."""
    ends: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        value = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
        ends |= {value} if isinstance(value, int) else set(value or ())
    return ends
