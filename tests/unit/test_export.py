"""Data and models as folders: what is in them, whole or not at all, and whose files stay."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner
from engines import embedded_config
from exports import OTHER, TEXTS, WRITER, add_checkpoint, fill

from localism.cli.main import cli
from localism.config import Config
from localism.context import Context
from localism.errors import LocalismError, MachineError, StageError, UsageError
from localism.export.folder import SUMS, whole_folder
from localism.export.make import Asked, export, keep_in_run
from localism.export.rows import PROVENANCE, pages, training_set
from localism.export.shapes import SHAPES
from localism.paths import embedded
from localism.recipe import write_recipe
from localism.store import Store

Made = namedtuple("Made", "folder config store")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """A curated run with its corpus open."""
    config = embedded_config()
    (tmp_path / "run").mkdir()
    with Store(tmp_path / "run" / "corpus.duckdb") as store:
        fill(store, config)
        yield Made(tmp_path / "run", config, store)


def exported(made: Made, target: Path, **asked: object) -> dict:
    return export(made.store.query, made.folder, made.config, Asked(target, **asked))


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sums_hold(folder: Path) -> bool:
    done = subprocess.run(["sha256sum", "-c", "--quiet", SUMS], cwd=folder, capture_output=True)
    return done.returncode == 0


# ---- data ----------------------------------------------------------------------------------


def test_every_shape_holds_the_accepted_examples_word_for_word(made, tmp_path) -> None:
    exported(made, tmp_path / "out", forms=tuple(SHAPES))
    names = ("m0", "m1", "m2")
    for form, shape in SHAPES.items():
        lines = jsonl(tmp_path / "out" / form / "train.jsonl")
        table = pyarrow.parquet.read_table(tmp_path / "out" / form / "train.parquet").to_pylist()
        assert lines == table
        assert tuple(lines[0]) == (*shape.columns, *PROVENANCE)
        for name, row in zip(names, lines, strict=True):
            assert row.items() >= shape.of(*TEXTS[name]).items()
    (alpaca, *_) = jsonl(tmp_path / "out/alpaca/train.jsonl")
    assert (alpaca["instruction"], alpaca["input"], alpaca["output"]) == (
        TEXTS["m0"][0], "", TEXTS["m0"][1],
    )  # fmt: skip
    (paired, *_) = jsonl(tmp_path / "out/prompt-completion/train.jsonl")
    assert paired["prompt"] == [{"role": "user", "content": TEXTS["m0"][0]}]
    assert paired["completion"] == [{"role": "assistant", "content": TEXTS["m0"][1]}]
    assert sums_hold(tmp_path / "out")


def test_a_row_says_where_it_came_from(made, tmp_path) -> None:
    facts = exported(made, tmp_path / "out", kinds=("jsonl",))
    (row,) = jsonl(tmp_path / "out/instruction/dev.jsonl")
    assert {name: row[name] for name in PROVENANCE} == {
        "mix_id": "d0",
        "skills": ["tea", "river"],
        "clusters": ["drinks", "places"],
        "query_type": "question",
        "sources": ["seeds.jsonl"],
        "teacher": "embedded:teacher",
        "teacher_fingerprint": WRITER,
        "prompt_pack": "compact",
        "prompt_pack_fingerprint": "prompts-print",
        "licence": "apache-2.0",
    }
    splits = {row["split"]: row for row in facts["splits"]}
    assert set(splits) == {"train", "dev"}  # there is no test example, and so no file of none
    assert not (tmp_path / "out/instruction/test.jsonl").exists()
    assert splits["train"]["examples"] == 3
    assert splits["train"]["response_tokens"] == 8 and splits["train"]["response_tokens_sum"] == 24
    assert splits["train"]["response_characters_median"] == 10


def test_rows_of_a_set_name_who_wrote_them(made) -> None:
    from localism.export.rows import Provenance

    def writers(name: str) -> list[tuple]:
        chosen = training_set(made.store.query, name)
        provenance = Provenance(made.store.query, made.config, chosen, "mit")
        rows = [row for page in pages(made.store.query, chosen, "train") for row in page]
        told = [provenance.of(row) for row in rows]
        return [(row["teacher"], row["teacher_fingerprint"], row["sources"]) for row in told]

    seeds = ["seeds.jsonl"]
    assert writers("other") == [("Gemma-2-9b", OTHER, seeds)] * 2
    # Taken over from `other`, and written anew for this one.
    assert writers("short") == [("Gemma-2-9b", OTHER, seeds), ("Gemma-2-9b", WRITER, seeds)]
    assert writers("filed") == [(None, None, ["alpaca.json"])]


def test_a_set_of_another_teacher_has_that_ones_licence(made, tmp_path) -> None:
    facts = exported(made, tmp_path / "out", set_name="other")
    assert facts["licences"]["roles"]["teacher /models/Gemma-2-9b"]["restricts"] is None
    card = (tmp_path / "out/README.md").read_text()
    assert "teacher Gemma-2-9b | unknown" in card and "license: \"unknown\"" in card  # fmt: skip
    facts = exported(made, tmp_path / "filed", set_name="filed")
    assert (
        "teacher" in facts["licences"]["roles"] and facts["licences"]["data"]["name"] == "unknown"
    )


def test_rows_come_page_by_page_and_none_is_lost(made, monkeypatch) -> None:
    from localism.export import rows

    monkeypatch.setattr(rows, "PAGE", 1)
    chosen = training_set(made.store.query, "accepted")
    found = [[row["mix_id"] for row in page] for page in pages(made.store.query, chosen, "train")]
    assert found == [["m0"], ["m1"], ["m2"]]


def test_the_card_names_no_folder_of_this_machine(made, tmp_path) -> None:
    for name in ("accepted", "other", "filed"):
        exported(made, tmp_path / name, set_name=name)
        card = (tmp_path / name / "README.md").read_text()
        assert "/data/" not in card and "/models/" not in card and str(tmp_path) not in card
    card = (tmp_path / "accepted/README.md").read_text()
    assert "| length | 1 |" in card and "| repetition | 0 |" in card
    assert "Of 5 planned examples 4 were accepted" in card
    assert "This is a rehearsal" in card


def test_a_corpus_of_before_tokens_were_counted_says_so(made, tmp_path) -> None:
    for name in ("instruction_tokens", "response_tokens"):
        made.store.execute(f"ALTER TABLE candidate DROP COLUMN {name}")
    facts = exported(made, tmp_path / "out")
    assert facts["splits"][0]["response_tokens"] is None
    assert "Tokens were not counted" in (tmp_path / "out/README.md").read_text()


def test_the_runs_own_export_is_renewed_and_somebodys_file_is_left_alone(made) -> None:
    class Told:
        warned: list[str] = []

        def say(self, line: str) -> None:
            self.warned.append(line)

    context = Context(made.config, made.store, made.folder, Told())
    (made.folder / "export").mkdir()
    (made.folder / "export" / "train.jsonl").write_text("of an earlier version\n")
    assert keep_in_run(context) == {"train": 3, "dev": 1}
    assert not (made.folder / "export/train.jsonl").exists()
    assert keep_in_run(context) == {"train": 3, "dev": 1}
    (made.folder / "export" / "notes.txt").write_text("mine")
    assert keep_in_run(context) == {}
    assert "notes.txt" in Told.warned[-1]
    assert (made.folder / "export" / "notes.txt").read_text() == "mine"


# ---- a model -------------------------------------------------------------------------------

STUDENT = embedded("embedded:student")


def test_a_model_is_copied_without_what_only_training_needs(made, tmp_path) -> None:
    folder = add_checkpoint(made.store, made.folder, STUDENT)
    for name in ("checkpoint.json", "optimizer.pt", "trainer_state.json", "training_args.bin"):
        (folder / name).write_text("{}")
    (folder / "resume").mkdir()
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_text("matrices")
    facts = exported(made, tmp_path / "out", what="model")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(path.name for path in STUDENT.iterdir()), "README.md", SUMS,
    }  # fmt: skip
    assert facts["checkpoint"] == "epoch-02" and sums_hold(tmp_path / "out")
    weights = "model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (STUDENT / weights).read_bytes()
    card = (tmp_path / "out/README.md").read_text()
    assert "Epoch 2 of 2, picked" in card and "has not been measured" in card


def test_the_models_card_has_the_verdict_with_its_interval_and_the_tie_set(made, tmp_path) -> None:
    add_checkpoint(made.store, made.folder, STUDENT)
    more = {"training": "main", "step": 2, "path": "removed", "fingerprint": "x"}
    made.store.add("checkpoint", checkpoint_id="epoch-01", epoch=1, train_loss=1.0, dev_loss=1.0,
                   picked=False, tied=True, **more)  # fmt: skip
    scores = [("epoch-02", "preference_gain", 12.34), ("epoch-02", "win_rate", 55.5),
              ("base", "win_rate", 43.2)]  # fmt: skip
    for model_id, metric, value in scores:
        made.store.add("score", model_id=model_id, split="test", metric=metric, value=value,
                       low=value - 2, high=value + 2, n=60, unscored=3, note=None)  # fmt: skip
    exported(made, tmp_path / "out", what="model")
    card = (tmp_path / "out/README.md").read_text()
    assert "**+12.3 points**" in card and "(95% CI 10.3 to 14.3); 3 unscored" in card
    assert "| win rate | 43.2 | 55.5 | 53.5 to 57.5 | 60 |" in card
    assert "cannot be told apart there: epoch-01" in card
    assert "the judge is the teacher itself" in card
    with pytest.raises(StageError, match="were removed"):
        exported(made, tmp_path / "two", what="model", checkpoint="epoch-01")


def test_a_model_that_is_not_the_measured_one_is_not_exported(made, tmp_path) -> None:
    folder = add_checkpoint(made.store, made.folder, STUDENT)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:2_000_000] + bytes(100_000) + content[2_100_000:])
    with pytest.raises(StageError, match="not what the run trained"):
        exported(made, tmp_path / "out", what="model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]  # nothing is left of it


def test_a_link_in_a_checkpoint_is_not_followed(made, tmp_path) -> None:
    folder = add_checkpoint(made.store, made.folder, STUDENT)
    (folder / "secrets.json").symlink_to("/etc/hostname")
    with pytest.raises(LocalismError, match="link"):
        exported(made, tmp_path / "out", what="model")


def test_a_base_model_gives_its_licence_along_and_its_name(made, tmp_path) -> None:
    base = tmp_path / "Llama-3.2-1B"
    shutil.copytree(STUDENT, base)
    (base / "LICENSE.txt").write_text("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT")
    (base / "USE_POLICY.md").write_text("No.")
    (base / "NOTICE").symlink_to("/etc/hostname")
    config = embedded_config(student={"path": str(base)})
    add_checkpoint(made.store, made.folder, STUDENT)
    exported(Made(made.folder, config, made.store), tmp_path / "out", what="model")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"LICENSE.txt", "USE_POLICY.md"} and "NOTICE" not in names
    card = (tmp_path / "out/README.md").read_text()
    assert "license: \"llama3.2\"" in card and "# Llama-first" in card  # fmt: skip
    assert 'Its name must begin with "Llama"' in card


def test_all_is_a_folder_of_both(made, tmp_path) -> None:
    add_checkpoint(made.store, made.folder, STUDENT)
    exported(made, tmp_path / "out", what="all")
    assert (tmp_path / "out/data/README.md").exists()
    assert (tmp_path / "out/model/config.json").exists()
    assert sums_hold(tmp_path / "out")


def test_what_a_licence_forbids_wants_a_yes(made, tmp_path) -> None:
    config = embedded_config(licences={"teacher": "qwen-research"})
    research = Made(made.folder, config, made.store)
    with pytest.raises(UsageError, match="forbids commercial use"):
        exported(research, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    exported(research, tmp_path / "out", accept_licences=True)
    card = (tmp_path / "out/README.md").read_text()
    assert 'license: "other"\nlicense_name: "qwen-research"' in card
    assert "**teacher (Qwen Research License) forbids commercial use**" in card


def test_the_bases_licence_stands_against_its_model_and_not_against_data(made, tmp_path) -> None:
    config = embedded_config(licences={"student": "cc-by-nc-4.0"})
    research = Made(made.folder, config, made.store)
    add_checkpoint(made.store, made.folder, STUDENT)
    exported(research, tmp_path / "data")
    with pytest.raises(UsageError, match="student .* forbids commercial use"):
        exported(research, tmp_path / "model", what="model")


def test_a_run_that_is_not_curated_has_nothing_to_export(tmp_path) -> None:
    config = embedded_config()
    with Store(tmp_path / "corpus.duckdb") as store:
        fill(store, config, curated=False)
        with pytest.raises(UsageError, match="not been curated"):
            exported(Made(tmp_path, config, store), tmp_path / "out")


# ---- whole or not at all -------------------------------------------------------------------


def written(target: Path, text: str, **options: object) -> None:
    with whole_folder(target, **options) as folder:
        (folder / "file").write_text(text)


def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path) -> None:
    with pytest.raises(ValueError, match="half"), whole_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
        raise ValueError("half")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_when_asked_and_only_if_it_was_an_export(tmp_path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    written(target, "one")  # an empty folder is as good as none
    with pytest.raises(UsageError, match="not empty"):
        written(target, "two")
    written(target, "two", overwrite=True)
    assert (target / "file").read_text() == "two" and sums_hold(target)
    (target / "mine").write_text("mine")
    with pytest.raises(UsageError, match="no export wrote: mine"):
        written(target, "three", overwrite=True)
    (target / "mine").unlink()
    (target / "file").unlink()
    (target / "file").symlink_to(tmp_path)  # a link is nobody's export, whatever its name
    with pytest.raises(UsageError, match="no export wrote: file"):
        written(target, "three", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_target_that_is_a_link_or_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name, problem in (("link", "is a link"), ("file", "there is a file")):
        with pytest.raises(UsageError, match=problem):
            written(tmp_path / name, "x", overwrite=True)
    assert list((tmp_path / "real").iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_copied(tmp_path) -> None:
    with pytest.raises(MachineError, match="are free"):
        written(tmp_path / "out", "x", needed_bytes=10**18)
    assert list(tmp_path.iterdir()) == []


def test_two_exports_to_one_folder_do_not_meet(tmp_path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("first")
        with pytest.raises(UsageError, match="another process"):
            written(tmp_path / "out", "second")
    assert (tmp_path / "out/file").read_text() == "first"


def test_kill_9_loses_neither_the_old_export_nor_the_next(tmp_path) -> None:
    target = tmp_path / "out"
    written(target, "old")
    script = (
        "import sys, time; from pathlib import Path\n"
        "from localism.export.folder import whole_folder\n"
        f"with whole_folder(Path({str(target)!r}), overwrite=True) as folder:\n"
        "    (folder / 'file').write_text('torn')\n"
        "    print('here', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"here\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert (target / "file").read_text() == "old"
    written(target, "new", overwrite=True)
    assert (target / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_kill_between_the_two_renames_is_mended_by_the_next_export(tmp_path) -> None:
    target = tmp_path / "out"
    written(target, "old")
    target.rename(tmp_path / ".out.replaced")
    with pytest.raises(UsageError, match="not empty"):
        written(target, "new")
    assert (target / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


# ---- the commands --------------------------------------------------------------------------


@pytest.fixture
def run_folder(made: Made) -> Path:
    """A run as the command line finds it, closed; its models.toml states a licence."""
    models = made.folder / "models.toml"
    shown: Config = made.config
    models.write_text('[licences]\nteacher = "llama3.3"\n')
    write_recipe(made.folder, models, (), shown)
    made.store.close()
    return made.folder


def call(*arguments: str):
    return CliRunner().invoke(cli, list(arguments))


def test_the_command_says_what_it_wrote_and_what_the_licence_demands(run_folder, tmp_path) -> None:
    target = tmp_path / "out"
    done = call("export", "--run", str(run_folder), "--to", str(target), "--format", "alpaca",
                "--split", "train", "--files", "jsonl")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "3 train examples of accepted: alpaca as jsonl" in done.stdout
    assert 'must begin with "Llama"' in done.stdout
    assert [str(p.relative_to(target)) for p in sorted(target.rglob("*.*l"))] == [
        "alpaca/train.jsonl"
    ]
    facts = call("export", "--run", str(run_folder), "--to", str(target), "--overwrite", "--json")
    assert json.loads(facts.stdout)["splits"][0]["examples"] == 3


def test_licences_are_rolled_up_for_people_and_programs(run_folder) -> None:
    text = call("licences", "--run", str(run_folder)).stdout
    assert "models.toml: [licences] llama3.3" in text
    assert text.count("not legal advice") == 1
    facts = json.loads(call("licences", "--run", str(run_folder), "--on", "other", "--json").stdout)
    assert facts["data"]["name"] == "unknown" and facts["data"]["demands"]
    assert facts["roles"]["teacher /models/Gemma-2-9b"]["restricts"] is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--what", "model"], "no checkpoint of main has been picked"),
        (["--what", "model", "--format", "alpaca"], "--format says nothing"),
        (["--checkpoint", "epoch-01"], "--checkpoint says nothing"),
        (["--on", "nothing"], "there is no training set 'nothing'"),
    ],
)
def test_what_cannot_be_exported_is_told(run_folder, tmp_path, arguments, problem) -> None:
    target = str(tmp_path / "out")
    refused = call("export", "--run", str(run_folder), "--to", target, *arguments).exception
    assert isinstance(refused, UsageError) and problem in refused.problem
    assert not (tmp_path / "out").exists()
