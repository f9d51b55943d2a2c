"""A valid Config -> values that cannot be together, and files that are not there, with their fix.

All of it is looked at before a model is loaded, and no weights are read: a mistake that a later
stage would find after hours is found here.
"""

import json
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from localism import weights
from localism.benchmark_files import read_prompts
from localism.config import Config, Served
from localism.errors import ConfigError
from localism.paths import EMBEDDED, embedded
from localism.prompting.packs import load_pack, pack_folder
from localism.taxonomy import read_taxonomy
from localism.toml_mistakes import likely

SHIPPED = ("teacher", "student", "minilm", "seeds.jsonl")
TABLES = Config.model_fields.keys() - {"seed"}
PARALLEL = {
    "--tensor-parallel-size": "tensor_parallel",
    "-tp": "tensor_parallel",
    "--data-parallel-size": "data_parallel",
    "-dp": "data_parallel",
    "--pipeline-parallel-size": "pipeline_parallel",
    "-pp": "pipeline_parallel",
    "--data-parallel-backend": "nodes",
    "--nnodes": "nodes",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "--max-model-len": "max_model_len",
    "--max-num-seqs": "max_num_seqs",
}


class Origin(NamedTuple):
    """Where the values of a configuration were written."""

    file: str
    """A models.toml, or the recipe.json of a run."""
    overrides: tuple[str, ...] = ()
    """KEY=VALUE of the command line, which win over the file; the last of a key counts."""

    def where(self, key: str, *others: str) -> str:
        """A dotted key as its writer finds it: on the command line if it was set there.

        Of `others`, keys that play a part, those of the command line are named too.
        """
        override = self._override(key)
        words = [_at(override, key) if override else f"{self.file} {spelled(key)}"]
        named = {override}
        for other in others:
            override = self._override(other)
            if override not in named and override:
                words.append(_at(override, other))
                named.add(override)
        return ", with ".join(words)

    def _override(self, key: str) -> str:
        """The override that set the key, a table that it is in, or a part of it; or nothing."""
        for override in reversed(self.overrides):
            name = override.partition("=")[0].strip()
            if f"{key}.".startswith((f"{name}.", f"{name}[")) or name.startswith(f"{key}."):
                return override
        return ""


def _at(override: str, key: str) -> str:
    return f"--set {override}: {spelled(key)}"


def spelled(key: str) -> str:
    """'train.epochs' -> '[train].epochs', 'train' -> '[train]'; 'seed' stays 'seed'."""
    table, dot, rest = key.partition(".")
    return f"[{table}]{dot}{rest}" if dot or table in TABLES else key


class Contradiction(NamedTuple):
    """Values that are each fine and cannot be together."""

    problem: str
    """In words."""
    keys: tuple[str, ...]
    """Dotted; the first is the one to change."""
    fix: str
    """What to write instead."""


def contradictions(config: Config) -> Iterator[Contradiction]:
    """Every contradiction that shows without looking at a file."""
    for role in ("teacher", "judge", "student"):
        yield from _of_served(config, role)
    yield from _of_extract(config)
    yield from _of_numbers(config)


def _of_served(config: Config, role: str) -> Iterator[Contradiction]:
    section: Served = getattr(config, role)
    keys = (f"{role}.path", f"{role}.endpoints")
    if role == "judge" and config.judge.same_as:
        if section.path or section.endpoints:
            problem = "the judge has a model of its own and same_as"
            yield Contradiction(problem, ("judge.same_as", *keys), "keep one of the two")
    elif bool(section.path) == bool(section.endpoints):
        yield Contradiction(
            f"the {role} needs a path or endpoints, and not both",
            (role, *keys),
            "path = a model folder on disk, endpoints = servers that run already",
        )
    if role == "student" and section.endpoints:
        problem = "the student is fine-tuned here and cannot sit behind endpoints"
        yield Contradiction(problem, keys[1:], "give its folder as path")
    for word in section.engine_arguments:
        key = PARALLEL.get(word.partition("=")[0])
        if key:
            # localism counts and chooses GPUs by these, and must know of them.
            problem = f"{word.partition('=')[0]} is for localism to pass on"
            yield Contradiction(
                problem, (f"{role}.engine_arguments",), f"write [{role}].{key} instead"
            )
    if section.nodes > 1 and (role == "student" or section.endpoints):
        who = "the student's" if role == "student" else "a server's behind endpoints"
        yield Contradiction(
            f"nodes is {section.nodes}, and {who} engine is not spread over machines here",
            (f"{role}.nodes", f"{role}.endpoints"),
            "nodes = 1; only the teacher's and the judge's own engines span machines",
        )
    if section.nodes == 1 and (section.pipeline_parallel or 1) > 1:
        yield Contradiction(
            "pipeline_parallel is for engines over several machines",
            (f"{role}.pipeline_parallel", f"{role}.nodes"),
            "leave it away: on one machine tensor_parallel is the quicker way; or raise nodes",
        )
    for number, url in enumerate(section.endpoints):
        if not _is_base_url(url):
            fix = "for instance http://node1:8000/v1; a key belongs into api_key_file"
            key = f"{role}.endpoints[{number}]"
            yield Contradiction(f"{url!r} is no base URL of a server", (key,), fix)


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_plain = bool(parts.hostname) and parts.username is None and parts.port != 0
        return is_plain and parts.scheme in ("http", "https")
    except ValueError:  # a port that is none, a bracket that is not closed
        return False


