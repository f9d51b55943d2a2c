"""Talking to a model: conversations and choices, retried, and written to the ledger once each.

Every finished call is a row of table `turn`, under an id made of everything that it depends on.
A call whose id is already there is answered from the row; that is how a resumed or forked run
gets its finished turns back for nothing.
"""

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from localism.context import GRACE_SECONDS, Context
from localism.errors import ConfigError, OutOfTime
from localism.records import Choice, Likelihood, Reply, Sampling, stable_id
from localism.serving import swap
from localism.serving.crew import Crew, beside
from localism.serving.endpoints import Endpoints
from localism.serving.engine import Engine
from localism.serving.heartbeat import Heartbeat
from localism.serving.known import KnownTurns
from localism.serving.labels import Labels
from localism.serving.load import LOOK_SECONDS, Limit
from localism.serving.retries import RequestFailed, retried
from localism.store import Row

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

Item = TypeVar("Item")
Answer = TypeVar("Answer")

CHARACTERS_PER_TOKEN = 3
# vLLM reports an impossible token as -9999; JSON has no minus infinity.
LOWEST_LOGPROB = -9999.0


class Client:
    """One model behind one or more servers. Made by serving.server.serve."""

    def __init__(
        self,
        context: Context,
        role: str,
        stage: str,
        endpoints: Endpoints,
        fingerprint: str,
        limit: Limit,
        engine: Engine | None = None,
    ) -> None:
        self._store, self._seed = context.store, context.config.seed
        self._pack = context.config.prompts.pack
        self._role, self._stage = role, stage
        self.endpoints, self.engine = endpoints, engine
        self._heartbeat = Heartbeat(context.folder, role, stage, endpoints)
        self._limit, self._deadline = limit, context.deadline
        self.model_fingerprint = ""
        """Of the weights that answer now; part of every turn's id."""
        self.stop_token_ids: list[int] = []
        """Ends of a reply beside those that the engine knows; see swap."""
        self._asking: dict[str, asyncio.Event] = {}
        self._labels = Labels(self._tokenize, role, f"prompt pack {self._pack}: labels")
        self.use_fingerprint(fingerprint)

    def use_fingerprint(self, fingerprint: str) -> None:
        """From now on these weights answer; load which of their turns the ledger has."""
        self.model_fingerprint = fingerprint
        self._known = KnownTurns(self._store, fingerprint)

    @property
    def in_flight(self) -> int:
        """How many requests to keep going at once; for_each lets it follow the server's load."""
        return self._limit.now

    async def for_each(
        self,
        items: Iterable[Item],
        work: Callable[[Item], Awaitable[object]],
        *,
        requests_each: int = 1,
        until: float = math.inf,
    ) -> None:
        """Run work(item) for every item, as many at once as the server can use.

        requests_each: how many of them the work on one item asks at the same time. After the
        context's deadline, or the moment `until` of time.monotonic(), no item is begun any more;
        those in flight get GRACE_SECONDS, and then OutOfTime says that some were left. The first
        exception of the work cancels the rest and is raised.
        """
        crew = Crew(items, work, max(1, self.in_flight // requests_each))
        loop, left = asyncio.get_running_loop(), min(until, self._deadline) - time.monotonic()
        calls: list[asyncio.TimerHandle] = []
        if left <= 0:
            crew.close()
        if math.isfinite(left):
            calls.append(loop.call_later(left, crew.close))
            calls.append(loop.call_later(max(0.0, left) + GRACE_SECONDS, crew.give_up))
        try:
            async with beside(self._steer(crew, requests_each)):
                await crew.finish()
        finally:
            self._heartbeat.end()
            for call in calls:
                call.cancel()
        if crew.is_cut_short:
            raise OutOfTime

    async def _steer(self, crew: Crew[Item], requests_each: int) -> None:
        """Look at the servers about once a second, say how they are, and let the crew follow."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            load = await self.endpoints.load()
            self._heartbeat.beat(self.engine)
            if load and not self._limit.is_fixed:
                is_full = crew.active == crew.size
                active = self.in_flight if is_full else crew.active * requests_each
                crew.resize(max(1, self._limit.follow(load, active) // requests_each))

    def conversation(self, sample: int = 0) -> "Conversation":
        """A new, empty chat; `sample` tells several of the same content apart."""
        return Conversation(self, sample)

    def tokens_per_second(self) -> float:
        """Recent rate of reply tokens."""
        return self.endpoints.pace.tokens_per_second()

    async def ready(self) -> None:
        """Start the engine now rather than at the first question."""
        if self.engine:
            await self.engine.ready()

    async def load_weights(self, folder: Path) -> None:
        """Student only: answer with the checkpoint in `folder` from now on."""
        await swap.load_weights(self, folder)

    async def choose(
        self, prompt: str, labels: tuple[str, ...], template: str, sample: int = 0
    ) -> Choice:
        """How likely each label is as the reply's first token, over the full vocabulary.

        Greedy, one token; exact log-probabilities before any mask, summed over a label's one-token
        spellings. Another `sample` is computed anew. Raises ConfigError for labels that single
        tokens of this model do not tell apart, RequestFailed as Conversation.say.
        """
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=1)
        asked = sampling.as_json()
        turn_id = stable_id(self.model_fingerprint, None, prompt, asked, sample, list(labels))

        async def ask() -> Row:
            spelled = await self._spellings(labels)
            ids = [token for tokens in spelled for token in tokens]
            extra = {"logprob_token_ids": ids, "return_tokens_as_token_ids": True}
            extra |= _anew(sample)
            messages = [{"role": "user", "content": prompt}]
            reply, seconds = await self._ask(messages, sampling, {"logprobs": True}, extra)
            found = _logprobs_of(reply, ids)
            logprobs = {
                label: _log_of_sum([found[token] for token in tokens])
                for label, tokens in zip(labels, spelled, strict=True)
            }
            return self._row(
                turn_id,
                None,
                template,
                prompt,
                asked,
                sample,
                reply,
                seconds,
                logprobs=json.dumps(logprobs),
            )

        row, from_ledger = await self.turn(turn_id, ask)
        found = json.loads(row["logprobs"])
        return Choice(turn_id, tuple(found[label] for label in labels), from_ledger)

    async def likelihood(self, instruction: str, answer: str, sample: int = 0) -> Likelihood:
        """How probable the model finds `answer`, its end included, as the reply to `instruction`.

        The reply is not written but read: its tokens' log-probabilities as part of the prompt.
        Raises ConfigError when the chat template renders a finished reply otherwise than a started
        one, RequestFailed as Conversation.say.
        """
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=1)
        asked = sampling.as_json()
        turn_id = stable_id(
            self.model_fingerprint, None, instruction, asked, sample, {"reply": answer}
        )

        async def ask() -> Row:
            begun = await self._begun(instruction)
            messages = [
                {"role": "user", "content": instruction},
                {"role": "assistant", "content": answer},
            ]
            extra = {"prompt_logprobs": 0, "add_generation_prompt": False, **_anew(sample)}
            reply, seconds = await self._ask(messages, sampling, {}, extra)
            mean = _mean_logprob(reply, begun, self._pack)
            return self._row(
                turn_id,
                None,
                "likelihood",
                instruction,
                asked,
                sample,
                reply,
                seconds,
                logprobs=json.dumps({"mean": mean}),
            )

        row, from_ledger = await self.turn(turn_id, ask)
        return Likelihood(turn_id, json.loads(row["logprobs"])["mean"], from_ledger)

    async def _begun(self, instruction: str) -> list[int]:
        """Token ids of the chat up to where the reply begins."""
        message = {"role": "user", "content": instruction}
        return await self._tokenize({"messages": [message], "add_generation_prompt": True})

    async def say(
        self,
        conversation: "Conversation",
        prompt: str,
        template: str,
        sampling: Sampling,
        extra: Mapping[str, Any],
    ) -> Reply:
        """The reply to one more user message; see Conversation.say."""
        drawn = {"seed": self._seed} if sampling.temperature > 0 else {}
        asked = json.dumps({**json.loads(sampling.as_json()), **drawn, **extra}, sort_keys=True)
        parent, sample = conversation.parent_id, conversation.sample
        turn_id = stable_id(self.model_fingerprint, parent, prompt, asked, sample)
        messages = [*conversation.messages, {"role": "user", "content": prompt}]

        async def ask() -> Row:
            body = dict(extra)
            if self.stop_token_ids:
                body["stop_token_ids"] = self.stop_token_ids
            named: dict[str, Any] = {}
            if sampling.temperature > 0:
                # A seed of its own makes a reply independent of what else is in the batch.
                named["seed"] = int(stable_id(self._seed, turn_id), 16) >> 1
            reply, seconds = await self._ask(messages, sampling, named, body)
            return self._row(
                turn_id, parent, template, prompt, asked, sample, reply, seconds, logprobs=None
            )

        row, from_ledger = await self.turn(turn_id, ask)
        return Reply(
            turn_id,
            row["text"],
            row["finish_reason"],
            row["prompt_tokens"],
            row["completion_tokens"],
            from_ledger,
        )

    # ---- the ledger --------------------------------------------------------------------------

    async def turn(self, turn_id: str, ask: Callable[[], Awaitable[Row]]) -> tuple[Row, bool]:
        """The ledger's row, and whether it was there already; otherwise ask, and add it.

        Two callers of the same turn get the same row: the second waits for the first, or asks
        itself if the first fails.
        """
        while True:
            if turn_id in self._known:
                rows = self._store.query("SELECT * FROM turn WHERE turn_id = ?", [turn_id])
                return rows[0], True
            if turn_id not in self._asking:
                break
            await self._asking[turn_id].wait()
        answered = self._asking[turn_id] = asyncio.Event()
        try:
            row = await ask()
            self._store.add("turn", **row)
            self._known.add(turn_id)
            return row, False
        finally:
            del self._asking[turn_id]
            answered.set()

    def _row(
        self,
        turn_id: str,
        parent_id: str | None,
        template: str,
        prompt: str,
        sampling: str,
        sample: int,
        reply: "ChatCompletion",
        seconds: float,
        *,
        logprobs: str | None,
    ) -> Row:
        choice, usage = reply.choices[0], reply.usage
        return {
            "turn_id": turn_id,
            "parent_id": parent_id,
            "stage": self._stage,
            "role": self._role,
            "template": template,
            "prompt": prompt,
            "prompt_hash": stable_id(prompt),
            "model_fingerprint": self.model_fingerprint,
            "sampling": sampling,
            "sample": sample,
            "text": _storable(choice.message.content or ""),
            "logprobs": logprobs,
            "finish_reason": choice.finish_reason or "stop",
            "prompt_tokens": usage.prompt_tokens if usage else 0,
            "completion_tokens": usage.completion_tokens if usage else 0,
            "seconds": seconds,
            "finished_at": self._store.now(),
        }

    # ---- asking ------------------------------------------------------------------------------

    async def _ask(
        self,
        messages: list[dict[str, str]],
        sampling: Sampling,
        named: dict[str, Any],
        extra: dict[str, Any],
    ) -> "tuple[ChatCompletion, float]":
        """Ask until there is an answer. RequestFailed: refused, or ATTEMPTS ran out."""

        tokens = sum(len(m["content"]) for m in messages) // CHARACTERS_PER_TOKEN
        body = {
            "model": self.endpoints.model_name,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            **named,
            **extra,
        }

        async def send(patience_factor: float) -> "tuple[ChatCompletion, float]":
            return await self.endpoints.send(body, tokens + sampling.max_tokens, patience_factor)

        reply, seconds = await retried(send)
        usage = reply.usage
        self.endpoints.pace.note(
            seconds,
            usage.prompt_tokens if usage else tokens,
            usage.completion_tokens if usage else sampling.max_tokens,
        )
        return reply, seconds

    async def _spellings(self, labels: tuple[str, ...]) -> list[tuple[int, ...]]:
        """The tokens by which a reply can begin with each label; see labels.py."""
        try:
            return await self._labels.spellings(labels)
        except RequestFailed as refused:
            raise ConfigError(
                "this endpoint cannot judge by token probabilities: it has no /tokenize",
                where=f"{self.endpoints.all[0].url}: {refused.reason}"[:400],
                fix="serve the judge with vLLM, or give its folder as [judge].path",
            ) from None

    async def _tokenize(self, request: dict[str, Any]) -> list[int]:
        body = {"model": self.endpoints.model_name, **request}
        return await retried(lambda _: self.endpoints.tokenize(body))


class Conversation:
    """One chat. Shared beginnings stay byte-identical, which the engine's prefix cache needs."""

    def __init__(self, client: Client, sample: int) -> None:
        self._client = client
        self.sample = sample
        self.messages: list[dict[str, str]] = []
        """What was said so far, user and assistant in turn."""
        self.parent_id: str | None = None
        """The last turn, or the id of what the conversation began with."""

    def begin(self, history: Iterable[Mapping[str, str]]) -> None:
        """Start behind messages (role, content) that somebody else wrote; before the first say."""
        self.messages = [{"role": said["role"], "content": said["content"]} for said in history]
        self.parent_id = stable_id("history", self.messages) if self.messages else None

    async def say(
        self,
        prompt: str,
        *,
        template: str,
        sampling: Sampling,
        extra: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Add a user message and its reply, from the ledger or from the model.

        `extra` are further sampling parameters of vLLM. Raises RequestFailed when the server
        refuses the request or ATTEMPTS ran out (the conversation stays as it was), StageError when
        there is no server any more.
        """
        reply = await self._client.say(self, prompt, template, sampling, extra or {})
        self.messages += [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": reply.text},
        ]
        self.parent_id = reply.turn_id
        return reply


def _anew(sample: int) -> dict[str, str]:
    """What keeps another sample from being read out of the prefix cache of the first."""
    return {"cache_salt": f"sample {sample}"} if sample else {}


def _logprobs_of(reply: "ChatCompletion", ids: list[int]) -> dict[int, float]:
    listed = reply.choices[0].logprobs
    content = listed.content if listed else None
    found = {entry.token: entry.logprob for entry in content[0].top_logprobs} if content else {}
    try:
        return {token: max(LOWEST_LOGPROB, found[f"token_id:{token}"]) for token in ids}
    except KeyError:
        raise ConfigError(
            "this endpoint cannot judge by token probabilities: it ignores logprob_token_ids",
            where=f"asked for tokens {ids}, got {sorted(found)[:5]}",
            fix="serve the judge with a current vLLM, or give its folder as [judge].path",
        ) from None


def _log_of_sum(logprobs: list[float]) -> float:
    """log(sum of exp(x)), exact for one and safe for impossible ones."""
    most = max(logprobs)
    return most + math.log(sum(math.exp(logprob - most) for logprob in logprobs))


def _mean_logprob(reply: "ChatCompletion", begun: list[int], pack: str) -> float:
    listed = (reply.model_extra or {}).get("prompt_logprobs") or []
    tokens = [next(iter(entry)) for entry in listed[1:]]  # the first token has no probability
    if tokens[: len(begun) - 1] != [str(token) for token in begun[1:]] or len(listed) <= len(begun):
        raise ConfigError(
            "this judge cannot compare likelihoods: its chat template renders a finished reply "
            "otherwise than a started one, or the server returns no prompt_logprobs",
            where=f"models.toml [judge].kind, with prompt pack {pack}",
            fix='use kind = "letter"',
        )
    logprobs = [next(iter(entry.values()))["logprob"] for entry in listed[len(begun) :]]
    return float(sum(logprobs) / len(logprobs))


def _storable(text: str) -> str:
    """Text without lone surrogates, which neither UTF-8 nor the corpus can hold."""
    return text.encode("utf-8", "replace").decode()
