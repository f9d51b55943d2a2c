"""The tasks: where their data come from on the Hub, what is read of it, how the harness calls them.

Prompts, metrics and versions stay the harness's own; only the place of the data is changed.
"""

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from localism.errors import UsageError

HARNESS = "0.4.13"
"""The version of lm-evaluation-harness that this table describes."""

Row = Mapping[str, Any]
Check = Callable[[Row], str | None]


@dataclass(frozen=True)
class Task:
    """One benchmark."""

    name: str
    """As users and the harness call it."""
    hub: str
    """Repository of its data on the Hugging Face Hub."""
    config: str | None
    """Configuration there; None where there is one, or one for each of `subjects`."""
    split: str
    """What is evaluated."""
    shots: str | None
    """Split of the worked examples that its prompts begin with."""
    columns: tuple[str, ...]
    """What the harness reads."""
    check: Check
    """What is wrong with a row, in words; None for a right one."""
    templates: Mapping[str, str]
    """Its tasks in the harness: name -> file below lm_eval/tasks."""
    items: int
    """How many the whole benchmark has."""
    subjects: tuple[str, ...] = ()
    """Configurations that are evaluated one by one and averaged by size."""
    longest_answer: int | None = None
    """Tokens that its answers may have where that is more than the harness's usual 256."""
    runs_code: bool = False
    """Whether what the model writes is executed."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have to be staged."""
        return (self.split,) if self.shots is None else (self.split, self.shots)

    @property
    def configs(self) -> tuple[str | None, ...]:
        """Configurations that can be staged."""
        return self.subjects or (self.config,)

    @property
    def download(self) -> str:
        """The command for a machine with a network that fetches its data."""
        return f"hf download --repo-type dataset {self.hub} --local-dir DIR/{self.name}"


# ---- what a right row looks like -----------------------------------------------------------------


def _first(*problems: str | None) -> str | None:
    return next((problem for problem in problems if problem), None)


def _texts(row: Row, *names: str) -> str | None:
    """The columns hold text; it may be empty, as ctx_b of HellaSwag is at times."""
    wrong = [name for name in names if not isinstance(row[name], str)]
    return f"{wrong[0]} is {row[wrong[0]]!r}, not a text" if wrong else None


def _list(values: Any, name: str, count: int | None = None) -> str | None:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return f"{name} is no list of texts"
    if count is not None and len(values) != count:
        return f"{name} has {len(values)} entries, not {count}"
    return None


def _among(value: Any, allowed: Iterable[Any], name: str) -> str | None:
    right = list(allowed)
    # True and 1.0 equal 1, and the harness would take neither for an index.
    is_right = any(type(value) is type(one) and value == one for one in right)
    return None if is_right else f"{name} is {value!r}, not one of {right}"


def _arc(row: Row) -> str | None:
    choices = row["choices"] if isinstance(row["choices"], dict) else {}
    problem = _first(_texts(row, "question"), _list(choices.get("label"), "choices.label"))
    return problem or _first(
        _list(choices.get("text"), "choices.text", len(choices["label"])),
        _among(row["answerKey"], choices["label"], "answerKey"),
    )


def _winogrande(row: Row) -> str | None:
    gap = None if "_" in str(row["sentence"]) else "sentence has no _ to fill in"
    return _first(
        _texts(row, "sentence", "option1", "option2"),
        gap,
        _among(row["answer"], ("1", "2"), "answer"),
    )


def _piqa(row: Row) -> str | None:
    return _first(_texts(row, "goal", "sol1", "sol2"), _among(row["label"], (0, 1), "label"))


def _mmlu(row: Row) -> str | None:
    return _first(
        _texts(row, "question"),
        _list(row["choices"], "choices", 4),
        _among(row["answer"], range(4), "answer"),
    )


def _truthfulqa(row: Row) -> str | None:
    targets = row["mc1_targets"] if isinstance(row["mc1_targets"], dict) else {}
    choices, labels = targets.get("choices"), targets.get("labels")
    problem = _first(_texts(row, "question"), _list(choices, "mc1_targets.choices"))
    # The harness takes the first choice for the right one, whatever the labels say.
    if problem is None and labels != [1] + [0] * (len(choices or []) - 1):
        problem = "mc1_targets.labels is not 1 for the first choice and 0 for all others"
    return problem


def _gsm8k(row: Row) -> str | None:
    last = None if "#### " in str(row["answer"]) else "answer does not end in '#### NUMBER'"
    return _first(_texts(row, "question", "answer"), last)