def _of_extract(config: Config) -> Iterator[Contradiction]:
    extract, k = config.extract, config.mix.k
    if extract.method != "sda" and not extract.seeds:
        yield Contradiction(
            f"method {extract.method!r} needs seed examples",
            ("extract.seeds", "extract.method"),
            "name a file or folder of examples, each with an instruction",
        )
    # A taxonomy has as many topics as it lists, or so many of each subject.
    skills = extract.topics * extract.skills_per_topic
    if extract.method == "sda" and not extract.taxonomy and k > skills:
        yield Contradiction(
            f"k = {k} is larger than the {skills} skills that are asked for",
            ("mix.k", "extract.topics", "extract.skills_per_topic"),
            "use a smaller k, or ask for more skills in [extract]",
        )


def _of_numbers(config: Config) -> Iterator[Contradiction]:
    train, curate = config.train, config.curate
    if train.micro_batch and train.batch % train.micro_batch:
        yield Contradiction(
            f"batch {train.batch} is not a multiple of micro_batch {train.micro_batch}",
            ("train.batch", "train.micro_batch"),
            f"use a multiple of {train.micro_batch}, or another micro_batch",
        )
    for part in ("instruction", "response"):
        bounds = (f"min_{part}_tokens", f"max_{part}_tokens")
        least, most = (getattr(curate, bound) for bound in bounds)
        if least > most:
            yield Contradiction(
                f"no {part} has at least {least} and at most {most} tokens",
                (f"curate.{bounds[0]}", f"curate.{bounds[1]}"),
                f"use a number up to {most}, or raise {bounds[1]}",
            )


# ---- files -------------------------------------------------------------------------------------


Check = Callable[[Config, Origin], Iterator[ConfigError]]


class Part(NamedTuple):
    """One thing of the disk that models.toml names, and how it is looked at."""

    key: str
    """Dotted; what is wrong with the part makes this key wrong."""
    check: Check
    """Its mistakes; one that it raises is its last."""
    needs: tuple[str, ...]
    """Keys that must be right before it can be looked at."""


def file_mistakes(
    config: Config, origin: Origin, wrong: Collection[str] = ()
) -> dict[str, list[ConfigError]]:
    """What is wrong with model folders, prompt pack, seed and benchmark files, by dotted key.

    Every part is looked at for itself. Left out is what builds upon a key that is wrong, be it one
    of `wrong`, known from before, or one that was found here.
    """
    found: dict[str, list[ConfigError]] = {}
    for part in _parts(config):
        if is_wrong({*wrong, *found}, *part.needs):
            continue
        if mistakes := list(_mistakes_of(part.check, config, origin)):
            found.setdefault(part.key, []).extend(mistakes)
    return found


def is_wrong(wrong: Collection[str], *keys: str) -> bool:
    """Whether one of the keys, a table that it is in, or a part of it is among those wrong."""
    return any(_is_in(one, key) or _is_in(key, one) for one in wrong for key in keys)


def _is_in(key: str, other: str) -> bool:
    return key == other or key.startswith((f"{other}.", f"{other}["))


def _mistakes_of(check: Check, config: Config, origin: Origin) -> Iterator[ConfigError]:
    try:
        yield from check(config, origin)
    except ConfigError as wrong:
        yield from (wrong, *(one for one in wrong.beside if isinstance(one, ConfigError)))


