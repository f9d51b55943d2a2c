"""A model folder on disk: is it whole, what is in it, a fingerprint.  Loads no weights."""

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

from localism.errors import ConfigError

_SMALL = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "special_tokens_map.json",
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_LFS_POINTER = b"version https://git-lfs"
_SAMPLE_BYTES = 64 * 1024
_SAMPLES = 64


def check_model_folder(folder: Path, where: str, *, needs_chat_template: bool = False) -> None:
    """Raise ConfigError, naming the fix, unless the folder holds a servable safetensors model."""
    found = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else None
    if found is None:
        raise ConfigError(
            "model folder does not exist",
            where=f"{where} = {str(folder)!r}",
            fix="give the path of a folder with config.json, tokenizer and *.safetensors",
        )
    here = f"{where} = {str(folder)!r} ({', '.join(found) or 'empty'})"
    if not (folder / "config.json").exists():
        raise ConfigError(
            "model folder has no config.json",
            where=here,
            fix="name the folder that holds config.json, not its parent or a file",
        )
    if not any((folder / name).exists() for name in _TOKENIZERS):
        raise ConfigError(
            "model folder has no tokenizer",
            where=here,
            fix="copy tokenizer.json beside config.json, or name a folder that has one",
        )
    if not list(folder.glob("*.safetensors")):
        raise ConfigError(
            "model folder has no safetensors weights",
            where=here,
            fix="convert the weights to safetensors; pickled weights are never loaded",
        )
    for path in sorted(folder.glob("*.json")):
        _check_json(path)
    _check_index(folder, here)
    for path in sorted(folder.glob("*.safetensors")):
        tensor_shapes(path)
    if needs_chat_template and not has_chat_template(folder):
        raise ConfigError(
            "an instruct model needs a chat template and this folder has none",
            where=here,
            fix="add chat_template.jinja, or name the instruct variant of the model",
        )


def _check_json(path: Path) -> None:
    try:
        json.loads(path.read_text())
    except ValueError as broken:
        raise ConfigError(
            f"{path.name} of a model folder is damaged",
            where=f"{path}: {broken}",
            fix="copy the file again and compare its checksum with the source",
        ) from None


def _check_index(folder: Path, here: str) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    shards = set(json.loads(index.read_text()).get("weight_map", {}).values())
    missing = sorted(name for name in shards if not (folder / name).exists())
    if missing:
        raise ConfigError(
            f"model folder lacks {len(missing)} of {len(shards)} weight files, for instance "
            f"{missing[0]}",
            where=here,
            fix="copy the missing files from the source",
        )


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer brings a chat template, in its own file or in its configuration."""
    if (folder / "chat_template.jinja").exists():
        return True
    config = folder / "tokenizer_config.json"
    return config.exists() and bool(json.loads(config.read_text()).get("chat_template"))


def special_tokens(folder: Path) -> set[str]:
    """The control tokens of a tokenizer, as text: '<|im_end|>', '</s>' and their kin."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return set()
    added = json.loads(path.read_text()).get("added_tokens", [])
    return {token["content"] for token in added if token.get("special")}


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in one safetensors file; raises what tensor_headers does."""
    return {name: tuple(tensor["shape"]) for name, tensor in tensor_headers(path).items()}


def tensor_headers(path: Path) -> dict[str, Any]:
    """What the header of a safetensors file says of each tensor: dtype, shape, data_offsets.

    Raises ConfigError when the header is torn or the file shorter than the header says.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
        if path.stat().st_size < end:
            raise ValueError(f"{end} bytes expected, {path.stat().st_size} found")
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as broken:
        raise _damaged(path, broken) from None
    return header


def _damaged(path: Path, broken: Exception) -> ConfigError:
    if is_lfs_pointer(path):
        return ConfigError(
            "safetensors file is a Git LFS pointer, not the weights",
            where=f"{path}: {path.stat().st_size} bytes of text",
            fix="`git lfs pull` where there is a network, or fetch the folder with `hf download`",
        )
    return ConfigError(
        "safetensors file is damaged",
        where=f"{path}: {broken}",
        fix="copy the file again and compare its checksum with the source",
    )


def is_lfs_pointer(path: Path) -> bool:
    """Whether git left a few lines about a large file in its place."""
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def folder_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a model folder."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        shapes |= tensor_shapes(path)
    return shapes


def parameter_count(folder: Path) -> int:
    """Number of parameters, from the safetensors headers."""
    return sum(math.prod(shape) for shape in folder_shapes(folder).values())


def total_bytes(folder: Path) -> int:
    """Size of the safetensors files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def fingerprint(folder: Path) -> str:
    """Sixteen hex digits that change when the model changes.

    Configuration and tokenizer are hashed whole; of each weight file its name, size, header and
    64 evenly spread samples of 64 KiB, so that 140 GB take a second rather than minutes and a
    file of up to 4 MiB is covered completely. Two trained checkpoints differ in every sample.
    """
    digest = hashlib.sha256()
    for name in _SMALL:
        if (folder / name).exists():
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes() + b"\0")
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for offset in range(0, size, max(_SAMPLE_BYTES, -(-size // _SAMPLES))):
                file.seek(offset)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
