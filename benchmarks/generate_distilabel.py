"""distilabel 1.5.3 over HTTP: one side of benchmarks/generate.py, run by a Python of its own.

Reads one JSON object from standard input (url, key, model, batch, conversations, folder), holds the
conversations as a chain of one Task a turn, and prints a JSON object. Steps are processes, and all
of them work at once, each at one batch: with a batch of everything this is a turn-by-turn barrier.

The clock runs from the first request to the last reply: starting processes, and writing the
Parquet files at the end, is not counted. Nothing here imports localism.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import Task

# Seconds; distilabel's own 120 would send queued requests twice on a slow machine.
TIMEOUT_SECONDS = 3600


class ExactLength(OpenAILLM):
    """OpenAILLM has one max_new_tokens for a whole step; here each request brings its own."""

    spent_into: str
    _spent: dict[str, float] = {}

    async def agenerate(  # type: ignore[override]
        self,
        input: Any,
        num_generations: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        extra_body: dict[str, Any] | None = None,
    ) -> Any:
        """One request.

        Args:
            input: messages, the last of which has `max_tokens` beside role and content.
            num_generations: replies to the same messages.
            temperature: of the turn.
            top_p: of the turn.
            extra_body: further parameters of vLLM.
        """
        self._spent.setdefault("first", time.monotonic())
        self._spent.setdefault("cpu_at_first", time.process_time())
        messages = [{"role": m["role"], "content": m["content"]} for m in input]
        output = await super().agenerate(
            input=messages,
            num_generations=num_generations,
            max_new_tokens=input[-1]["max_tokens"],
            temperature=temperature,
            top_p=top_p,
            extra_body=extra_body,
        )
        self._spent["last"] = time.monotonic()
        self._spent["cpu_at_last"] = time.process_time()
        if output["statistics"]["output_tokens"] != [input[-1]["max_tokens"]]:
            raise ValueError(f"{output['statistics']}, asked for {input[-1]['max_tokens']}")
        return output

    def unload(self) -> None:
        """Also note times and CPU seconds of this step's process."""
        (Path(self.spent_into) / f"{os.getpid()}.json").write_text(json.dumps(self._spent))
        super().unload()


class Turn(Task):
    """messages + this turn's prompt -> messages with the reply."""

    turn: int

    @property
    def inputs(self) -> list[str]:
        return ["messages", "requests"]

    @property
    def outputs(self) -> list[str]:
        return ["messages", "model_name"]

    def format_input(self, input: dict[str, Any]) -> list[dict[str, Any]]:
        request = input["requests"][self.turn]
        question = {"role": "user", "content": request["prompt"]}
        return [*input["messages"], {**question, "max_tokens": request["max_tokens"]}]

    def format_output(
        self, output: str | None, input: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        assert input is not None
        question = {"role": "user", "content": input["requests"][self.turn]["prompt"]}
        reply = {"role": "assistant", "content": output}
        return {"messages": [*input["messages"], question, reply]}


def pipeline(asked: dict[str, Any]) -> Any:
    """One Task a turn, each with a client of its own."""

    rows = [{"messages": [], "requests": requests} for requests in asked["conversations"]]
    with Pipeline(name="conversations", cache_dir=asked["folder"]) as made:
        before = LoadDataFromDicts(data=rows, batch_size=asked["batch"])
        for number, request in enumerate(asked["conversations"][0]):
            turn = Turn(
                name=f"turn_{number}",
                turn=number,
                input_batch_size=asked["batch"],
                # The rows hold the conversation already; copies of it would only slow this down.
                add_raw_input=False,
                add_raw_output=False,
                llm=ExactLength(
                    model=asked["model"],
                    base_url=asked["url"],
                    api_key=asked["key"],
                    timeout=TIMEOUT_SECONDS,
                    spent_into=asked["folder"],
                    generation_kwargs={
                        "temperature": request["temperature"],
                        "top_p": request["top_p"],
                        "extra_body": {"ignore_eos": True},
                    },
                ),
            )
            before >> turn
            before = turn
    return made


def main() -> None:
    """One run of the pipeline, checked."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # distilabel logs to standard output
    asked = json.load(sys.stdin)
    made = pipeline(asked)
    used = resource.getrusage(resource.RUSAGE_SELF)
    finished = made.run(use_cache=False)
    used_then = resource.getrusage(resource.RUSAGE_SELF)
    rows = finished["default"]["train"]
    turns = len(asked["conversations"][0])
    whole = [
        r
        for r in rows["messages"]
        if len(r) == 2 * turns and all(m["content"] is not None for m in r)
    ]
    assert len(whole) == len(asked["conversations"]), (
        f"{len(whole)} of {len(asked['conversations'])} conversations are whole"
    )
    steps = [json.loads(file.read_text()) for file in Path(asked["folder"]).glob("[0-9]*.json")]
    steps = [step for step in steps if step]
    assert len(steps) == turns, f"{len(steps)} steps for {turns} turns"
    measured = {
        "seconds": max(s["last"] for s in steps) - min(s["first"] for s in steps),
        "client_cpu_seconds": sum(s["cpu_at_last"] - s["cpu_at_first"] for s in steps)
        + (used_then.ru_utime + used_then.ru_stime - used.ru_utime - used.ru_stime),
    }
    print(json.dumps(measured), file=answers)


if __name__ == "__main__":
    main()