def _parts(config: Config) -> Iterator[Part]:
    extract, benchmarks = config.extract, config.curate.benchmarks
    for role in ("teacher", "judge", "student"):
        path, length = f"{role}.path", f"{role}.max_model_len"
        yield Part(path, partial(_check_model, role), (path, f"{role}.endpoints"))
        yield Part(length, partial(_check_max_model_len, role), (path, length))
    yield Part("embedder.path", _check_embedder, ("embedder.path",))
    yield Part("prompts.pack", _check_pack, ("prompts.pack",))
    asked = ("curate.gates", "curate.skills", "judge.kind", "extract.domain", "cluster")
    yield Part("prompts.templates", _check_templates, ("prompts.pack", *asked))
    for role, whose in (("teacher", "prompts.pack"), ("student", "student.max_tokens")):
        needs = (f"{role}.path", f"{role}.max_model_len", whose)
        yield Part(f"{role}.max_model_len", partial(_check_length, role), needs)
    for number in range(len(extract.seeds)):
        key = f"extract.seeds[{number}]"
        yield Part(key, partial(_check_seeds, number), (key,))
    yield Part("extract.taxonomy", _check_taxonomy, ("extract.taxonomy",))
    for number in range(len(benchmarks)):
        key = f"curate.benchmarks[{number}]"
        yield Part(key, partial(_check_benchmark, number), (key,))
    yield Part("student.tokenizer", _check_tokenizer, ("student.path", "curate.gates"))


def _check_shipped(key: str, path: str, origin: Origin) -> None:
    """What is said to ship with localism does."""
    name = path.removeprefix(EMBEDDED)
    if path.startswith(EMBEDDED) and name not in SHIPPED:
        raise ConfigError(
            f"nothing called {name!r} ships with localism",
            where=f"{origin.where(key)} = {path!r}",
            fix=f"{likely(name, SHIPPED)}there are "
            + ", ".join(f"{EMBEDDED}{name}" for name in SHIPPED),
        )


def _check_model(role: str, config: Config, origin: Origin) -> Iterator[ConfigError]:
    section: Served = getattr(config, role)
    if section.api_key_file and not Path(section.api_key_file).is_file():
        yield ConfigError(
            "the file with the endpoints' API key does not exist",
            where=f"{origin.where(f'{role}.api_key_file')} = {section.api_key_file!r}",
            fix="give the path of a file that holds the key and nothing else",
        )
    if section.path:
        _check_shipped(f"{role}.path", section.path, origin)
        weights.check_model_folder(
            embedded(section.path),
            origin.where(f"{role}.path"),
            needs_chat_template=role != "student",
        )


def _check_embedder(config: Config, origin: Origin) -> Iterator[ConfigError]:
    _check_shipped("embedder.path", config.embedder.path, origin)
    folder = embedded(config.embedder.path)
    if not (folder / "modules.json").exists():
        yield ConfigError(
            "not a sentence-transformers folder (modules.json is missing)",
            where=f"{origin.where('embedder.path')} = {config.embedder.path!r}",
            fix="name the folder of a sentence-transformers model, or embedded:minilm",
        )


def _check_max_model_len(role: str, config: Config, origin: Origin) -> Iterator[ConfigError]:
    """No max_model_len that vLLM would refuse when this model's turn comes."""
    section, key = getattr(config, role), f"{role}.max_model_len"
    # Further arguments may stretch what a model reads, as rope scaling does.
    if not section.path or not section.max_model_len or section.engine_arguments:
        return
    own = _positions(embedded(section.path))
    if own and section.max_model_len > own:
        yield ConfigError(
            f"the {role} reads {own:,} tokens at most",
            where=f"{origin.where(key, f'{role}.path')} = {section.max_model_len}",
            fix=f"use up to {own}, or leave max_model_len away",
        )


def _check_pack(config: Config, origin: Origin) -> Iterator[ConfigError]:
    """The pack is whole."""
    pack_folder(config.prompts.pack, origin.where("prompts.pack"))
    load_pack(config.prompts.pack)
    yield from ()


def _check_templates(config: Config, origin: Origin) -> Iterator[ConfigError]:
    """The pack has a template for everything that will be asked of it."""
    pack = load_pack(config.prompts.pack)
    gates, prompts_pack = config.curate.gates, "prompts.pack"
    if "skills" in gates and config.curate.skills == "judge" and not pack.has("shows_skill"):
        yield ConfigError(
            f"prompt pack {pack.name} cannot ask whether a skill is shown",
            where=f"{origin.where('curate.skills', prompts_pack)} = 'judge'",
            fix="add shows_skill.txt to the pack, or use skills = 'words', or leave the gate out",
        )
    wanted = ["brevity", "junk"] + ["rate"] * (config.judge.kind == "letter")
    missing = [template for template in wanted if not pack.has(template)]
    if "shirker" in gates and missing:
        yield ConfigError(
            f"prompt pack {pack.name} cannot calibrate the gate for shirkers",
            where=f"{origin.where('curate.gates', prompts_pack)} holds 'shirker'",
            fix=f"add {missing[0]}.txt to the pack, or leave shirker out of gates",
        )
    if config.extract.domain and not pack.uses("topics", "domain"):
        yield ConfigError(
            f"prompt pack {pack.name} has no place for a domain",
            where=f"{origin.where('extract.domain', prompts_pack)} = {config.extract.domain!r}",
            fix="use a pack whose topics.txt mentions {{ domain }}, such as paper",
        )
    for setting, template in (("names", "cluster_name"), ("relabel", "relabel")):
        if getattr(config.cluster, setting) == "teacher" and not pack.has(template):
            yield ConfigError(
                f"prompt pack {pack.name} has no {template}.txt",
                where=f"{origin.where(f'cluster.{setting}', prompts_pack)} = 'teacher'",
                fix="add the template to the pack, or leave that setting away",
            )


