"""Real vLLM, real tiny models: the ledger, exact choices, kills, swaps, and nothing left behind."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import NewContext, ServedTeacher, behind_endpoints, embedded_config

from localism import weights
from localism.errors import ConfigError, StageError
from localism.paths import embedded
from localism.processes import session_processes
from localism.records import Reply, Sampling, stable_id
from localism.serving import endpoint as endpoint_module
from localism.serving import endpoints as endpoints_module
from localism.serving import heartbeat
from localism.serving import pulse as pulse_module
from localism.serving.client import Client, RequestFailed
from localism.serving.crew import beside, for_each
from localism.serving.server import serve

pytestmark = pytest.mark.component

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=48)
WARM = Sampling(temperature=1.0, top_p=1.0, max_tokens=48)
DRAFT = "Write an instruction that needs every skill, then a full response.\nSkills: {}, {}"
JUDGE = "Compare two answers.\n[m] {}\n[M] {}\nInstruction: plan a week\nWhich fits, m or M?"


def turns(served: Any, where: str = "true") -> list[dict[str, Any]]:
    return served.context.store.query(f"SELECT * FROM turn WHERE {where} ORDER BY finished_at")


def events(context: Any) -> list[str]:
    rows = context.store.query("SELECT kind FROM event ORDER BY happened_at")
    return [row["kind"] for row in rows]


async def hold(
    client: Client, skills: tuple[str, str], sampling: Sampling, sample: int = 0
) -> list[Reply]:
    """A conversation of three turns."""
    chat = client.conversation(sample)
    replies = [await chat.say(DRAFT.format(*skills), template="draft", sampling=sampling)]
    replies.append(await chat.say("Review your draft.", template="critique", sampling=sampling))
    replies.append(await chat.say("Rewrite the draft.", template="refine", sampling=sampling))
    return replies


def test_a_conversation_is_in_the_ledger_and_the_second_time_comes_from_there(teacher):
    first = teacher.run(hold(teacher.client, ("planning", "listening"), WARM))
    second = teacher.run(hold(teacher.client, ("planning", "listening"), WARM))
    assert [r.text for r in first] == [r.text for r in second]
    assert [r.from_ledger for r in first] == [False] * 3
    assert [r.from_ledger for r in second] == [True] * 3
    ids = [reply.turn_id for reply in first]
    rows = {row["turn_id"]: row for row in turns(teacher)}
    assert [rows[i]["parent_id"] for i in ids] == [None, ids[0], ids[1]]
    assert [rows[i]["template"] for i in ids] == ["draft", "critique", "refine"]
    # The whole conversation was sent: each prompt holds the ones before it.
    lengths = [rows[i]["prompt_tokens"] for i in ids]
    assert lengths[0] < lengths[1] < lengths[2]
    plain = weights.fingerprint(embedded("embedded:teacher"))
    assert {rows[i]["model_fingerprint"] for i in ids} == {stable_id(plain, "float32", "")}


def test_greedy_replies_repeat_and_warm_samples_differ(teacher):
    async def several(sampling: Sampling) -> list[str]:
        held = [hold(teacher.client, ("cooking", "budgeting"), sampling, n) for n in range(4)]
        return [replies[0].text for replies in await asyncio.gather(*held)]

    assert len(set(teacher.run(several(GREEDY)))) == 1
    assert len(set(teacher.run(several(WARM)))) > 1


def test_a_warm_reply_depends_on_its_seed_and_not_on_the_batch(teacher, new_context):
    """A run that is resumed from an empty ledger writes the same texts again."""
    mine = teacher.run(hold(teacher.client, ("drawing", "cleaning"), WARM, sample=7))
    context = new_context(embedded_config(**teacher.endpoints))

    async def among_others() -> list:
        async with serve(context, "teacher", "generate") as client:
            client.use_fingerprint(teacher.client.model_fingerprint)
            held = [hold(client, ("drawing", "cleaning"), WARM, n) for n in range(8)]
            return (await asyncio.gather(*held))[7]

    again = asyncio.run(among_others())
    assert [r.from_ledger for r in again] == [False] * 3
    assert again[0].text == mine[0].text


def test_many_long_warm_prompts_at_once_do_not_kill_the_engine(teacher):
    """vLLM on the CPU dies of a seeded request whose prompt is split over two steps."""
    engine = teacher.client.engine
    generation = engine.generation

    async def ask(number: int) -> None:
        prompt = f"{number}: " + LONG.format(number)
        short = Sampling(temperature=1.0, top_p=1.0, max_tokens=8)
        reply = await teacher.client.conversation().say(prompt, template="draft", sampling=short)
        tokens.append(reply.prompt_tokens)

    tokens: list[int] = []
    teacher.run(for_each(range(64), ask, 64))
    assert sum(tokens) > 8000 and engine.generation == generation


# ---- choices -------------------------------------------------------------------------------


def reference_logprobs(
    folder: Path,
    prompt: str,
    labels: tuple[str, ...],
    dtype: str,
    chat_template: str | None = None,
) -> list[float]:
    """The same probabilities from one transformers forward pass."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    chat = [{"role": "user", "content": prompt}]
    encoded = tokenizer.apply_chat_template(
        chat,
        chat_template=chat_template,
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        logits = model(input_ids=encoded["input_ids"]).logits[0, -1].float()
    everything = logits.log_softmax(-1)
    found = []
    for label in labels:  # with and without a space before it, where that is one token
        spelled = {
            tuple(tokenizer.encode(text, add_special_tokens=False)) for text in (label, f" {label}")
        }
        single = [tokens[0] for tokens in spelled if len(tokens) == 1]
        found.append(everything[single].logsumexp(0).item())
    return found


def test_choose_equals_a_forward_pass_over_the_full_vocabulary(teacher):
    prompts = [JUDGE.format(a, b) for a, b in (("plan each day", "no"), ("x", "list the tasks"))]
    for prompt in prompts:
        choice = teacher.run(teacher.client.choose(prompt, ("m", "M"), "judge"))
        expected = reference_logprobs(embedded("embedded:teacher"), prompt, ("m", "M"), "float32")
        assert choice.logprobs == pytest.approx(expected, abs=2e-3)
        again = teacher.run(teacher.client.choose(prompt, ("m", "M"), "judge"))
        assert again.from_ledger and again.logprobs == choice.logprobs
    (row,) = turns(teacher, f"turn_id = '{choice.turn_id}'")
    assert list(json.loads(row["logprobs"])) == ["m", "M"] and row["completion_tokens"] == 1


def reference_mean_logprob(folder: Path, instruction: str, answer: str) -> float:
    """Mean log-probability of the answer and its end, from one transformers forward pass."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = [{"role": "user", "content": instruction}, {"role": "assistant", "content": answer}]
    begun = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template(chat)["input_ids"]
    with torch.no_grad():
        logprobs = model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    scored = range(len(begun), len(whole))
    return sum(logprobs[i - 1, whole[i]].item() for i in scored) / len(scored)


def test_likelihood_is_the_mean_over_the_reply_and_its_end(teacher):
    question = "How can I plan meals and track expenses?"
    answers = ["Plan the meals on Monday.\nTrack the expenses in a notebook.", "stuff idk", ""]
    means = []
    for answer in answers:
        found = teacher.run(teacher.client.likelihood(question, answer))
        expected = reference_mean_logprob(embedded("embedded:teacher"), question, answer)
        assert found.mean_logprob == pytest.approx(expected, abs=2e-3)
        assert teacher.run(teacher.client.likelihood(question, answer)).from_ledger
        means.append(found.mean_logprob)
    assert len(set(means)) == 3


def test_a_label_that_is_no_single_token_names_label_and_pack(teacher):
    with pytest.raises(ConfigError) as error:
        teacher.run(teacher.client.choose("which?", ("m", "zqxjkv"), "judge"))
    assert "zqxjkv" in error.value.problem and "compact" in error.value.where


def test_a_request_that_the_model_cannot_hold_fails_with_vllms_words(teacher):
    too_long = Sampling(temperature=0.0, top_p=1.0, max_tokens=100_000)
    with pytest.raises(RequestFailed, match="HTTP 400: .*max_tokens|HTTP 400: .*maximum"):
        teacher.run(teacher.client.conversation().say("x", template="draft", sampling=too_long))


# ---- endpoints -----------------------------------------------------------------------------


def test_endpoints_serve_like_a_managed_engine_and_a_dead_one_costs_nothing(teacher, new_context):
    urls = ("http://127.0.0.1:9/v1", teacher.url)
    context = new_context(embedded_config(**behind_endpoints("teacher", urls, teacher.key_file)))

    async def generate() -> None:
        async with serve(context, "judge", "curate") as client:
            await for_each(
                range(40), lambda n: hold(client, (f"skill {n}", "listening"), GREEDY), 16
            )
            choice = await client.choose(JUDGE.format("a", "b"), ("m", "M"), "judge")
            assert all(logprob < 0 for logprob in choice.logprobs)

    asyncio.run(generate())
    assert context.store.value("SELECT count(*) FROM turn WHERE role = 'judge'") == 121
    assert context.store.value("SELECT count(DISTINCT turn_id) FROM turn") == 121


def test_a_wrong_key_is_a_config_error(teacher, new_context, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text("wrong")
    context = new_context(embedded_config(**behind_endpoints("teacher", (teacher.url,), key_file)))

    async def start() -> None:
        async with serve(context, "teacher", "generate"):
            pass

    with pytest.raises(ConfigError, match="401"):
        asyncio.run(start())


# ---- kills ---------------------------------------------------------------------------------


def server_of(session: int) -> int:
    """The API server: the keeper's child."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(session)], capture_output=True, text=True, check=True
    )
    return int(children.stdout.split()[0])


