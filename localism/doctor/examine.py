"""All checks of a configuration on this machine; no model is loaded.

`localism doctor --deep` also starts each engine once with one request.
"""

import asyncio
from pathlib import Path

from localism.context import Context
from localism.doctor import files, findings, machine
from localism.doctor.findings import Finding
from localism.errors import ConfigError, LocalismError, MachineError
from localism.models_toml import Look
from localism.progress import Progress
from localism.recipe import Recipe
from localism.records import Sampling
from localism.serving.client import RequestFailed
from localism.serving.server import serve
from localism.stages.train_plan import chat_template_file
from localism.tables import number_of


def examine(look: Look, folder: Path) -> list[Finding]:
    """Everything that could fail later, as far as it can be seen without loading a model.

    Mistakes in models.toml come first; they hide nothing but what builds upon them.
    """
    mistakes = [files.of_error("configuration", one) for one in look.mistakes]
    return [*mistakes, *files.check(look), *machine.check(look, folder)]


def before_a_run(asked: Recipe, folder: Path, progress: Progress) -> None:
    """Say what the checks warn of; ConfigError or MachineError for what would stop it later."""
    seen = examine(Look(asked.config, asked.origin()), folder)
    for finding in seen:
        if finding.status == "warn":
            progress.say(f"warning: {finding.check}: {finding.found}; {finding.fix}")
    failed = [finding for finding in seen if finding.status == "fail"]
    if failed:
        kind = ConfigError if findings.exit_code(failed) == ConfigError.exit_code else MachineError
        raise kind(
            f"the doctor finds {number_of(len(failed), 'fault')} that would stop this run",
            where="\n       ".join(f"{one.check}: {one.found}" for one in failed),
            fix="\n       ".join([*(one.fix for one in failed if one.fix), "or --no-doctor"]),
        )


def start_each(context: Context) -> list[Finding]:
    """Start each engine once and ask it one thing."""
    return asyncio.run(_start_each(context))


async def _start_each(context: Context) -> list[Finding]:
    judge_is_teacher = bool(context.config.judge.same_as)
    roles = [
        role for role in ("teacher", "judge", "student") if role != "judge" or not judge_is_teacher
    ]
    return [await _start(context, role) for role in roles]


async def _start(context: Context, role: str) -> Finding:
    template = chat_template_file(context) if role == "student" else None
    sampling = Sampling(0.0, 1.0, 8)
    try:
        async with serve(context, role=role, stage="doctor", chat_template=template) as client:
            conversation = client.conversation()
            reply = await conversation.say("Say hello.", template="doctor", sampling=sampling)
    except LocalismError as wrong:
        return files.of_error(f"{role} engine", wrong)
    except RequestFailed as failed:
        return Finding("fail", f"{role} engine", str(failed), f"see logs/doctor-{role}.log")
    shown = " ".join(reply.text.split())[:40]
    return Finding("pass", f"{role} engine", f"started and answered: {shown!r}")