def _check_length(role: str, config: Config, origin: Origin) -> Iterator[ConfigError]:
    """No reply is asked for that its model could not hold beside a prompt."""
    room, length_key = _room(config, role)
    tokens, whose, key = config.student.max_tokens, "student.max_tokens", "student.max_tokens"
    if role == "teacher":
        pack = load_pack(config.prompts.pack)
        replies = {turn.name: turn.sampling.max_tokens for turn in pack.turns}
        replies["lists"] = pack.extract_sampling.max_tokens
        longest = max(replies, key=lambda name: replies[name])
        tokens, whose = replies[longest], f"{longest} of prompt pack {pack.name}"
        key = "prompts.pack"
    if room is not None and tokens >= room:
        yield ConfigError(
            f"the {role} has room for {room:,} tokens, prompt included, and a reply may take"
            f" {tokens:,} ({whose})",
            where=origin.where(length_key, key),
            fix=f"ask for fewer than {room:,} tokens, or give the {role} more room",
        )


def _room(config: Config, role: str) -> tuple[int | None, str]:
    """The longest conversation in tokens, where that is known, and the key that says so."""
    section: Served = getattr(config, role)
    if section.path and section.max_model_len is None:
        return _positions(embedded(section.path)), f"{role}.path"
    return section.max_model_len if section.path else None, f"{role}.max_model_len"


def _positions(folder: Path) -> int | None:
    """The longest text that a model was made for, where its configuration says so plainly."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    ropes = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kinds = {
        rope.get("rope_type", rope.get("type", "default"))
        for rope in (ropes, *ropes.values())  # of the model, or of each kind of its layers
        if isinstance(rope, dict)
    }
    positions: int | None = text.get("max_position_embeddings")
    return None if kinds - {"default"} else positions


def _check_seeds(number: int, config: Config, origin: Origin) -> Iterator[ConfigError]:
    key, path = f"extract.seeds[{number}]", config.extract.seeds[number].path
    _check_shipped(key, path, origin)
    if not path or not embedded(path).exists():
        yield ConfigError(
            "there is no seed data here",
            where=f"{origin.where(key)} = {path!r}",
            fix="give the path of a JSONL, JSON, Parquet or CSV file, or of a dataset folder",
        )


def _check_taxonomy(config: Config, origin: Origin) -> Iterator[ConfigError]:
    taxonomy = config.extract.taxonomy
    if taxonomy and not Path(taxonomy).is_file():
        yield ConfigError(
            "the taxonomy file does not exist",
            where=f"{origin.where('extract.taxonomy')} = {taxonomy!r}",
            fix="give a text file with a topic a line, or JSON or TOML: fields > subjects > topics",
        )
    elif taxonomy:
        read_taxonomy(Path(taxonomy))


def _check_benchmark(number: int, config: Config, origin: Origin) -> Iterator[ConfigError]:
    """What the gates of curate read is there, while no hour of work has gone by yet."""
    key = f"curate.benchmarks[{number}]"
    try:
        read_prompts(embedded(config.curate.benchmarks[number]))
    except ConfigError as wrong:
        where = wrong.where.replace("[curate].benchmarks", origin.where(key), 1)
        yield ConfigError(wrong.problem, where=where, fix=wrong.fix)


def _check_tokenizer(config: Config, origin: Origin) -> Iterator[ConfigError]:
    student = config.student.path
    if not student or "length" not in config.curate.gates:
        return
    if not (embedded(student) / "tokenizer.json").is_file():
        yield ConfigError(
            "the length gate counts tokens, and the student has no tokenizer.json",
            where=f"{origin.where('student.path')} = {student!r}",
            fix="save its fast tokenizer beside it, or leave length out of [curate].gates",
        )