def test_kill_9_of_the_server_loses_no_request_and_doubles_none(teacher: ServedTeacher):
    engine, killed = teacher.client.engine, []
    assert engine is not None
    before, generation, session = len(turns(teacher)), engine.generation, engine.pid

    async def ask(number: int) -> None:
        # Lengths differ, so that some are done when the server dies and others in the middle.
        sampling = Sampling(temperature=0.7, top_p=0.95, max_tokens=20 + 5 * number)
        reply = await teacher.client.conversation().say(
            f"Killed while writing number {number}.",
            template="draft",
            sampling=sampling,
            extra={"ignore_eos": True},
        )
        assert reply.completion_tokens == 20 + 5 * number
        finished.append(number)
        if len(finished) == 10:
            killed.append(server_of(session))
            os.kill(killed[0], signal.SIGKILL)

    finished: list[int] = []
    teacher.run(for_each(range(60), ask, teacher.client.in_flight))
    assert killed and sorted(finished) == list(range(60))
    rows = turns(teacher, "prompt LIKE 'Killed while%'")
    assert len(rows) == len({row["prompt"] for row in rows}) == 60
    assert len(turns(teacher)) == before + 60
    assert engine.generation == generation + 1
    assert session_processes(session) == []
    kinds = events(teacher.context)
    assert kinds[-2:] == ["engine_died", "engine_started"]


