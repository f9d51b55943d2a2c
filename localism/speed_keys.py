"""Keys of models.toml that change how fast a run goes and not what comes out."""

from collections.abc import Mapping
from typing import Any

# Keys that change how fast a run goes, or where things are, but not what comes out: a run may be
# continued with other values. Whole keys, or a table with all its keys. So may those of benchmarks,
# which come after everything else; what was judged stays judged.
SPEED_ONLY = frozenset(
    {
        "path",
        "endpoints",
        "api_key_file",
        "tensor_parallel",
        "data_parallel",
        "pipeline_parallel",
        "gpu_memory_utilization",
        "max_num_seqs",
        "start_timeout_seconds",
        "requests_in_flight",
        "device",
        "batch_size",
        "micro_batch",
        "gradient_checkpointing",
        "threads",
        "nodes",
        "rendezvous",
        "join_timeout_seconds",
        "silence_seconds",
        "beside",
        "keep",
        "licences",
        "suites",
        "staged",
        "structured",
        "verdict_tokens",
    }
)


def without_speed(table: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without these keys, at any depth."""
    return {
        key: without_speed(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if key not in SPEED_ONLY
    }
