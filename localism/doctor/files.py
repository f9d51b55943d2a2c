"""Checks of what models.toml names: models, prompts, seeds, benchmarks, licences."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from localism import licences, weights
from localism.benchmark_files import read_prompts
from localism.config import Config, Served
from localism.config_checks import Origin
from localism.doctor.findings import Finding
from localism.errors import ConfigError, LocalismError, StageError, UsageError
from localism.licence_terms import IDS, TERMS, by_id
from localism.licences import Licence
from localism.lmeval import running
from localism.models_toml import Look
from localism.packing.contents import NOT_CARRIED
from localism.paths import EMBEDDED, embedded
from localism.prompting.packs import load_pack
from localism.seeds.files import read
from localism.serving.endpoints import Endpoints
from localism.serving.server import read_key
from localism.suites import prompts, staging
from localism.suites.known import LM_EVAL
from localism.tables import gigabytes, number_of
from localism.toml_mistakes import likely

MODELS = ("teacher", "judge", "student", "embedder")
# Of each source of seed data; the rest is read when extract starts.
SEEDS_READ = 20_000


def check(look: Look) -> Iterator[Finding]:
    """Everything that models.toml names, but for what is known to be wrong."""
    config = look.config
    if config is None:
        return
    for role in MODELS:
        if look.has_model(role):
            yield from [_embedder(config)] if role == "embedder" else _model(config, role)
        elif urls := _well_written(look, role):
            section = getattr(config, role).model_copy(update={"endpoints": urls})
            yield from asyncio.run(_endpoints(role, section))
    if not look.is_wrong("prompts.pack"):
        yield _pack(config)
    yield from _judge_prompts(config, look.origin)
    yield from _seeds(config, look)
    yield from _benchmarks(config, look)
    yield from _suites(config, look.origin)
    if all(map(look.has_model, MODELS)) and not look.is_wrong("extract.seeds", "licences"):
        yield from _licences(config)


def of_error(check: str, wrong: LocalismError, place: str = "") -> Finding:
    """A mistake that a check ran into, as a finding.

    place: the key and value in models.toml, where the mistake itself names a file, or an option of
    another command.
    """
    says_more = not place or not wrong.where.startswith(("--", "models.toml"))
    where = [place] * bool(place) + [wrong.where] * says_more
    code = 3 if isinstance(wrong, ConfigError | UsageError) else 4
    return Finding("fail", check, f"{wrong.problem} ({': '.join(where)})", wrong.fix, code)


def _model(config: Config, role: str) -> Iterator[Finding]:
    section: Served = getattr(config, role)
    if role == "judge" and config.judge.same_as:
        yield Finding("pass", "judge", "the teacher judges")
        return
    if section.endpoints:
        yield from asyncio.run(_endpoints(role, section))
        return
    folder = embedded(section.path)
    try:
        weights.check_model_folder(folder, role, needs_chat_template=role != "student")
    except LocalismError as wrong:
        yield of_error(role, wrong)
        return
    shards = len(list(folder.glob("*.safetensors")))
    count, size = weights.parameter_count(folder), weights.total_bytes(folder)
    dtypes = "/".join(sorted(_dtypes(folder)))
    yield Finding(
        "pass",
        role,
        f"{folder.name}: {count / 1e6:,.1f}M parameters, {gigabytes(size)} in "
        f"{number_of(shards, 'whole safetensors file')}, {dtypes}",
    )
    yield from _beside(role, section, folder)


def _well_written(look: Look, role: str) -> tuple[str, ...]:
    """Endpoints of the teacher or judge that stand beside one that is no URL."""
    if role not in ("teacher", "judge"):
        return ()
    section: Served = getattr(look.config, role)
    return tuple(
        url
        for number, url in enumerate(section.endpoints)
        if not look.is_wrong(f"{role}.endpoints[{number}]")
    )


async def _endpoints(role: str, section: Served) -> list[Finding]:
    """Servers that run already are asked what they serve, and for nothing else."""
    try:
        servers = Endpoints(section.endpoints, read_key(section, role), give_up_seconds=0)
    except ConfigError as wrong:
        return [of_error(role, wrong)]
    name, mistakes = "", []
    try:
        where = f"models.toml [{role}].endpoints"
        name = (await servers.find_model(section.served_name, where))["id"]
    except ConfigError as wrong:
        mistakes = [of_error(role, one) for one in (wrong, *wrong.beside)]
    except StageError:  # they may be started later
        pass
    finally:
        await servers.close()
    return [*mistakes, *_answers(role, servers, name)]


def _answers(role: str, servers: Endpoints, name: str) -> Iterator[Finding]:
    """Which of the servers are away, and why; name: the model, where those that answer have it."""
    away = ", ".join(f"{one.url} ({one.problem})" for one in servers.all if one.is_away)
    served = f"{name}, served at {', '.join(one.url for one in servers.all if not one.is_away)}"
    if away and name:
        said = f"{served}; no answer now from {away}"
        yield Finding("warn", role, said, "the others do its work until it is back")
    elif away:
        yield Finding("warn", role, f"no answer now from {away}", "start them before the run")
    elif name:
        yield Finding("pass", role, served)


def _dtypes(folder: Path) -> set[str]:
    """Types of the tensors, from the headers."""
    return {
        tensor["dtype"]
        for path in folder.glob("*.safetensors")
        for tensor in weights.tensor_headers(path).values()
    }


def _beside(role: str, section: Served, folder: Path) -> Iterator[Finding]:
    """What lies beside the weights: pickles, Python code, a missing template."""
    pickles = sorted(p.name for p in folder.rglob("*") if p.suffix.lower() in NOT_CARRIED[:6])
    if pickles:
        shown = ", ".join(pickles[:3]) + (", …" if len(pickles) > 3 else "")
        yield Finding("pass", f"{role} pickles", f"{shown}: never loaded")
    settings = json.loads((folder / "config.json").read_text())
    if settings.get("auto_map") and not section.trust_remote_code:
        yield Finding(
            "fail",
            f"{role} code",
            "config.json names Python code of its own (auto_map), and it may not run",
            "read that code, then [" + role + "].trust_remote_code = true; or take weights in a "
            "format that transformers knows",
            exit_code=3,
        )
    if section.trust_remote_code:
        code = ", ".join(sorted(path.name for path in folder.glob("*.py"))) or "none there"
        yield Finding("warn", f"{role} code", f"trust_remote_code runs this folder's code: {code}")
    if role == "student" and not weights.has_chat_template(folder):
        yield Finding("pass", "student template", "none: the Alpaca-style one is saved with it")


def _embedder(config: Config) -> Finding:
    folder = embedded(config.embedder.path)
    if (folder / "modules.json").exists() and list(folder.rglob("*.safetensors")):
        return Finding("pass", "embedder", folder.name if folder.name != "model" else "MiniLM")
    return Finding(
        "fail",
        "embedder",
        f"{folder} is no sentence-transformers folder with safetensors",
        "name the folder of a sentence-transformers model, or embedded:minilm",
        exit_code=3,
    )


def _pack(config: Config) -> Finding:
    try:
        pack = load_pack(config.prompts.pack)
    except LocalismError as wrong:
        return of_error("prompts", wrong)
    return Finding("pass", "prompts", f"pack {pack.name}, {number_of(len(pack.turns), 'turn')}")


def _judge_prompts(config: Config, origin: Origin) -> Iterator[Finding]:
    """Of benchmarks; of those that ship there is nothing to say."""
    try:
        prompts.load(config.evaluate.judge_prompts)
    except LocalismError as wrong:
        place = f"{origin.where('evaluate.judge_prompts')} = {config.evaluate.judge_prompts!r}"
        yield of_error("judge prompts", wrong, place)


def _seeds(config: Config, look: Look) -> Iterator[Finding]:
    if config.extract.method == "sda":
        return
    for number, source in enumerate(config.extract.seeds):
        if look.is_wrong(f"extract.seeds[{number}]"):
            continue
        try:
            count = sum(1 for _ in islice(read(source), SEEDS_READ))
        except LocalismError as wrong:
            yield of_error("seeds", wrong)
            continue
        name = source.path.removeprefix(EMBEDDED)
        more = " or more" if count == SEEDS_READ else ""
        wanted = source.sample or config.extract.seed_examples
        if count < wanted and not more:
            yield Finding(
                "warn", "seeds", f"{name}: {number_of(count, 'example')}, {wanted:,} are asked for",
                "all of them are taken; lower [extract].seed_examples to say that it is meant so",
            )  # fmt: skip
        else:
            yield Finding("pass", "seeds", f"{name}: {number_of(count, 'example')}{more}")


def _benchmarks(config: Config, look: Look) -> Iterator[Finding]:
    for number, path in enumerate(config.curate.benchmarks):
        if look.is_wrong(f"curate.benchmarks[{number}]"):
            continue
        try:
            count = len(read_prompts(Path(path)))
        except LocalismError as wrong:
            yield of_error("benchmarks", wrong)
        else:
            yield Finding("pass", "benchmarks", f"{Path(path).name}: {number_of(count, 'prompt')}")


def _suites(config: Config, origin: Origin) -> Iterator[Finding]:
    for number, name in enumerate(config.evaluate.suites):
        place = f"{origin.where(f'evaluate.suites[{number}]')} = {name!r}"
        if name == LM_EVAL:
            yield _harness(place)
            continue
        try:
            found = staging.load(
                name, Path(config.evaluate.staged), may_sample=config.is_rehearsal()
            )
        except LocalismError as wrong:
            yield of_error("suites", wrong, place)
            continue
        sample = ", a sample and not the benchmark" if found.is_sample else ""
        items = number_of(len(found.items), "item")
        yield Finding("pass", "suites", f"{found.name}: {items}{sample}")


def _harness(place: str) -> Finding:
    try:
        running.installed_harness()
    except LocalismError as wrong:
        return of_error("suites", wrong, place)
    return Finding("pass", "suites", "lm-eval: the harness is installed")


def _licences(config: Config) -> Iterator[Finding]:
    of_run = licences.of_run(config)
    unknown = [role for role, licence in of_run.roles.items() if licence.name == licences.UNKNOWN]
    if unknown:
        yield Finding(
            "warn",
            "licences",
            f"not known of {', '.join(unknown)}",
            "say it in [licences] of models.toml, for the cards of what is made",
        )
    for conflict in of_run.conflicts:
        yield Finding("warn", "licences", conflict, "localism licences says what follows from it")
    yield from _own_words(of_run.roles.values())
    if not unknown and not of_run.conflicts:
        yield Finding("pass", "licences", f"the model comes out as {of_run.model.name}")


def _own_words(found: Iterable[Licence]) -> Iterator[Finding]:
    """Names that models.toml states and that stand for no terms we know: perhaps slips."""
    stated = [licence.name for licence in found if licence.source.startswith("models.toml")]
    for name in dict.fromkeys(stated):
        if by_id(name) is None and name not in (terms.name for terms in TERMS):
            yield Finding(
                "warn",
                "licences",
                f"{name!r} stands in [licences], and what it demands is not known",
                likely(name.lower(), IDS) + "otherwise read what it asks of the result",
            )
