"""models.toml and command-line overrides -> one frozen, validated Config.

Everything a run depends on is in here and nowhere else; nothing below this module reads the
environment, TOML or the command line. Checks that need no model are made before any is loaded.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from localism import weights
from localism.errors import ConfigError, UsageError
from localism.paths import EMBEDDED, embedded
from localism.prompts import load_pack
from localism.records import stable_id

# Keys that change how fast a run goes, or where things are, but not what comes out: a run may be
# continued with other values. Whole keys, or a table with all its keys.
SPEED_ONLY = frozenset(
    {
        "path",
        "endpoints",
        "api_key_file",
        "tensor_parallel",
        "data_parallel",
        "gpu_memory_utilization",
        "max_num_seqs",
        "start_timeout_seconds",
        "requests_in_flight",
        "device",
        "batch_size",
        "micro_batch",
        "gradient_checkpointing",
        "threads",
    }
)

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of models.toml: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Served(Section):
    """A model that answers requests: served here by vLLM, or by servers that run already."""

    path: str = ""
    """Folder with config.json, tokenizer and safetensors; or embedded:teacher, embedded:student."""
    endpoints: tuple[str, ...] = ()
    """Base URLs of servers that run already, for instance http://node1:8000/v1."""
    served_name: str = ""
    """Model name at the endpoints; empty takes the first that they list."""
    api_key_file: str = ""
    """File that holds the endpoints' API key."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Weights in the engine."""
    max_model_len: Count | None = None
    """Longest conversation in tokens; the model's own maximum when absent."""
    max_num_seqs: Count = 256
    """Sequences that the engine decodes at once."""
    tensor_parallel: Count = 1
    """GPUs that share one copy of the weights."""
    data_parallel: Count = 1
    """Copies of the model."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of each GPU that vLLM may take."""
    trust_remote_code: bool = False
    """Run Python code that lies in the model folder."""
    start_timeout_seconds: Count = 900
    """How long the server may take until it is healthy."""
    engine_arguments: tuple[str, ...] = ()
    """Further vLLM command-line arguments."""


class Teacher(Served):
    """Writes skills and data."""


class Judge(Served):
    """Compares two answers."""

    kind: Literal["letter", "likelihood"] = "letter"
    """letter: it names the better of two shown answers. likelihood: the answer that it finds more
    probable, a token, wins; for judges too small to compare. The report says which."""
    same_as: Literal["", "teacher"] = ""
    """'teacher' lets the teacher judge; the report then warns of self-preference."""


class Embedder(Section):
    """Turns skill names into vectors."""

    path: str = f"{EMBEDDED}minilm"
    """sentence-transformers folder; embedded:minilm is all-MiniLM-L6-v2."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it runs. On cuda it keeps its GPU memory until the run's process ends."""
    batch_size: Count = 256
    """Texts a batch."""


class Student(Served):
    """The base model that is fine-tuned, and how it answers."""

    temperature: Annotated[float, Field(ge=0)] = 0.9
    """Of the answers that are judged."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the answers that are judged."""
    max_tokens: Count = 2048
    """Longest answer, in tokens."""


class Prompts(Section):
    """Which prompts are used."""

    pack: str = "paper"
    """A folder under prompts/, or a path."""


class Extract(Section):
    """Stage extract: what the teacher is asked for."""

    method: Literal["sda", "sdd", "both"] = "sda"
    """sda asks the model itself; sdd labels seed examples; both merges the two."""
    topics: Count = 150
    """Topics wanted."""
    skills_per_topic: Count = 8
    """Skills wanted from each topic."""
    query_types: Count = 18
    """Query types wanted; 1 to 18 in the paper."""
    list_length: Count = 20
    """Items asked for in one prompt."""
    samples: Count = 4
    """Replies sampled from each prompt."""
    max_rounds: Count = 12
    """Most rounds of prompts until the wanted number is reached."""
    seeds: tuple[str, ...] = ()
    """JSONL files of instruction (and response), for sdd; embedded:seeds.jsonl ships."""
    seed_examples: Count = 5200
    """How many of them are labelled."""


class Cluster(Section):
    """Stage cluster: which labels are the same skill, and which skills belong together."""

    merge_cosine: Fraction = 0.90
    """Names at least this alike are one skill (complete linkage)."""
    min_cluster_size: Annotated[int, Field(ge=2)] = 2
    """Of HDBSCAN."""
    min_samples: Count = 1
    """Of HDBSCAN."""


class MixSection(Section):
    """Stage mix: how many k-tuples of skills."""

    k: Count = 2
    """Skills in one example."""
    unit: Literal["skill", "cluster"] = "skill"
    """Draw single skills, or clusters of them."""
    train: Count = 4000
    """Examples planned for training."""
    dev: Annotated[int, Field(ge=2)] = 100
    """Held out to pick the checkpoint."""
    test: Annotated[int, Field(ge=2)] = 200
    """Held out to measure the picked checkpoint."""


