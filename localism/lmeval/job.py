"""What the evaluating process is told, and where it leaves what: shared by parent and child."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ERROR = "error.json"


@dataclass(frozen=True)
class Job:
    """One model, some tasks."""

    model: str
    """Its folder."""
    backend: str
    """hf or vllm."""
    device: str
    """cpu or cuda."""
    dtype: str
    """float32 on a CPU, where bfloat16 is slow; else auto, which is the folder's own."""
    batch_size: int | str
    """Requests at once; auto finds what fits."""
    max_length: int | None
    """Tokens of a prompt with its answer; None is the model's own."""
    tensor_parallel: int
    """GPUs that share the model; vLLM only."""
    gpu_memory: float
    """Share of a GPU's memory that vLLM takes."""
    limit: int | None
    """Items of each task, or of each subject."""
    task_files: str
    """Folder of the harness's task files."""
    tasks: dict[str, list[str]]
    """Task -> what the harness is asked for."""
    keys: dict[str, str]
    """Task -> what its result depends on, hashed."""
    longest_answers: dict[str, int]
    """Task -> tokens that its answers may have, where that is much."""
    results: str
    """Folder for a file a task."""
    samples: str
    """Folder for every prompt and answer, a JSONL file for each task of the harness."""
    entrance: list[str] | None
    """Into the sandbox; None runs programs without, by the user's leave."""
    versions: dict[str, str]
    """What a score depends on beside model and data; goes into every result."""

    def result(self, task: str) -> Path:
        """The file of a task that is done."""
        return Path(self.results) / f"{task}.json"

    def write(self, path: Path) -> None:
        """Write it for the child."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Job":
        """As write() wrote it."""
        return cls(**json.loads(path.read_text()))


def read_result(path: Path, key: str) -> dict[str, Any] | None:
    """A task's result, unless there is none or it was made from something else."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return result if result["key"] == key else None
