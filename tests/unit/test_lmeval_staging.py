"""What a lab brings in is found, checked and kept; what is wrong with it is said, with the fix."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from localism.errors import ConfigError, UsageError
from localism.lmeval import staging
from localism.lmeval.staging import SAMPLES, load, stage
from localism.lmeval.tasks import ALL, TASKS


def sample(task: str, file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLES / task / file).read_text().splitlines()]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


PIQA = sample("piqa", "validation.jsonl")
ARC = sample("arc_challenge", "ARC-Challenge/test.jsonl")
MMLU = sample("mmlu", "anatomy/test.jsonl")


def test_the_sample_of_every_task_is_right_and_has_twenty_items(tmp_path):
    summary = stage(SAMPLES, tmp_path)
    assert [one.name for one in summary.staged] == list(TASKS)
    assert summary.absent == ()
    for one in summary.staged:
        assert one.items == 20 * max(1, len(TASKS[one.name].subjects) - len(one.missing))
        assert one.note == f"{one.items} items of localism's own, not the benchmark"
        assert load(tmp_path, one.name) == one


def test_shards_are_found_by_the_readme_of_the_repository(tmp_path):
    home = tmp_path / "in/ai2_arc"
    write_parquet(home / "hard/part-1.parquet", ARC[:12])
    write_parquet(home / "hard/part-2.parquet", ARC[12:])
    write_parquet(home / "easy/test-00000-of-00001.parquet", ARC[:3])
    (home / "README.md").write_text(
        "---\nlicense: cc-by-sa-4.0\nconfigs:\n- config_name: ARC-Challenge\n  data_files:\n"
        "  - split: test\n    path: hard/part-*\n- config_name: ARC-Easy\n  data_files:\n"
        "  - split: test\n    path: easy/*\n---\n# The card\n---\n"
    )
    (staged,) = stage(tmp_path / "in", tmp_path / "out", ["arc_challenge"]).staged
    assert staged.items == 20
    kept = parquet.read_table(staged.folder / staged.parts[0].file).to_pylist()
    assert [row["question"] for row in kept] == [row["question"] for row in ARC]


@pytest.mark.parametrize(
    "file",
    [
        "piqa/validation.jsonl",
        "piqa/data/validation-00000-of-00001.parquet",
        "piqa/plain_text/validation-00000-of-00001.parquet",
        "baber/piqa/validation/0000.parquet",
        "baber--piqa/validation.parquet",
    ],
)
def test_the_usual_places_of_a_split_are_known(tmp_path, file):
    write = write_lines if file.endswith("jsonl") else write_parquet
    write(tmp_path / "in" / file, PIQA)
    assert stage(tmp_path / "in", tmp_path / "out").staged[0].items == 20


def test_a_folder_of_another_configuration_is_not_taken_for_the_one_that_is_meant(tmp_path):
    write_lines(tmp_path / "in/arc_challenge/ARC-Easy/test.jsonl", ARC)
    assert refusal(tmp_path).problem == "arc_challenge has no split test"
    write_lines(tmp_path / "in/arc_challenge/ARC-Challenge/test.jsonl", ARC[:7])
    assert stage(tmp_path / "in", tmp_path / "out").staged[0].items == 7


def test_the_same_rows_have_one_fingerprint_whatever_their_format(tmp_path):
    write_lines(tmp_path / "a/piqa/validation.jsonl", PIQA)
    write_parquet(tmp_path / "b/piqa/validation.parquet", [{**row, "extra": 1} for row in PIQA])
    changed = [{**PIQA[0], "goal": "To rest,"}, *PIQA[1:]]
    write_lines(tmp_path / "c/piqa/validation.jsonl", changed)
    a, b, c = (
        stage(tmp_path / name, tmp_path / "out" / name).staged[0].fingerprint for name in "abc"
    )
    assert a == b != c


def test_a_staged_folder_may_be_moved(tmp_path):
    write_lines(tmp_path / "in/piqa/validation.jsonl", PIQA)
    (before,) = stage(tmp_path / "in", tmp_path / "out").staged
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    after = load(tmp_path / "elsewhere", "piqa")
    assert (after.fingerprint, after.parts) == (before.fingerprint, before.parts)
    assert after.note == "20 items, the benchmark has 1,838"


def test_the_commit_that_hf_download_noted_is_kept_and_its_cache_not_read(tmp_path):
    home = tmp_path / "in/piqa"
    write_lines(home / "validation.jsonl", PIQA)
    noted = home / ".cache/huggingface/download/validation.jsonl.metadata"
    noted.parent.mkdir(parents=True)
    noted.write_text("abc123\netag\n1790000000.0\n")
    write_lines(home / ".cache/data/validation.jsonl", PIQA)
    assert stage(tmp_path / "in", tmp_path / "out").staged[0].revision == "abc123"
    manifest = json.loads((tmp_path / "out/piqa/manifest.json").read_text())
    assert manifest["revision"] == "abc123"
    assert list(manifest["files"]) == ["validation.jsonl"]


def test_subjects_that_are_absent_are_named_and_incomplete_ones_refused(tmp_path):
    home = tmp_path / "in/mmlu"
    for split in ("dev", "test"):
        write_lines(home / f"virology/{split}.jsonl", MMLU)
    summary = stage(tmp_path / "in", tmp_path / "out")
    assert len(summary.staged[0].missing) == 56
    assert "virology" not in summary.staged[0].missing
    assert "56 of 57 subjects are not staged" in str(summary)
    assert "mmlu lacks: abstract_algebra, anatomy" in str(summary)
    write_lines(home / "anatomy/test.jsonl", MMLU)
    with pytest.raises(ConfigError) as refused:
        stage(tmp_path / "in", tmp_path / "out")
    assert refused.value.problem == "mmlu (anatomy) has no split dev"
    assert "anatomy/dev-*.parquet" in refused.value.fix


def test_a_failed_staging_leaves_the_earlier_one_and_other_tasks_alone(tmp_path):
    write_lines(tmp_path / "in/piqa/validation.jsonl", PIQA)
    write_lines(tmp_path / "in/arc_challenge/test.jsonl", ARC)
    before = stage(tmp_path / "in", tmp_path / "out")
    assert len(before.staged) == 2
    write_lines(tmp_path / "in/piqa/validation.jsonl", [*PIQA, {"goal": "?"}])
    with pytest.raises(ConfigError):
        stage(tmp_path / "in", tmp_path / "out", ["piqa"])
    for one in before.staged:
        assert load(tmp_path / "out", one.name) == one
    write_lines(tmp_path / "in/piqa/validation.jsonl", PIQA[:5])
    stage(tmp_path / "in", tmp_path / "out", ["piqa"])
    assert load(tmp_path / "out", "piqa").items == 5
    assert load(tmp_path / "out", "arc_challenge").items == 20


def refusal(tmp_path: Path, *tasks: str) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        stage(tmp_path / "in", tmp_path / "out", tasks)
    assert refused.value.fix
    return refused.value


def test_a_folder_that_is_missing_is_named_with_the_command_that_fetches_it(tmp_path):
    write_lines(tmp_path / "in/piqa/validation.jsonl", PIQA)
    refused = refusal(tmp_path, "piqa", "race")
    assert refused.problem == "no folder with the data of race"
    assert "hf download --repo-type dataset EleutherAI/race --local-dir DIR/race" in refused.fix
    assert not (tmp_path / "out/piqa").exists() or load(tmp_path / "out", "piqa")


def test_an_empty_source_an_absent_one_and_an_unknown_task_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    assert "no folder with the data of arc_challenge" in refusal(tmp_path).problem
    with pytest.raises(ConfigError, match="there is no such folder"):
        stage(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UsageError, match="no task 'hellaswagg' here; is it hellaswag?"):
        stage(tmp_path / "in", tmp_path / "out", ["hellaswagg"])


def test_a_missing_split_is_named_with_what_is_there(tmp_path):
    write_lines(tmp_path / "in/gsm8k/main/test.jsonl", sample("gsm8k", "main/test.jsonl"))
    refused = refusal(tmp_path)
    assert refused.problem == "gsm8k has no split train"
    assert "main/test.jsonl" in refused.where
    assert "main/train-*.parquet" in refused.fix


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    rows = [{"goal": "To rest,", "solution": "sit.", "label": 0}]
    file = write_parquet(tmp_path / "in/piqa/validation.parquet", rows)
    refused = refusal(tmp_path)
    assert refused.problem == "column sol1 is missing"
    assert refused.where == f"{file} (columns: goal, solution, label)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "it is a Git LFS pointer"),
        (b"PAR1 and then nothing", "a data file cannot be read"),
        (b"", "a data file cannot be read"),
    ],
)
def test_a_damaged_file_is_said_to_be_so(tmp_path, content, said):
    file = tmp_path / "in/piqa/validation.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    refused = refusal(tmp_path)
    assert said in refused.problem
    assert refused.where == str(file)


def test_a_line_that_is_no_json_and_a_split_without_rows_are_refused(tmp_path):
    file = write_lines(tmp_path / "in/piqa/validation.jsonl", PIQA)
    file.write_text(file.read_text() + "{half\n")
    assert "cannot be read" in refusal(tmp_path).problem
    file.write_text("[1, 2]\n")
    assert "line 1 is not a JSON object" in refusal(tmp_path).problem
    file.write_text("\n\n")
    assert refusal(tmp_path).problem == "split validation has no rows"


def test_files_that_the_readme_names_and_that_are_absent_are_refused(tmp_path):
    write_lines(tmp_path / "in/piqa/validation.jsonl", PIQA)
    (tmp_path / "in/piqa/README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: validation\n    path: data/validation-*\n---\n"
    )
    assert refusal(tmp_path).problem == "files of split validation are missing: data/validation-*"


@pytest.mark.parametrize(
    "matter",
    ["configs: [text", "configs: 5", "configs: [1]", "x", "configs:\n- data_files: x.parquet"],
)
def test_a_readme_that_describes_nothing_is_passed_over(tmp_path, matter):
    write_lines(tmp_path / "in/piqa/validation.jsonl", PIQA)
    (tmp_path / "in/piqa/README.md").write_text(f"---\n{matter}\n---\n")
    assert stage(tmp_path / "in", tmp_path / "out").staged[0].items == 20


def test_the_same_split_twice_is_refused_since_items_would_count_twice(tmp_path):
    write_lines(tmp_path / "in/piqa/validation.jsonl", PIQA)
    write_parquet(tmp_path / "in/piqa/data/validation.parquet", PIQA)
    assert refusal(tmp_path).problem == "the same split is here more than once"


WRONG = [
    ("arc_challenge", {"answerKey": "E"}, "answerKey is 'E', not one of"),
    ("arc_challenge", {"choices": {"text": ["a"], "label": ["A", "B"]}}, "1 entries, not 2"),
    ("arc_challenge", {"choices": ["a", "b"]}, "choices.label is no list of texts"),
    ("arc_challenge", {"choices": {"text": ["a"], "label": 5}}, "choices.label is no list"),
    ("winogrande", {"answer": 1}, "answer is 1, not one of ['1', '2']"),
    ("winogrande", {"answer": ""}, "answer is ''"),
    ("winogrande", {"sentence": "No gap."}, "sentence has no _"),
    ("piqa", {"label": -1}, "label is -1, not one of [0, 1]"),
    ("piqa", {"label": True}, "label is True"),
    ("piqa", {"sol2": None}, "sol2 is None, not a text"),
    ("mmlu", {"answer": "B"}, "answer is 'B'"),
    ("mmlu", {"choices": ["a", "b", "c"]}, "choices has 3 entries, not 4"),
    (
        "truthfulqa_mc1",
        {"mc1_targets": {"choices": ["a", "b"], "labels": [0, 1]}},
        "1 for the firs",
    ),
    ("truthfulqa_mc1", {"mc1_targets": None}, "mc1_targets.choices is no list"),
    ("gsm8k", {"answer": "It is 7."}, "answer does not end in"),
    ("race", {"problems": "[]"}, "problems is not the text of a list"),
    ("race", {"problems": [{"question": "?"}]}, "problems is not the text of a list"),
    ("race", {"problems": "__import__('os')"}, "problems is not the text of a list"),
    ("hellaswag", {"label": ""}, "label is ''"),
    ("hellaswag", {"endings": "abcd"}, "endings is no list of texts"),
    ("humaneval", {"entry_point": "other"}, "prompt does not define entry_point"),
    ("humaneval", {"test": "assert True"}, "test has no function check"),
]


@pytest.mark.parametrize(("name", "change", "said"), WRONG)
def test_a_wrong_row_is_refused_with_its_place_and_what_is_wrong(tmp_path, name, change, said):
    task = TASKS[name]
    home = tmp_path / "in" / name
    shutil.copytree(SAMPLES / name, home)
    (file, *_) = sorted(home.rglob(f"{task.split}.jsonl"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    write_lines(file, [*rows[:2], {**rows[2], **change}, *rows[3:]])
    refused = refusal(tmp_path, name)
    assert refused.problem.startswith(f"not a row of {name}: ")
    assert said in refused.problem
    assert refused.where == f"{file}, row 3"
    assert task.hub in refused.fix


def test_every_task_has_a_wrong_row_above():
    assert {name for name, _, _ in WRONG} == {task.name for task in ALL}


def test_what_is_not_staged_or_was_altered_since_is_refused(tmp_path):
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, "piqa")
    assert refused.value.problem == "task piqa is not staged"
    assert staging.COMMAND in refused.value.fix
    (staged,) = stage(SAMPLES, tmp_path, ["piqa"]).staged
    data = staged.folder / staged.parts[0].file
    data.write_bytes(data.read_bytes() + b" ")
    with pytest.raises(ConfigError, match="piqa was altered or is incomplete: data/validation"):
        load(tmp_path, "piqa")
    data.unlink()
    with pytest.raises(ConfigError, match="piqa was altered or is incomplete: validation.parquet"):
        load(tmp_path, "piqa")
    (staged.folder / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="piqa was altered or is incomplete: manifest.json"):
        load(tmp_path, "piqa")


def test_the_page_gives_the_download_and_the_size_of_every_task():
    page = (Path(__file__).parents[2] / "docs/lm-eval.md").read_text()
    for task in ALL:
        assert f"    {task.download}\n" in page
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{task.name}` |")]
        assert f"{task.split}, {task.items:,} |" in row
