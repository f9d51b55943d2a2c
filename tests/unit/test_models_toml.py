"""Every mistake in models.toml is one error that says where it is and how to mend it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from localism import models_toml
from localism.cli.main import cli
from localism.errors import ConfigError, LocalismError, UsageError
from localism.prompting.packs import packaged

EMBEDDED = packaged("models.toml").read_text()
TEACHER = Path(models_toml.__file__).parent / "embedded" / "teacher"


def write(folder: Path, text: str = EMBEDDED) -> Path:
    path = folder / "models.toml"
    path.write_text(text)
    return path


def test_the_embedded_default_is_valid_and_a_rehearsal(tmp_path):
    loaded = models_toml.load(write(tmp_path))
    assert loaded.is_rehearsal()
    assert loaded.served("judge") is loaded.teacher
    assert loaded.served("student") is loaded.student


def test_the_h100_template_differs_from_a_loadable_file_only_by_its_paths(tmp_path):
    text = (Path(models_toml.__file__).parent / "templates" / "models-h100.toml").read_text()
    for role, path in (("teacher", "teacher-70b-instruct"), ("student", "student-3b-base")):
        model_that_reads(16_384, tmp_path / role, TEACHER.parent / role)
        text = text.replace(f"/models/{path}", role)
    loaded = models_toml.load(write(tmp_path, text))
    assert (loaded.train.epochs, loaded.mix.train, loaded.prompts.pack) == (15, 4000, "paper")


def model_that_reads(tokens: int, folder: Path, source: Path = TEACHER, **changes: object) -> None:
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"max_position_embeddings": tokens, **changes}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("override", "problem", "where", "fix"),
    [
        ("train.epoch=3", "unknown key epoch", "[train].epoch", "epochs"),
        ("trian.epochs=3", "unknown key trian", "trian", "train"),
        ("train.zzz=3", "unknown key zzz", "[train].zzz", "known here: epochs"),
        ("train.epochs=many", "has to be a whole number", '[train].epochs = "many"', "models-toml"),
        ("train.epochs=0", "has to be at least 1", "[train].epochs = 0", "models-toml"),
        ("train.batch=20", "not a multiple of micro_batch", "[train].batch", "multiple of 16"),
        ("mix.k=999", "has to be at most 20", "[mix].k = 999", "models-toml"),
        ("extract.method=sdx", 'cannot be "sdx"', '[extract].method = "sdx"', "did you mean sd"),
        ("extract.method=sd", "method", "[extract].method", 'possible: "sda", "sdd", "both"'),
        ("teacher.path=", "needs a path or endpoints", "[teacher]", "model folder"),
        ("teacher.path=nowhere", "does not exist", "[teacher].path", "config.json"),
        (
            'student.engine_arguments=["--tensor-parallel-size=2"]',
            "--tensor-parallel-size is for localism to pass on",
            "[student].engine_arguments",
            "[student].tensor_parallel instead",
        ),
        ("embedder.path=nowhere", "sentence-transformers", "[embedder].path", "minilm"),
        ("prompts.pack=nope", "no prompt pack", "[prompts].pack", "compact"),
        ("judge.path=embedded:teacher", "same_as", "[judge].same_as", "keep one"),
        ('student.endpoints=["http://a/v1"]', "needs a path or endpoints", "[student]", "path"),
        ("extract.seeds=[]", "needs seed examples", "[extract].seeds", "file or folder"),
        ('extract.seeds=["no.jsonl"]', "no seed data", "[extract].seeds[0]", "JSONL"),
        ("train.epochs='3'", "whole number", '[train].epochs = "3"', "without quotes: epochs = 3"),
        (
            "train.epochs=3.0",
            "whole number",
            "[train].epochs = 3.0",
            "without a fraction: epochs = 3",
        ),
        ("train.warmup='0.1'", "a number", "[train].warmup", "without quotes: warmup = 0.1"),
        ("train.warmup=2", "at most 1", "[train].warmup = 2", "models-toml"),
        ("train.learning_rate=0", "more than 0", "[train].learning_rate = 0", "models-toml"),
        ("train.learning_rate=inf", "a finite number", "[train].learning_rate", "models-toml"),
        ("pick.both_orders='true'", "true or false", "[pick].both_orders", "both_orders = true"),
        ("teacher.path=3", "text in quotes", "[teacher].path = 3", 'in quotes: path = "3"'),
        ("train=3", "train has to be a table", "[train] = 3", "write [train] on a line"),
        ("seed=-1", "at least 0", "seed = -1", "models-toml"),
        ("seed=4294967296", "less than 4,294,967,296", "seed = 4294967296", "models-toml"),
        ("mix.seed=-1", "at least 0", "[mix].seed = -1", "models-toml"),
        ("mix.train=99999999999", "less than 2,147,483,648", "[mix].train", "models-toml"),
        ('teacher.path="a\\u0000b"', "a zero character", "[teacher].path", "models-toml"),
        ('curate.benchmarks=["\\u0000"]', "a zero character", "[curate].benchmarks", "models-toml"),
        ("teacher.path=embedded:techer", "ships with", "[teacher].path", "did you mean teacher"),
        ("embedder.path=embedded:minlm", "ships with", "[embedder].path", "embedded:minilm"),
        ('extract.seeds=["embedded:seed"]', "ships with", "seeds[0]", "embedded:seeds.jsonl"),
        ("student.path=embedded:../..", "ships with", "[student].path", "embedded:student"),
        ("teacher.path=~nobody-of-this-name/x", "does not exist", "[teacher].path", "config.json"),
        ("prompts.pack=compct", "no prompt pack", "[prompts].pack", "did you mean compact"),
        ("extract.seeds=a.jsonl", "seeds has to be a list", "[extract].seeds", '["a.jsonl"]'),
        ("extract.seeds=[3]", "an item of seeds", "[extract].seeds[0] = 3", "models-toml"),
        ('extract.seeds=[""]', "no seed data", "[extract].seeds[0]", "JSONL"),
        ('extract.seeds=[{pth="a"}]', "unknown key pth", "[extract].seeds[0].pth", "mean path"),
        ('curate.gates=["parsed", "lenght"]', "item of gates", "gates[1]", "did you mean length"),
        ("curate.gates=parsed,length", "has to be a list", "gates", 'gates = ["parsed", "length"]'),
        ('curate.languages=["english"]', "languages", "[curate].languages[0]", '"en", "es"'),
        ('curate.gates=["length"]', "parsed must come first", "[curate].gates", "models-toml"),
        ("mix.train=true", "whole number", "[mix].train = true", "models-toml"),
        ("pick.both_orders=1", "true or false", "[pick].both_orders = 1", "models-toml"),
        ("train.warmup=false", "a number", "[train].warmup = false", "models-toml"),
        (
            'teacher={path="", endpoints=["http://node:80x0/v1"]}',
            "no base URL",
            "[teacher].endpoints",
            "http://node1:8000/v1",
        ),
        (
            'teacher={path="", endpoints=["http://user:pw@node:8000/v1"]}',
            "no base URL",
            "[teacher].endpoints",
            "api_key_file",
        ),
        ("seed=one", "seed", 'seed = "one"', "models-toml"),
    ],
)
def test_a_mistake_names_its_key_and_the_fix(tmp_path, override, problem, where, fix):
    overrides = [override]
    if override.startswith("mix.k"):
        overrides.append("extract.method=sda")
    with pytest.raises(ConfigError) as caught:
        models_toml.load(write(tmp_path), overrides)
    assert problem in caught.value.problem
    assert f"--set {override}: " in caught.value.where and where in caught.value.where
    assert fix in caught.value.fix
    assert caught.value.exit_code == 3
    assert "nput should" not in str(caught.value)  # pydantic's own words


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("epochs = 8", "epochs = 0", "models.toml [train].epochs = 0"),
        ('"complete"', '"compleet"', 'models.toml [curate].gates[1] = "compleet"'),
        ("[train]", "[trian]", "models.toml trian"),
        ("batch = 16", "batch = 20", "models.toml [train].batch"),
        ('path = "embedded:teacher"', 'path = "no"', "models.toml [teacher].path = "),
        ('pack = "compact"', 'pack = "compct"', "models.toml [prompts].pack"),
        ('["embedded:seeds.jsonl"]', '["no.jsonl"]', "models.toml [extract].seeds[0] = "),
    ],
)
def test_a_mistake_in_the_file_names_the_file(tmp_path, old, new, where):
    assert old in EMBEDDED
    with pytest.raises(ConfigError) as caught:
        models_toml.load(write(tmp_path, EMBEDDED.replace(old, new, 1)), ["seed=1"])
    assert caught.value.where.startswith(f"{tmp_path}/{where}")


def test_two_values_that_cannot_be_together_are_named_where_each_was_written(tmp_path):
    with pytest.raises(ConfigError) as caught:
        models_toml.load(write(tmp_path), ["train.micro_batch=3", "train.micro_batch=5"])
    assert caught.value.where == (
        f"{tmp_path}/models.toml [train].batch, with --set train.micro_batch=5: [train].micro_batch"
    )


def test_an_unknown_table_is_named_before_the_one_that_it_was_to_be(tmp_path):
    text = EMBEDDED.replace("[teacher]", "[techer]")
    with pytest.raises(ConfigError, match="unknown key techer") as caught:
        models_toml.load(write(tmp_path, text))
    assert caught.value.fix == "did you mean teacher?"


@pytest.mark.parametrize(("arguments", "typed"), [
    (["mix", "--k", "99999", "--models", "models.toml"], "--k 99999: [mix].k"),
    (["extract", "--method", "sdx"], "--method sdx: [extract].method"),
    (["run-all", "--extract", "sdx"], "--extract sdx: [extract].method"),
    (["mix", "--set", "mix.k=0", "--models", "models.toml"], "--set mix.k=0: [mix].k"),
])  # fmt: skip
def test_a_short_option_is_named_as_it_was_typed(tmp_path, monkeypatch, arguments, typed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(EMBEDDED)
    refused = CliRunner().invoke(cli, arguments).exception
    assert isinstance(refused, ConfigError) and refused.where.startswith(typed)


@pytest.mark.parametrize("stage", ["mix", "train", "evaluate", "report"])
def test_a_stage_after_the_first_begins_no_run_by_a_slip_of_its_name(tmp_path, monkeypatch, stage):
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(cli, [stage, "--run", "defualt"]).exception
    assert isinstance(refused, UsageError) and "no run named 'defualt'" in refused.problem
    assert not (tmp_path / "runs").exists()


# ---- lengths ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("overrides", "problem", "where"), [
    (["student.max_tokens=1024"], "the student has room for 1,024 tokens",
     "[student].max_model_len, with --set student.max_tokens=1024"),
    (["student.max_model_len=200"], "a reply may take 224", "--set student.max_model_len=200"),
    (["teacher.max_model_len=256"], "draft of prompt pack compact", "--set teacher.max_model_len"),
    (["prompts.pack=paper"], "refine of prompt pack paper", "with --set prompts.pack=paper"),
    (["student.max_model_len=4096"], "the student reads 1,024 tokens at most", "= 4096"),
])  # fmt: skip
def test_replies_that_their_model_cannot_hold_are_refused_at_the_start(
    tmp_path, overrides, problem, where
):
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        models_toml.load(write(tmp_path), overrides)
    assert where in caught.value.where


def test_without_max_model_len_the_room_is_that_of_the_model(tmp_path):
    model_that_reads(200, tmp_path / "small", TEACHER.parent / "student")
    text = EMBEDDED.replace('path = "embedded:student"', 'path = "small"')
    text = text.replace("max_model_len = 1024\ntemperature", "temperature")
    with pytest.raises(ConfigError, match="the student has room for 200 tokens") as caught:
        models_toml.load(write(tmp_path, text))
    assert "[student].path" in caught.value.where
    assert models_toml.load(write(tmp_path, text), ["student.max_tokens=199"])


@pytest.mark.parametrize("override", [
    "teacher.engine_arguments=['--hf-overrides', '{}']",
    "teacher.dtype=float32",
])  # fmt: skip
def test_a_model_whose_reading_is_stretched_may_be_given_more_room(tmp_path, override):
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    changes = {} if "engine" in override else {"rope_parameters": rope}
    model_that_reads(1024, tmp_path / "long", **changes)
    overrides = ["teacher.path=long", "teacher.max_model_len=4096", override]
    assert models_toml.load(write(tmp_path), overrides).teacher.max_model_len == 4096


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", "seed.x=1"])
def test_a_malformed_override_is_a_usage_error(tmp_path, override):
    with pytest.raises(UsageError) as caught:
        models_toml.load(write(tmp_path), [override])
    assert override in caught.value.where
    assert caught.value.exit_code == 2


def test_a_file_of_an_editor_that_marks_utf_8_is_read(tmp_path):
    path = write(tmp_path)
    path.write_text(EMBEDDED, encoding="utf-8-sig")
    assert models_toml.load(path).train.epochs == 8


def test_a_file_in_another_encoding_says_so(tmp_path):
    path = write(tmp_path)
    path.write_text(EMBEDDED, encoding="utf-16")
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        models_toml.load(path)
    assert caught.value.fix == "save it as UTF-8"


def test_an_override_is_named_once_however_many_keys_of_it_play_a_part(tmp_path):
    override = 'teacher.endpoints=["http://a/v1"]'
    with pytest.raises(ConfigError, match="path or endpoints") as caught:
        models_toml.load(write(tmp_path), [override])
    assert caught.value.where == f"--set {override}: [teacher]"


@pytest.mark.parametrize("text", ["seed = = 1", "[teacher\n", "\x00"])
def test_broken_toml_says_where(tmp_path, text):
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        models_toml.load(write(tmp_path, text))
    assert "line" in caught.value.where


def test_a_missing_file_points_to_init(tmp_path):
    with pytest.raises(ConfigError) as caught:
        models_toml.load(tmp_path / "absent.toml")
    assert "localism init" in caught.value.fix


def test_a_missing_table_says_how_to_get_a_complete_file(tmp_path):
    with pytest.raises(ConfigError) as caught:
        models_toml.load(write(tmp_path, "[judge]\nsame_as = 'teacher'\n"))
    assert "teacher" in caught.value.problem
    assert "localism init" in caught.value.fix


@pytest.mark.parametrize(
    ("remove", "problem"),
    [
        ("tokenizer.json", "no tokenizer"),
        ("config.json", "no config.json"),
        ("model.safetensors", "no safetensors"),
        ("chat_template.jinja", "chat template"),
    ],
)
def test_an_incomplete_teacher_folder_is_refused(tmp_path, remove, problem):
    folder = tmp_path / "model"
    shutil.copytree(TEACHER, folder)
    (folder / remove).unlink()
    with pytest.raises(ConfigError, match=problem) as caught:
        models_toml.load(write(tmp_path), ["teacher.path=model"])
    assert "[teacher].path" in caught.value.where


def test_torn_weights_are_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TEACHER, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="damaged") as caught:
        models_toml.load(write(tmp_path), ["teacher.path=model"])
    assert "bytes expected" in caught.value.where


def test_a_git_lfs_pointer_in_place_of_weights_is_told_from_damage(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TEACHER, folder)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0a1b2c\nsize 5000\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(ConfigError, match="Git LFS pointer") as caught:
        models_toml.load(write(tmp_path), ["teacher.path=model"])
    assert "git lfs pull" in caught.value.fix


def test_a_base_student_needs_no_chat_template(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(TEACHER.parent / "student", folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    assert models_toml.load(write(tmp_path), ["student.path=base"]).student.path == str(folder)


def test_relative_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    shutil.copytree(TEACHER, tmp_path / "weights")
    monkeypatch.chdir("/")
    loaded = models_toml.load(write(tmp_path), ["teacher.path=weights"])
    assert loaded.teacher.path == str(tmp_path / "weights")


def test_speed_keys_leave_the_recipe_alone_and_others_do_not(tmp_path):
    base = models_toml.load(write(tmp_path))
    faster = models_toml.load(write(tmp_path), ["teacher.max_num_seqs=64", "embedder.batch_size=8"])
    other = models_toml.load(write(tmp_path), ["train.epochs=9"])
    assert faster.recipe_hash() == base.recipe_hash()
    assert other.recipe_hash() != base.recipe_hash()


def test_every_error_prints_as_three_lines():
    text = str(LocalismError("a", where="b", fix="c"))
    assert [line.split()[0] for line in text.splitlines()] == ["error:", "where:", "fix:"]
