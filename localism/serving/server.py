"""models.toml [teacher], [judge] or [student] -> a Client, for as long as a stage needs it."""

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from localism import assets
from localism.config import Served
from localism.context import Context
from localism.errors import ConfigError, LocalismError
from localism.gpus import Gpus
from localism.serving.client import Client
from localism.serving.endpoints import Endpoints
from localism.serving.engine import Engine, table_of
from localism.serving.load import QUEUED, Limit

# Open files beside the connections: the corpus, logs, pipes, libraries.
SPARE_FILES = 256
MANY_FILES = 65_536


@asynccontextmanager
async def serve(
    context: Context,
    role: str,
    stage: str,
    chat_template: Path | None = None,
    known_as: str | None = None,
    gpus: Gpus | None = None,
    conversations: int | None = None,
) -> AsyncIterator[Client]:
    """A client of the role's model; vLLM is started at the first question, or endpoints are used.

    A stage whose every turn is in the ledger already, as after a fork, so costs no engine start.
    `chat_template`: a Jinja file for a model without one. `known_as`: how table asset calls a model
    that is not the run's own of this role. `gpus`: those that the engine may take, where others are
    another's. `conversations`: how many there are to hold, where that may be few.
    Log: logs/STAGE-ROLE.log of the run.
    On exit, however it comes about, nothing that was started here is left.
    """
    section = context.config.served(role)
    if section.endpoints:
        client = await _external(context, role, stage, known_as or role)
        try:
            yield client
        finally:
            await client.endpoints.close()
        return
    if known_as:
        assets.pin(context.store, assets.of_folder(known_as, section.path))
    engine = Engine(context, role, stage, chat_template, gpus, conversations)
    try:
        client = _managed(context, role, stage, engine)
        try:
            yield client
        finally:
            await client.endpoints.close()
    finally:
        await engine.stop()
    await engine.give_back()


def _managed(context: Context, role: str, stage: str, engine: Engine) -> Client:
    section = context.config.served(role)
    limit = _limit(context, stage, section, _copies(engine))
    note = partial(_note, context, role, stage)
    patience = section.start_timeout_seconds
    endpoints = Endpoints((engine.url,), engine.key, patience, engine, note)
    endpoints.model_name = role
    fingerprint = engine.fingerprint(engine.folder)
    return Client(context, role, stage, endpoints, fingerprint, limit, engine)


def _copies(engine: Engine) -> int:
    """One where there is none to be had: who needs the engine is told so when it starts."""
    try:
        return engine.placement.data
    except LocalismError:
        return 1


async def _external(context: Context, role: str, stage: str, known_as: str) -> Client:
    section, table = context.config.served(role), table_of(context, role)
    limit = _limit(context, stage, section, len(section.endpoints))
    note = partial(_note, context, role, stage)
    key, patience = read_key(section, table), section.start_timeout_seconds
    endpoints = Endpoints(section.endpoints, key, patience, note=note)
    urls = [endpoint.url for endpoint in endpoints.all]
    context.store.event("endpoints_used", stage, role=role, urls=urls)
    try:
        has_worked = "SELECT count(*) FROM asset WHERE role = ?"
        model = await endpoints.find_model(
            section.served_name,
            f"models.toml [{table}].endpoints",
            may_wait=bool(context.store.value(has_worked, [known_as])),
        )
        asset = assets.served(known_as, model, section.endpoints)
        assets.pin(context.store, asset)
    except BaseException:
        await endpoints.close()
        raise
    return Client(context, role, stage, endpoints, asset["fingerprint"], limit)


def _note(context: Context, role: str, stage: str, kind: str, **detail: str) -> None:
    """What became of a server: an event, and a line where the run is watched."""
    context.store.event(kind, stage, role=role, **detail)
    context.progress.say(f"{kind.replace('_', ' ')}: {', '.join(detail.values())}")


def _limit(context: Context, stage: str, section: Served, engines: int) -> Limit:
    """How many requests to start with; each is a connection, and those are files."""
    most = max(1, _open_files() - SPARE_FILES)
    configured = context.config.generate.requests_in_flight if stage == "generate" else None
    first = configured or int(QUEUED * section.max_num_seqs * engines)
    return Limit(min(first, most), most, is_fixed=configured is not None)


def _open_files() -> int:
    """How many files this process may have open, raised to what the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def read_key(section: Served, table: str) -> str:
    """The endpoints' API key; empty where none is configured. ConfigError for no such file."""
    if not section.api_key_file:
        return ""
    try:
        return Path(section.api_key_file).expanduser().read_text().strip()
    except OSError as missing:
        raise ConfigError(
            "the file with the endpoints' API key cannot be read",
            where=f"models.toml [{table}].api_key_file: {missing}",
            fix="give the path of a readable file that holds the key and nothing else",
        ) from None