def _race(row: Row) -> str | None:
    try:
        problems = ast.literal_eval(row["problems"])
        is_right = bool(problems) and all(
            one["answer"] in "ABCD"
            and isinstance(one["question"], str)
            and len(one["options"]) == 4
            for one in problems
        )
    except (ValueError, SyntaxError, TypeError, KeyError):
        is_right = False
    said = "problems is not the text of a list of question, options (four) and answer (A to D)"
    return _first(_texts(row, "article"), None if is_right else said)


def _hellaswag(row: Row) -> str | None:
    return _first(
        _texts(row, "activity_label", "ctx_a", "ctx_b"),
        _list(row["endings"], "endings", 4),
        _among(str(row["label"]), "0123", "label"),
    )


def _humaneval(row: Row) -> str | None:
    names = _texts(row, "task_id", "prompt", "test", "entry_point")
    if names is None and f"def {row['entry_point']}(" not in row["prompt"]:
        return "prompt does not define entry_point"
    return names or (None if "def check(" in row["test"] else "test has no function check")


# ---- the table -----------------------------------------------------------------------------------

SUBJECTS = tuple(
    """abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology
    college_chemistry college_computer_science college_mathematics college_medicine college_physics
    computer_security conceptual_physics econometrics electrical_engineering elementary_mathematics
    formal_logic global_facts high_school_biology high_school_chemistry
    high_school_computer_science high_school_european_history high_school_geography
    high_school_government_and_politics high_school_macroeconomics high_school_mathematics
    high_school_microeconomics high_school_physics high_school_psychology high_school_statistics
    high_school_us_history high_school_world_history human_aging human_sexuality international_law
    jurisprudence logical_fallacies machine_learning management marketing medical_genetics
    miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory
    professional_accounting professional_law professional_medicine professional_psychology
    public_relations security_studies sociology us_foreign_policy virology
    world_religions""".split()
)

ALL = (
    Task(
        "arc_challenge", "allenai/ai2_arc", "ARC-Challenge", "test", None,
        ("question", "choices", "answerKey"), _arc,
        {"arc_challenge": "arc/arc_challenge.yaml"}, 1172,
    ),
    Task(
        "winogrande", "allenai/winogrande", "winogrande_xl", "validation", None,
        ("sentence", "option1", "option2", "answer"), _winogrande,
        {"winogrande": "winogrande/default.yaml"}, 1267,
    ),
    Task(
        "piqa", "baber/piqa", None, "validation", None,
        ("goal", "sol1", "sol2", "label"), _piqa,
        {"piqa": "piqa/piqa.yaml"}, 1838,
    ),
    Task(
        "mmlu", "cais/mmlu", None, "test", "dev",
        ("question", "choices", "answer"), _mmlu,
        {f"mmlu_{name}": f"mmlu/default/mmlu_{name}.yaml" for name in SUBJECTS}, 14042,
        subjects=SUBJECTS,
    ),
    Task(
        "truthfulqa_mc1", "truthfulqa/truthful_qa", "multiple_choice", "validation", None,
        ("question", "mc1_targets"), _truthfulqa,
        {"truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml"}, 817,
    ),
    Task(
        "gsm8k", "openai/gsm8k", "main", "test", "train",
        ("question", "answer"), _gsm8k,
        {"gsm8k": "gsm8k/gsm8k.yaml"}, 1319,
    ),
    Task(
        "race", "EleutherAI/race", "high", "test", None,
        ("article", "problems"), _race,
        {"race": "race/race.yaml"}, 1045,
    ),
    Task(
        "hellaswag", "Rowan/hellaswag", None, "validation", None,
        ("activity_label", "ctx_a", "ctx_b", "endings", "label"), _hellaswag,
        {"hellaswag": "hellaswag/hellaswag.yaml"}, 10042,
    ),
    Task(
        "humaneval", "openai/openai_humaneval", "openai_humaneval", "test", None,
        ("task_id", "prompt", "test", "entry_point"), _humaneval,
        {"humaneval": "humaneval/humaneval.yaml", "humaneval_10": "humaneval/humaneval_64.yaml"},
        164, longest_answer=1024, runs_code=True,
    ),
)  # fmt: skip
TASKS = {task.name: task for task in ALL}


def known(name: str) -> Task:
    """The task of a name; UsageError names what there is."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, 1)
    raise UsageError(
        f"there is no task {name!r} here" + (f"; is it {near[0]}?" if near else ""),
        where="tasks of lm-eval",
        fix=f"take of: {', '.join(TASKS)}",
    )
