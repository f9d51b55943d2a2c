"""The metric `code_eval` of the harness's HumanEval tasks, with every program in the sandbox.

Stands in for the metric of that name of Hugging Face's `evaluate`, which is fetched from the Hub
and executes what the model wrote in a child of the evaluating process. pass@k is the unbiased
estimate of Chen et al. 2021 (arXiv 2107.03374, section 2.1), as it is there.
"""

import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from localism import egress
from localism.lmeval.sandbox import Outcome, Sandbox

NAME = "code_eval"
# Each program may take a gigabyte.
MOST_AT_ONCE = 4


class CodeEval:
    """What `evaluate.load("code_eval")` gives in the process that evaluates."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.outcomes: Counter[str] = Counter()
        """How the programs ended: passed, failed, timed out, killed."""
        self._sandbox = sandbox

    def compute(
        self, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int]
    ) -> tuple[dict[str, float], list[list[Outcome]]]:
        """Mean pass@k over problems, and how each program ended.

        references: the tests of each problem; predictions: programs for each. A k above the number
        of programs is left out.
        """
        outcomes = [
            self._run([f"{program}\n{test}" for program in programs])
            for test, programs in zip(references, predictions, strict=True)
        ]
        counts = [(len(ended), sum(one.kind == "passed" for one in ended)) for ended in outcomes]
        return {
            f"pass@{size}": sum(pass_at(size, *count) for count in counts) / len(counts)
            for size in k
            if all(total >= size for total, _ in counts)
        }, outcomes

    def _run(self, programs: Sequence[str]) -> list[Outcome]:
        with ThreadPoolExecutor(min(MOST_AT_ONCE, os.cpu_count() or 1)) as pool:
            ended = list(pool.map(self._sandbox.run, programs))
        self.outcomes.update(one.kind for one in ended)
        for attempt in (attempt for one in ended for attempt in one.refused):
            who = {"pid": None, "child": "evaluate: lm-eval", "program": "a model's answer"}
            egress.record({"time": time.time(), **who, **attempt})
        return ended


def pass_at(k: int, total: int, passed: int) -> float:
    """The chance that of k programs, drawn from `total` of which `passed` pass, one passes."""
    return 1 - math.comb(total - passed, k) / math.comb(total, k)


def instead_of_the_hub(metric: CodeEval) -> None:
    """Give the harness this metric: its HumanEval module loads it by name when it is imported.

    A folder code_eval/ in the working folder, which `evaluate` also finds, would have to be copied
    into a cache of modules and would run programs where the weights and the results are.
    """
    import evaluate

    def load(name: str, *arguments: Any, **keywords: Any) -> CodeEval:
        if name != NAME or arguments or keywords:
            raise ValueError(f"only the metric {NAME} is there, not {name}")
        return metric

    evaluate.load = load
