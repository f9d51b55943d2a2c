"""What the trainer saved -> a folder that engines serve, and beside it what resuming needs.

The trainer keeps float32 weights. A checkpoint holds them in the precision that the engine loads
anyway, which halves the disk for bf16 students and changes no answer. LoRA is merged into the base:
every later stage, and every other tool, sees one kind of model folder (docs/decisions/0008).
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localism import weights
from localism.errors import ConfigError
from localism.training.job import ADAPTER, RESUME, Job

TRAINER_ONLY = (
    "trainer_state.json",
    "training_args.bin",  # a pickle of paths that nothing reads
    "optimizer*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*",
    "pytorch_model_fsdp*",
    "adapter_*",
    "README.md",
)
INDEX = "model.safetensors.index.json"


def lay_out(written: Path, whole: Path, job: Job, model: Any, *, resumable: bool) -> None:
    """Fill the new folder `whole` from the trainer's folder `written`, which is used up.

    `model` is the trainer's; its configuration is what LoRA's folder lacks.
    """
    whole.mkdir()
    own = {path for pattern in TRAINER_ONLY for path in written.glob(pattern)}
    for path in set(written.iterdir()) - own:
        if path.suffix != ".safetensors":
            shutil.copy2(path, whole / path.name)
    if job.method == "lora":
        merge(Path(job.model), written, whole, job)
        model.get_base_model().config.save_pretrained(whole)
        model.get_base_model().generation_config.save_pretrained(whole)
        (whole / ADAPTER).mkdir()
        for path in written.glob("adapter_*"):
            shutil.copy2(path, whole / ADAPTER / path.name)
    else:
        for path in written.glob("*.safetensors"):
            in_dtype(path, whole / path.name, job.weights_dtype)
    _name_dtype(whole, job.weights_dtype)
    if not resumable:
        shutil.rmtree(written)
        return
    (written / "training_args.bin").unlink()
    if is_sharded(written):  # FSDP loads its own file instead
        for path in written.glob("*.safetensors"):
            path.unlink()
    written.rename(whole / RESUME)


def is_sharded(state: Path) -> bool:
    """Whether a trainer's state was written by FSDP."""
    return any(state.glob("pytorch_model_fsdp*"))


def in_dtype(source: Path, target: Path, dtype: str) -> None:
    """The same tensors in another precision; the same file where there is nothing to change."""
    import torch
    from safetensors.torch import load_file, save_file

    wanted = getattr(torch, dtype)
    tensors = load_file(source)
    if all(tensor.dtype == wanted for tensor in tensors.values()):
        _link(source, target)
        return
    changed = {name: _cast(tensor, wanted) for name, tensor in tensors.items()}
    save_file(changed, target, metadata={"format": "pt"})


def _cast(tensor: Any, dtype: Any) -> Any:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _link(source: Path, target: Path) -> None:
    """Two names for one file, so that resuming costs no second copy; a copy where that fails."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _name_dtype(folder: Path, dtype: str) -> None:
    """Let the configuration and the index say what the weights now are."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if config.get("dtype") != dtype:
        path.write_text(json.dumps(config | {"dtype": dtype}, indent=2, sort_keys=True) + "\n")
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text())
        index["metadata"]["total_size"] = weights.total_bytes(folder)
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


# ---- LoRA ----------------------------------------------------------------------------------


def merge(base: Path, adapter: Path, folder: Path, job: Job) -> None:
    """The base's weight files with B A (alpha / rank) added, in float32 before the last rounding.

    From the files rather than in the model that is training, which adding and taking away again
    would change by rounding.
    """
    import torch
    from safetensors.torch import load_file, save_file

    added = load_file(adapter / "adapter_model.safetensors")
    scale, dtype = job.lora_alpha / job.lora_rank, getattr(torch, job.weights_dtype)
    for path in sorted(base.glob("*.safetensors")):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            inner, outer = (added.get(key) for key in adapter_keys(name))
            if inner is not None and outer is not None:
                tensor = tensor.float() + scale * (outer.float() @ inner.float())
            tensors[name] = _cast(tensor, dtype)
        save_file(tensors, folder / path.name, metadata={"format": "pt"})
    if (base / INDEX).exists():
        shutil.copy2(base / INDEX, folder / INDEX)


def adapter_keys(name: str) -> tuple[str, str]:
    """What PEFT calls the two matrices of a weight of the base."""
    layer = f"base_model.model.{name.removesuffix('.weight')}"
    return f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"


def check_mergeable(model: Any, base: Path, where: str) -> None:
    """Every layer with an adapter is a linear one whose weight is in the base's files.

    Raises ConfigError before the first step, rather than after the first epoch.
    """
    import torch

    known: Mapping[str, Any] = weights.folder_shapes(base)
    layers = {
        name.removeprefix("base_model.model."): module.base_layer
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    }
    odd = [
        name
        for name, layer in layers.items()
        if not isinstance(layer, torch.nn.Linear) or f"{name}.weight" not in known
    ]
    if odd or not layers:
        raise ConfigError(
            f"LoRA can't be merged into layer {odd[0]}" if odd else "LoRA would train no layer",
            where=where,
            fix="name linear layers of this model in [train].lora_targets, or use method = 'full'",
        )