class Generate(Section):
    """Stage generate: the teacher's conversations."""

    requests_in_flight: Count | None = None
    """Conversations at once; the engine's max_num_seqs when absent."""


class Curate(Section):
    """Stage curate: the gates."""

    skills: Literal["judge", "words", "off"] = "judge"
    """Both skills present: asked of the judge, looked up as words, or not checked."""
    near_duplicate: Fraction = 0.85
    """Instructions whose word 3-gram sets overlap (Jaccard) at least this much are duplicates."""


class Train(Section):
    """Stage train: TRL's SFTTrainer."""

    epochs: Count = 15
    """Passes over the data; one checkpoint each."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    """Peak; cosine to zero."""
    batch: Count = 64
    """Examples a step over all devices."""
    micro_batch: Count = 8
    """Examples a device and forward pass; batch must be a multiple of devices x micro_batch."""
    warmup: Fraction = 0.03
    """Share of the steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's."""
    max_length: Count = 4096
    """Tokens of prompt and response together; longer examples are cut and counted."""
    gradient_checkpointing: bool = True
    """Less memory, more time."""
    threads: Count | None = None
    """CPU threads; only where there is no GPU."""


class Pick(Section):
    """Stage pick: which checkpoint is best on dev."""

    both_orders: bool = True
    """Judge every pair in both orders and average; off imitates AlpacaEval's single order."""
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples behind every interval."""


class Config(Section):
    """A whole models.toml."""

    seed: int = 0
    """Of everything that is drawn."""
    teacher: Teacher
    judge: Judge
    embedder: Embedder = Embedder()
    student: Student
    prompts: Prompts = Prompts()
    extract: Extract = Extract()
    cluster: Cluster = Cluster()
    mix: MixSection = MixSection()
    generate: Generate = Generate()
    curate: Curate = Curate()
    train: Train = Train()
    pick: Pick = Pick()

    def served(self, role: str) -> Served:
        """The section that says how this role is served; the judge may be the teacher."""
        if role == "judge" and self.judge.same_as:
            return self.teacher
        served: Served = getattr(self, role)
        return served

    def both_orders(self) -> bool:
        """Whether each pair is judged twice; likelihoods have no order."""
        return self.pick.both_orders and self.judge.kind == "letter"

    def recipe(self) -> dict[str, Any]:
        """What the outcome depends on: everything but SPEED_ONLY keys."""
        return _without_speed(self.model_dump(mode="json"))

    def recipe_hash(self) -> str:
        """Stable id of the recipe."""
        return stable_id(self.recipe())

    def is_rehearsal(self) -> bool:
        """Whether a model of the miniature takes part."""
        return any(
            self.served(role).path.startswith(EMBEDDED) for role in ("teacher", "judge", "student")
        )


def _without_speed(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_speed(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if key not in SPEED_ONLY
    }


# ---- reading -------------------------------------------------------------------------------


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read models.toml, apply KEY=VALUE overrides, resolve paths, check everything that is cheap.

    Raises ConfigError (file, table and key in `where`) or UsageError (a malformed override).
    """
    try:
        table = tomllib.loads(path.read_text())
    except OSError as unread:
        raise ConfigError(
            "no models.toml here",
            where=f"{path} ({unread.strerror})",
            fix="write one with `localism init --for h100` (or laptop), or pass --models FILE",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise ConfigError(
            "models.toml is not valid TOML", where=f"{path}: {broken}", fix="mend that line"
        ) from None
    config = validate(apply_overrides(table, overrides), str(path))
    config = _resolve(config, path.resolve().parent)
    check_files(config, str(path))
    return config


def validate(table: dict[str, Any], source: str) -> Config:
    """A Config from plain tables; the first mistake becomes a ConfigError."""
    try:
        config = Config.model_validate(table)
    except ValidationError as wrong:
        raise _explain(wrong, table, source) from None
    for problem, key, fix in _contradictions(config):
        raise ConfigError(problem, where=f"{source} {key}", fix=fix)
    return config


def apply_overrides(table: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The table with every KEY=VALUE set; UsageError for one that is malformed."""
    for override in overrides:
        _apply(table, override)
    return table


def _apply(table: dict[str, Any], override: str) -> None:
    """Set one dotted key: train.epochs=3. The value is TOML, or text if it is not."""
    key, sign, text = override.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise UsageError(
            "override is not of the form KEY=VALUE",
            where=f"--set {override}",
            fix="for instance --set train.epochs=3",
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"{part} is a value, not a table",
                where=f"--set {override}",
                fix="docs/models-toml.md lists every key",
            )
    table[parts[-1]] = value


def _explain(wrong: ValidationError, table: dict[str, Any], source: str) -> ConfigError:
    error = wrong.errors()[0]
    path = [str(part) for part in error["loc"]]
    key = _spell(path)
    fix = "docs/models-toml.md lists every key with its meaning"
    if error["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(path[-1], known, 1, 0.5)
        fix = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return ConfigError(f"unknown key {path[-1]}", where=f"{source} {key}", fix=fix)
    if error["type"] == "missing":
        return ConfigError(
            f"{path[-1]} is missing",
            where=f"{source} {key}",
            fix=f"add it; `localism init` writes a complete file. {fix}",
        )
    message = error["msg"][0].lower() + error["msg"][1:]
    return ConfigError(
        f"{path[-1]}: {message}", where=f"{source} {key} = {error['input']!r}", fix=fix
    )


def _spell(path: list[str]) -> str:
    """['train', 'epochs'] -> '[train].epochs'; ['seed'] -> 'seed'."""
    return path[0] if len(path) == 1 else f"[{path[0]}].{'.'.join(path[1:])}"


def _known_keys(path: list[str]) -> list[str]:
    section: type[BaseModel] = Config
    for part in path:
        annotation = section.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
    return list(section.model_fields)


def _contradictions(config: Config) -> list[tuple[str, str, str]]:
    """(problem, key, fix) of values that are each fine and cannot be together."""
    train, judge, extract = config.train, config.judge, config.extract
    found = []
    for role in ("teacher", "judge", "student"):
        section: Served = getattr(config, role)
        if role == "judge" and judge.same_as:
            if judge.path or judge.endpoints:
                found.append(
                    (
                        "the judge has a model of its own and same_as",
                        "[judge].same_as",
                        "keep one of the two",
                    )
                )
        elif bool(section.path) == bool(section.endpoints):
            found.append(
                (
                    f"the {role} needs a path or endpoints, and not both",
                    f"[{role}]",
                    "path = a model folder on disk, endpoints = servers that run already",
                )
            )
    if config.student.endpoints:
        found.append(
            (
                "the student is fine-tuned here and cannot sit behind endpoints",
                "[student].endpoints",
                "give its folder as path",
            )
        )
    if train.batch % train.micro_batch:
        found.append(
            (
                f"batch {train.batch} is not a multiple of micro_batch {train.micro_batch}",
                "[train].batch",
                f"use a multiple of {train.micro_batch}, or another micro_batch",
            )
        )
    if extract.method != "sda" and not extract.seeds:
        found.append(
            (
                f"method {extract.method!r} needs seed examples",
                "[extract].seeds",
                "name a JSONL file with an instruction in each row",
            )
        )
    skills = extract.topics * extract.skills_per_topic
    if extract.method == "sda" and config.mix.k > skills:
        found.append(
            (
                f"k = {config.mix.k} is larger than the {skills} skills that are asked for",
                "[mix].k",
                "use a smaller k, or ask for more skills in [extract]",
            )
        )
    return found


def _resolve(config: Config, base: Path) -> Config:
    """Paths become absolute: relative ones are relative to models.toml."""

    def absolute(path: str) -> str:
        is_name = not path or path.startswith(EMBEDDED)
        return path if is_name else str((base / Path(path).expanduser()).resolve())

    changes: dict[str, Any] = {}
    for role in ("teacher", "judge", "student", "embedder"):
        section = getattr(config, role)
        update = {"path": absolute(section.path)}
        if role != "embedder":
            update["api_key_file"] = absolute(section.api_key_file)
        changes[role] = section.model_copy(update=update)
    if (base / config.prompts.pack / "pack.toml").exists():
        changes["prompts"] = config.prompts.model_copy(
            update={"pack": absolute(config.prompts.pack)}
        )
    seeds = tuple(absolute(path) for path in config.extract.seeds)
    changes["extract"] = config.extract.model_copy(update={"seeds": seeds})
    return config.model_copy(update=changes)


def check_files(config: Config, source: str) -> None:
    """Model folders, prompt pack and seed files exist and are whole. Loads no weights."""
    for role in ("teacher", "judge", "student"):
        section: Served = getattr(config, role)
        if section.path:
            weights.check_model_folder(
                embedded(section.path),
                f"{source} [{role}].path",
                needs_chat_template=role != "student",
            )
        if section.api_key_file and not Path(section.api_key_file).is_file():
            raise ConfigError(
                "the file with the endpoints' API key does not exist",
                where=f"{source} [{role}].api_key_file = {section.api_key_file!r}",
                fix="give the path of a file that holds the key and nothing else",
            )
    folder = embedded(config.embedder.path)
    if not (folder / "modules.json").exists():
        raise ConfigError(
            "not a sentence-transformers folder (modules.json is missing)",
            where=f"{source} [embedder].path = {config.embedder.path!r}",
            fix="name the folder of a sentence-transformers model, or embedded:minilm",
        )
    pack = load_pack(config.prompts.pack)
    if config.curate.skills == "judge" and not pack.has("shows_skill"):
        raise ConfigError(
            f"prompt pack {pack.name} cannot ask whether a skill is shown",
            where=f"{source} [curate].skills = 'judge'",
            fix="add shows_skill.txt to the pack, or use skills = 'words' or 'off'",
        )
    for path in config.extract.seeds:
        if not embedded(path).is_file():
            raise ConfigError(
                "seed file does not exist",
                where=f"{source} [extract].seeds = {path!r}",
                fix="give the path of a JSONL file",
            )
