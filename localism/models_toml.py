"""models.toml and command-line overrides -> a validated Config, or the first mistake with its fix.

What needs no model is checked here, before anything heavy is imported.
"""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from localism import weights
from localism.benchmark_files import read_prompts
from localism.config import Config, Served
from localism.errors import ConfigError, UsageError
from localism.paths import EMBEDDED, embedded
from localism.prompting.packs import load_pack


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
    for role in ("teacher", "judge"):
        served: Served = getattr(config, role)
        found += [
            (
                f"{url!r} is no base URL of a server",
                f"[{role}].endpoints",
                "for instance http://node1:8000/v1; a key belongs into api_key_file",
            )
            for url in served.endpoints
            if not _is_base_url(url)
        ]
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
    curate = config.curate
    for part in ("instruction", "response"):
        least, most = (getattr(curate, f"{bound}_{part}_tokens") for bound in ("min", "max"))
        if least > most:
            found.append(
                (
                    f"no {part} has at least {least} and at most {most} tokens",
                    f"[curate].min_{part}_tokens",
                    f"use a number up to {most}, or raise max_{part}_tokens",
                )
            )
    if extract.method != "sda" and not extract.seeds:
        found.append(
            (
                f"method {extract.method!r} needs seed examples",
                "[extract].seeds",
                "name a file or folder of examples, each with an instruction",
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


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_plain = bool(parts.hostname) and parts.username is None and parts.port != 0
        return is_plain and parts.scheme in ("http", "https")
    except ValueError:  # a port that is none, a bracket that is not closed
        return False


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
    extract = config.extract
    seeds = tuple(
        source.model_copy(update={"path": absolute(source.path)}) for source in extract.seeds
    )
    changes["extract"] = extract.model_copy(
        update={"seeds": seeds, "taxonomy": absolute(extract.taxonomy)}
    )
    benchmarks = tuple(absolute(path) for path in config.curate.benchmarks)
    changes["curate"] = config.curate.model_copy(update={"benchmarks": benchmarks})
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
    gates = config.curate.gates
    if "skills" in gates and config.curate.skills == "judge" and not pack.has("shows_skill"):
        raise ConfigError(
            f"prompt pack {pack.name} cannot ask whether a skill is shown",
            where=f"{source} [curate].skills = 'judge'",
            fix="add shows_skill.txt to the pack, or use skills = 'words', or leave the gate out",
        )
    if "shirker" in config.curate.gates:
        wanted = ["brevity", "junk"] + ["rate"] * (config.judge.kind == "letter")
        for template in wanted:
            if not pack.has(template):
                raise ConfigError(
                    f"prompt pack {pack.name} cannot calibrate the gate for shirkers",
                    where=f"{source} [curate].gates holds 'shirker'",
                    fix=f"add {template}.txt to the pack, or leave shirker out of gates",
                )
    if config.extract.domain and not pack.uses("topics", "domain"):
        raise ConfigError(
            f"prompt pack {pack.name} has no place for a domain",
            where=f"{source} [extract].domain = {config.extract.domain!r}",
            fix="use a pack whose topics.txt mentions {{ domain }}, such as paper",
        )
    for setting, template in (("names", "cluster_name"), ("relabel", "relabel")):
        if getattr(config.cluster, setting) == "teacher" and not pack.has(template):
            raise ConfigError(
                f"prompt pack {pack.name} has no {template}.txt",
                where=f"{source} [cluster].{setting} = 'teacher'",
                fix="add the template to the pack, or leave that setting away",
            )
    for number, seeds in enumerate(config.extract.seeds):
        if not embedded(seeds.path).exists():
            raise ConfigError(
                "there is no seed data here",
                where=f"{source} [extract].seeds[{number}] = {seeds.path!r}",
                fix="give the path of a JSONL, JSON, Parquet or CSV file, or of a dataset folder",
            )
    if config.extract.taxonomy and not Path(config.extract.taxonomy).is_file():
        raise ConfigError(
            "the taxonomy file does not exist",
            where=f"{source} [extract].taxonomy = {config.extract.taxonomy!r}",
            fix="give a text file with a topic a line, or JSON or TOML: fields > subjects > topics",
        )
    _check_gates(config, source)


def _check_gates(config: Config, source: str) -> None:
    """What the gates of curate read is there, while no hour of work has gone by yet."""
    for path in config.curate.benchmarks:
        read_prompts(embedded(path))
    student = embedded(config.student.path)
    if "length" in config.curate.gates and not (student / "tokenizer.json").is_file():
        raise ConfigError(
            "the length gate counts tokens, and the student has no tokenizer.json",
            where=f"{source} [student].path = {config.student.path!r}",
            fix="save its fast tokenizer beside it, or leave length out of [curate].gates",
        )