def engine_core_of(session: int) -> int:
    """The process that computes; the API server is another."""
    for pid in session_processes(session):
        if "EngineCore" in Path(f"/proc/{pid}/comm").read_text() + _words_of(pid):
            return pid
    raise AssertionError(f"no engine core among {session_processes(session)}")


def _words_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


async def write_number(client: Client, number: int, tokens: int) -> None:
    long = Sampling(temperature=0.7, top_p=0.95, max_tokens=tokens)
    reply = await client.conversation().say(
        f"Stopped while writing number {number}.",
        template="draft",
        sampling=long,
        extra={"ignore_eos": True},
    )
    assert reply.completion_tokens == tokens


def test_an_engine_that_crawls_is_waited_for_and_one_that_stands_still_is_restarted(
    teacher: ServedTeacher, monkeypatch
):
    """SIGSTOP of the process that computes; the API server beside it goes on answering."""
    monkeypatch.setattr(pulse_module, "STOPS_SEEN", 1.0)
    monkeypatch.setattr(endpoint_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr("localism.serving.client.LOOK_SECONDS", 0.05)
    monkeypatch.setattr(endpoints_module, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(endpoints_module, "FIRST_SECONDS_PER_TOKEN", 0.0)
    monkeypatch.setattr(endpoints_module, "SLOWER_THAN_SEEN", 0.0)
    monkeypatch.setattr(endpoints_module, "SLOW_FACTOR", 1000.0)
    monkeypatch.setattr(heartbeat, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(heartbeat, "WRITE_SECONDS", 0.2)
    engine, folder = teacher.client.engine, teacher.context.folder
    assert engine is not None
    teacher.run(teacher.client.ready())
    generation, core = engine.generation, engine_core_of(engine.pid)
    lines: list[str] = []

    async def listen() -> None:
        while True:
            await asyncio.sleep(0.2)
            lines.extend(server["line"] for server in heartbeat.read(folder, os.getpid()))
            if engine.generation > generation:  # its successor may take a breath
                monkeypatch.setattr(pulse_module, "STILL_SECONDS", 60.0)

    async def crawl() -> None:
        writing = asyncio.create_task(
            teacher.client.for_each([1], lambda n: write_number(teacher.client, n, 900))
        )
        while not teacher.client.endpoints.all[0].pulse.allowed_seconds():
            await asyncio.sleep(0.02)  # until it was seen to advance
        for _ in range(6):  # at work for a tenth of the time
            os.kill(core, signal.SIGSTOP)
            await asyncio.sleep(0.9)
            os.kill(core, signal.SIGCONT)
            await asyncio.sleep(0.1)
        await writing

    async def stop() -> None:
        async def write(number: int) -> None:
            await write_number(teacher.client, number, 20 * number)
            if number == 4:
                monkeypatch.setattr(pulse_module, "STILL_SECONDS", 2.0)
                os.kill(core, signal.SIGSTOP)

        await teacher.client.for_each(range(2, 16), write)

    async def both() -> None:
        async with beside(listen()):
            # As if the time without an answer were nearly over from the start.
            monkeypatch.setattr(endpoints_module, "SILENCE_SECONDS", 2.0)
            await crawl()
            assert engine.generation == generation
            monkeypatch.setattr(endpoints_module, "SILENCE_SECONDS", 600.0)
            await stop()

    teacher.run(both())
    assert engine.generation == generation + 1
    rows = turns(teacher, "prompt LIKE 'Stopped while%'")
    assert len(rows) == len({row["prompt"] for row in rows}) == 15
    assert any(line.startswith("slow: ") for line in lines)
    assert any("counters stand still, restart in" in line for line in lines)
    told = teacher.context.store.query(
        "SELECT kind, detail FROM event WHERE kind IN ('engine_slow', 'engine_died')"
        " ORDER BY happened_at DESC LIMIT 2"
    )
    assert [row["kind"] for row in told] == ["engine_died", "engine_slow"]
    assert "its counters stand still" in told[0]["detail"]


PARENT = """
    import asyncio, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from engines import _Run, embedded_config
    from localism.serving.server import serve

    async def main(context):
        async with serve(context, "teacher", "generate") as client:
            await client.ready()
            print(client.engine.pid, flush=True)
            await asyncio.sleep(300)

    with _Run(Path({folder!r}), embedded_config()) as run:
        asyncio.run(main(run.context))
"""


@pytest.fixture
def serving_process(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own that serves the teacher and waits."""
    tests = str(Path(__file__).parents[1])
    script = textwrap.dedent(PARENT.format(tests=tests, folder=str(tmp_path / "run")))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(tests).parent), tests])},
    )
    yield process
    process.kill()
    process.communicate()


def ended(session: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while session_processes(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    return session_processes(session) == []


def test_kill_9_of_localism_leaves_no_engine(serving_process):
    session = int(serving_process.stdout.readline())
    assert len(session_processes(session)) >= 3
    serving_process.kill()
    assert ended(session, 30)


def test_ctrl_c_while_an_engine_starts_ends_it_within_seconds(serving_process, tmp_path):
    record = tmp_path / "run/logs/engine-teacher.json"
    while not record.exists() or not record.read_text():
        time.sleep(0.1)
    session = json.loads(record.read_text())["session"]
    while len(session_processes(session)) < 2:
        time.sleep(0.1)
    time.sleep(3)  # well into its imports
    serving_process.send_signal(signal.SIGINT)
    _, errors = serving_process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert session_processes(session) == [] and not record.exists()


def test_an_engine_that_cannot_start_says_why_and_what_to_change(new_context: NewContext):
    context = new_context(embedded_config(teacher={"max_model_len": 99_999}))

    async def start() -> None:
        async with serve(context, "teacher", "generate") as client:
            await client.ready()

    with pytest.raises(StageError) as error:
        asyncio.run(start())
    assert "max_model_len is longer than the model can read" in error.value.problem
    assert error.value.fix == "lower [teacher].max_model_len to at most 1024, or remove it"
    assert "logs/generate-teacher.log" in error.value.where
    assert "99999" in error.value.where
    assert not (context.folder / "logs" / "engine-teacher.json").exists()


# ---- swapping weights ----------------------------------------------------------------------

# Longer than several blocks of the prefix cache, so that a stale cache would show.
LONG = "Here is a long list: " + ", ".join(f"plan {n} tasks" for n in range(60)) + ". Item {}?"
LETTERS = ("a", "b", "c")


def perturbed(folder: Path, seed: int) -> Path:
    """A copy of the embedded student with other weights, as training would leave it."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(embedded("embedded:student"), folder)
    torch.manual_seed(seed)
    tensors = load_file(folder / "model.safetensors")
    moved = {name: (t.float() * (1 + 0.2 * torch.randn(t.shape))) for name, t in tensors.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def without_a_layer(folder: Path) -> Path:
    shutil.copytree(embedded("embedded:student"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    return folder


def damaged_checkpoints(folder: Path) -> dict[Path, str]:
    """Checkpoints that must not reach an engine, and what is to be said of each."""
    from safetensors.torch import load_file, save_file

    torn, reshaped = perturbed(folder / "torn", 3), perturbed(folder / "reshaped", 4)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    tensors = load_file(reshaped / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()
    save_file(tensors, reshaped / "model.safetensors")
    return {
        without_a_layer(folder / "bad"): "num_hidden_layers",
        folder / "absent": "does not exist",
        torn: "damaged",
        reshaped: "model.norm.weight",
    }


def test_swapped_weights_answer_as_fresh_ones_and_no_process_is_left(new_context, tmp_path):
    """One engine, four swaps; float32 so that the comparison is exact.

    The student is a base model as they come: without a chat template of its own.
    """
    base = tmp_path / "base"
    shutil.copytree(embedded("embedded:student"), base)
    template = (base / "chat_template.jinja").rename(tmp_path / "template.jinja")
    context = new_context(embedded_config(student={"path": str(base), "dtype": "float32"}))
    one, two = perturbed(tmp_path / "one", 1), perturbed(tmp_path / "two", 2)
    asked = iter(range(100))

    async def compare(client: Client, folder: Path) -> tuple[float, ...]:
        prompt = LONG.format(next(asked))
        choice = await client.choose(prompt, LETTERS, "judge")
        assert not choice.from_ledger
        expected = reference_logprobs(folder, prompt, LETTERS, "float32", template.read_text())
        assert choice.logprobs == pytest.approx(expected, abs=2e-3)
        return choice.logprobs

    async def swap_around() -> int:
        async with serve(context, "student", "pick", template) as client:
            await client.ready()
            engine = client.engine
            session, answers = engine.pid, {}
            for folder in (base, one, two, base):
                await client.load_weights(folder)
                answers[folder] = await compare(client, folder)
            assert len(set(answers.values())) == 3
            reply = await client.conversation().say("Hello?", template="x", sampling=GREEDY)

            for folder, problem in damaged_checkpoints(tmp_path).items():
                with pytest.raises(ConfigError, match=problem) as refused:
                    await client.load_weights(folder)
                assert str(folder) in refused.value.where
            assert (engine.pid, engine.folder) == (session, base)
            await compare(client, base)

            os.kill(server_of(session), signal.SIGKILL)  # the swap finds a dead engine
            await client.load_weights(one)
            await compare(client, one)
            assert engine.pid != session and session_processes(session) == []
            again = await client.conversation().say("Hello?", template="x", sampling=GREEDY)
            assert reply.turn_id != again.turn_id
            return engine.pid

    session = asyncio.run(swap_around())
    assert session_processes(session) == []
    assert events(context) == [
        "engine_started",
        "engine_stopped",
        "engine_started",
        "engine_stopped",
    ]
    fingerprints = context.store.query("SELECT DISTINCT model_fingerprint AS f FROM turn")
    assert len(fingerprints) == 3
