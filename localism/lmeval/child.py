"""The evaluating process: a job file -> a result file a task, as soon as the task is done.

Alone: python -m localism.lmeval.child JOB.json, in the environment of offline.child_environment.
The harness is used as a library, by the same call as its own command line.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from localism.errors import LocalismError
from localism.lmeval.code_eval import CodeEval, instead_of_the_hub
from localism.lmeval.job import ERROR, Job
from localism.lmeval.sandbox import Sandbox

PR_SET_PDEATHSIG = 1


def main(path: Path) -> None:
    # With the parent killed nobody reads the results, and its next start would be a second one.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    job = Job.read(path)
    try:
        evaluate(job)
    except LocalismError as error:
        said = {"problem": error.problem, "where": error.where, "fix": error.fix}
        (Path(job.results) / ERROR).write_text(json.dumps(said))
        sys.exit(error.exit_code)


def evaluate(job: Job) -> None:
    """All tasks of a job, one after the other, with one loaded model."""
    sandbox = Sandbox(None if job.entrance is None else tuple(job.entrance))
    metric = CodeEval(sandbox)
    instead_of_the_hub(metric)
    import lm_eval.evaluator
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import setup_logging

    setup_logging("INFO")
    # A report on the machine, of nearly a second a task, that nobody reads: job.versions has it.
    lm_eval.evaluator.add_env_info = lambda _: None
    # Without the harness's own ten thousand tasks, which take a quarter of a minute to list.
    manager = TaskManager(include_path=job.task_files, include_defaults=False)
    model = _load(job)
    for task in job.tasks:
        _write(job, task, _results(job, task, model, manager, metric))


def _load(job: Job) -> Any:
    from lm_eval.api.registry import get_model

    arguments: dict[str, Any] = {"pretrained": job.model, "dtype": job.dtype}
    if job.max_length:
        arguments["max_length"] = job.max_length
    if job.backend == "vllm":
        arguments |= {
            "tensor_parallel_size": job.tensor_parallel,
            "gpu_memory_utilization": job.gpu_memory,
        }
    settings = {"batch_size": job.batch_size, "device": job.device}
    return get_model(job.backend).create_from_arg_obj(arguments, settings)


def _results(job: Job, task: str, model: Any, manager: Any, metric: CodeEval) -> dict[str, Any]:
    from lm_eval.evaluator import simple_evaluate

    # The harness tries the metric out when it loads a task; those programs are not counted.
    manager.load(job.tasks[task])
    metric.outcomes.clear()
    answer_tokens = _shorter(job.longest_answers.get(task), model.max_length)
    found: dict[str, Any] = simple_evaluate(
        model=model,
        tasks=job.tasks[task],
        task_manager=manager,
        limit=job.limit,
        gen_kwargs={"max_gen_toks": answer_tokens} if answer_tokens else None,
        confirm_run_unsafe_code=True,
    )
    return found | {"outcomes": dict(metric.outcomes), "answer_tokens": answer_tokens}


def _shorter(wanted: int | None, context: int) -> int | None:
    """Half the model's context, where a whole answer would leave no room for its prompt."""
    return context // 2 if wanted and wanted >= context else None


def _write(job: Job, task: str, found: dict[str, Any]) -> None:
    """Samples first, the result last and in one step: a task with a result is done."""
    from lm_eval.utils import handle_non_serializable

    for name, samples in found.pop("samples").items():
        lines = (json.dumps(one, default=handle_non_serializable) for one in samples)
        (Path(job.samples) / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    kept = ("results", "versions", "n-shot", "n-samples", "outcomes", "answer_tokens")
    result = {
        "key": job.keys[task],
        "made_with": job.versions,
        "sandboxed": job.entrance is not None,
        **{name: found[name] for name in kept},
    }
    temporary = job.result(task).with_suffix(".new")
    temporary.write_text(json.dumps(result, indent=2, default=handle_non_serializable) + "\n")
    os.replace(temporary, job.result(task))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
