"""The doctor: each check with the one thing broken that it looks for; no model is loaded."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import socket
import struct
import sys
import tempfile
from pathlib import Path

import pytest
import tmpfs
from click.testing import CliRunner
from stubs import stub

from localism.cli.main import cli
from localism.config_checks import Origin
from localism.doctor import files, findings, machine
from localism.doctor.examine import examine
from localism.gpus import Device, Gpus, of_devices
from localism.models_toml import Look, validate
from localism.paths import embedded
from localism.planning.disk import needed
from localism.serving import memory

__all__ = ["stub"]

H100 = 80 * 2**30
LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 131072, "dtype": "bfloat16",
}  # fmt: skip

MINIATURE = """
[teacher]
path = "embedded:teacher"
[judge]
same_as = "teacher"
kind = "likelihood"
[student]
path = "embedded:student"
max_tokens = 200
[prompts]
pack = "compact"
"""


def config_of(**changed):
    table = {
        "teacher": {"path": "embedded:teacher", "max_model_len": 1024},
        "judge": {"same_as": "teacher", "kind": "likelihood"},
        "student": {"path": "embedded:student", "max_model_len": 1024},
        "prompts": {"pack": "compact"},
        "curate": {"skills": "words"},
        "extract": {"method": "sdd", "seeds": ["embedded:seeds.jsonl"], "seed_examples": 100},
    }
    for section, values in changed.items():
        table[section] = {**table.get(section, {}), **values}
    return validate(table, "models.toml")


def look(config) -> Look:
    return Look(config, Origin("models.toml"))


def checked(config):
    return files.check(look(config))


def found(findings_of, check: str) -> findings.Finding:
    return next(finding for finding in findings_of if finding.check == check)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(embedded("embedded:student"), tmp_path / "model"))


def with_teacher(folder: Path, **more):
    return config_of(teacher={"path": str(folder), **more}, judge={"same_as": "teacher"})


# ---- all is well ---------------------------------------------------------------------------


def test_the_embedded_default_passes(tmp_path):
    seen = examine(look(config_of()), tmp_path)
    assert [finding for finding in seen if finding.status == "fail"] == []
    assert {"teacher", "student", "embedder", "prompts", "seeds", "versions", "disk"} <= {
        finding.check for finding in seen
    }


def test_the_command_prints_a_table_and_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["doctor"], obj={})
    assert done.exit_code == 0, done.output
    assert "checks passed" in done.output
    facts = json.loads(CliRunner().invoke(cli, ["doctor", "--json"], obj={}).output)
    assert facts["worst"] in ("pass", "warn")
    assert set(facts["findings"][0]) == {"status", "check", "found", "fix"}
    assert list(tmp_path.iterdir()) == []  # a look begins no run


def test_a_configuration_that_cannot_be_read_is_exit_3_with_its_fix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text("[teacher]\npaht = 3\n")
    done = CliRunner().invoke(cli, ["doctor"], obj={})
    assert done.exit_code == 3
    assert "fail  configuration" in done.output and "fix: " in done.output


@pytest.mark.parametrize(
    ("text", "named"),
    [
        # what the file itself shows
        (
            '[teacher]\npaht = "x"\nmax_num_seqs = "many"\n[train]\nepochs = -1\n',
            ["paht", "max_num_seqs", "judge is missing", "student is missing", "epochs"],
        ),
        # what shows once it can be read: keys that cannot be together
        (
            '[teacher]\npath = "a"\nendpoints = ["http://b/v1"]\n[judge]\nsame_as = "teacher"\n'
            '[student]\nendpoints = ["http://c/v1"]\n',
            ["the teacher needs a path or endpoints", "the student is fine-tuned here"],
        ),
        # what shows on the disk
        (
            '[teacher]\npath = "/no/such/a"\n[judge]\nsame_as = "teacher"\n'
            '[student]\npath = "/no/such/b"\n[prompts]\npack = "/no/such/c"\n',
            ["/no/such/a", "/no/such/b", "/no/such/c"],
        ),
        # none of these hides another, though the first ends the reading of what ships
        (
            MINIATURE
            + '[embedder]\npath = "embedded:nothing"\n[extract]\nmethod = "sdd"\n'
            'seeds = ["/no/seeds-1", "/no/seeds-2"]\ntaxonomy = "/no/topics"\n'
            '[curate]\nbenchmarks = ["/no/bench-1.txt", "/no/bench-2.txt"]\nskills = "words"\n'
            '[evaluate]\nsuites = ["mt-bench", "alpaca"]\njudge_prompts = "/no/judges"\n',
            ["'nothing'", "seeds-1", "seeds-2", "/no/topics",
             "models.toml [curate].benchmarks[0]: /no/bench-1.txt (No such file or directory)",
             "models.toml [curate].benchmarks[1]: /no/bench-2.txt (No such file or directory)",
             "models.toml [evaluate].suites[1] = 'alpaca'",
             "models.toml [evaluate].judge_prompts = "],
        ),
        # a value that cannot be, two that cannot be together, and files that are not there
        (
            MINIATURE
            + '[train]\nepochs = 0\nbatch = 20\nmicro_batch = 16\n[mix]\nk = "two"\n'
            '[extract]\nmethod = "both"\n[curate]\nbenchmarks = ["/no/bench.txt"]\n',
            ["[train].epochs = 0", "batch 20 is not a multiple", "[mix].k", "needs seed examples",
             "/no/bench.txt"],
        ),
    ],
)  # fmt: skip
def test_mistakes_that_can_be_found_at_once_are_shown_at_once(tmp_path, monkeypatch, text, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(text)
    done = CliRunner().invoke(cli, ["doctor", "--json"], obj={})
    assert done.exit_code == 3
    every = json.loads(done.output)["findings"]
    seen = [one for one in every if one["status"] == "fail"]
    assert all(one["fix"] for one in seen)
    for word in named:
        assert sum(word in one["found"] for one in seen) == 1, (word, seen)
    assert len(seen) == len(named), "nothing is said that follows from another mistake"
    assert {"versions", "loopback"} <= {one["check"] for one in every}


# ---- models --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_of_a_model(model, name):
    config = with_teacher(model)
    (model / name).unlink()
    if name == "tokenizer.json":
        (model / "tokenizer_config.json").unlink(missing_ok=True)
    assert found(checked(config), "teacher").status == "fail"


def test_a_torn_weight_file(model):
    config = with_teacher(model)
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 10)
    finding = found(checked(config), "teacher")
    assert finding.status == "fail" and "damaged" in finding.found


def test_an_index_that_names_a_shard_that_is_not_there(model):
    config = with_teacher(model)
    index = {"metadata": {}, "weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert found(checked(config), "teacher").status == "fail"


def test_a_teacher_without_a_chat_template(model):
    config = with_teacher(model)
    for path in model.glob("*chat_template*"):
        path.unlink()
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    finding = found(checked(config), "teacher")
    assert finding.status == "fail" and "chat template" in finding.found


def test_code_in_a_model_folder_fails_unless_it_was_allowed(model):
    settings = json.loads((model / "config.json").read_text())
    settings["auto_map"] = {"AutoModel": "modeling.Own"}
    (model / "config.json").write_text(json.dumps(settings))
    (model / "modeling.py").write_text("class Own: ...")
    assert found(checked(with_teacher(model)), "teacher code").status == "fail"
    allowed = found(checked(with_teacher(model, trust_remote_code=True)), "teacher code")
    assert allowed.status == "warn" and "modeling.py" in allowed.found


def test_pickles_are_named_and_never_loaded(model):
    (model / "pytorch_model.bin").write_bytes(b"x")
    finding = found(checked(with_teacher(model)), "teacher pickles")
    assert finding.found == "pytorch_model.bin: never loaded"


def test_the_type_and_the_number_of_parameters_come_from_the_headers(model):
    finding = found(checked(with_teacher(model)), "teacher")
    assert "2.2M parameters" in finding.found and "BF16" in finding.found


def test_an_embedder_of_pickles(tmp_path):
    (tmp_path / "e").mkdir()
    (tmp_path / "e/modules.json").write_text("[]")
    (tmp_path / "e/pytorch_model.bin").write_bytes(b"x")
    config = config_of(embedder={"path": str(tmp_path / "e")})
    assert found(checked(config), "embedder").status == "fail"


# ---- data ----------------------------------------------------------------------------------


def test_a_seed_file_with_a_bad_row(tmp_path):
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"instruction": "a question", "output": "b"}\n{"nothing": 1}\n')
    finding = found(checked(config_of(extract={"seeds": [str(path)]})), "seeds")
    assert finding.status == "fail" and "2" in finding.found


def test_fewer_seeds_than_asked_for_is_a_warning():
    finding = found(checked(config_of(extract={"seed_examples": 10_000})), "seeds")
    assert finding.status == "warn" and "320" in finding.found


def test_a_benchmark_file_without_a_prompt(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text('{"x": 1}\n')
    finding = found(checked(config_of(curate={"benchmarks": [str(path)]})), "benchmarks")
    assert finding.status == "fail"


def test_a_suite_that_is_unknown():
    finding = found(checked(config_of(evaluate={"suites": ["alpaca"]})), "suites")
    assert finding.status == "fail" and "did you mean alpacaeval?" in finding.fix


def test_a_prompt_pack_that_is_broken(tmp_path):
    shutil.copytree(Path(__file__).parents[2] / "prompts/compact", tmp_path / "pack")
    (tmp_path / "pack/judge.txt").write_text("{{ first }")
    finding = found(checked(config_of(prompts={"pack": str(tmp_path / "pack")})), "prompts")
    assert finding.status == "fail"


def test_an_unknown_licence_is_a_warning(model):
    finding = found(checked(with_teacher(model)), "licences")
    assert finding.status == "warn" and "teacher" in finding.found


def test_a_licence_whose_terms_are_not_known_may_be_a_slip():
    stated = config_of(licences={"student": "apach-2.0", "teacher": "MIT"})
    every = [f for f in checked(stated) if f.check == "licences"]
    (finding,) = [f for f in every if "what it demands is not known" in f.found]
    assert finding.status == "warn" and "'apach-2.0'" in finding.found
    assert finding.fix.startswith("did you mean apache-2.0?")


def test_licences_that_forbid_what_is_made_are_a_warning():
    stated = config_of(licences={"teacher": "llama2", "student": "apache-2.0"})
    seen = [f for f in checked(stated) if f.check == "licences"]
    assert {f.status for f in seen} == {"warn"}
    assert any("localism licences" in f.fix for f in seen)


def test_a_suite_of_a_harness_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr(importlib.metadata, "version", absent)
    finding = found(checked(config_of(evaluate={"suites": ["lm-eval"]})), "suites")
    assert finding.status == "fail" and finding.fix


def absent(name):
    raise importlib.metadata.PackageNotFoundError(name)


# ---- memory --------------------------------------------------------------------------------


def fake_model(folder: Path, config: dict, parameters: int) -> Path:
    """A model folder whose weight file has a header for so many bf16 parameters and no content."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header = json.dumps(
        {"w": {"dtype": "BF16", "shape": [parameters], "data_offsets": [0, 2 * parameters]}}
    ).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2 * parameters)  # sparse: takes no room
    return folder


@pytest.mark.parametrize(
    ("config", "parameters", "weights_gb", "a_token"),
    [
        # Llama 3.1 8B: 16 GB of bf16 weights, 128 KiB a token (2 x 32 x 8 x 128 x 2).
        (LLAMA_8B, 8_030_261_248, 16.06, 131_072),
        # Llama 3.1 70B: 141 GB, 320 KiB a token.
        (
            {**LLAMA_8B, "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64},
            70_553_706_496, 141.1, 327_680,
        ),
        # DeepSeek-V3's attention keeps 512 + 64 numbers a layer: 70,272 bytes a token.
        (
            {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
             "max_position_embeddings": 163840, "dtype": "bfloat16"},
            1_000_000, 0.002, 70_272,
        ),
    ],
)  # fmt: skip
def test_weights_and_cache_are_those_of_known_models(
    tmp_path, config, parameters, weights_gb, a_token
):
    folder = fake_model(tmp_path / "m", config, parameters)
    need = memory.needed(folder, config_of().teacher.model_copy(update={"dtype": "auto"}))
    assert need.weights / 1e9 == pytest.approx(weights_gb, rel=0.01)
    assert need.a_token == a_token


def on_gpus(tmp_path, parameters, number=1, **section):
    folder = fake_model(tmp_path / f"m{parameters}", LLAMA_8B, parameters)
    config = config_of()
    teacher = config.teacher.model_copy(
        update={"path": str(folder), "max_model_len": 8192, **section}
    )
    config = config.model_copy(update={"teacher": teacher})
    return found(machine._serving(config, "teacher", Gpus(number, H100)), "teacher memory")


def test_a_model_that_fits_has_its_room_told(tmp_path):
    finding = on_gpus(tmp_path, 8_030_261_248)
    assert finding.status == "pass" and "16.1 GB" in finding.found
    # 0.9 x 80 GiB less 3 GiB and the weights, by 128 KiB.
    room = (0.9 * H100 - memory.OVERHEAD_BYTES - 2 * 8_030_261_248) / 131_072
    assert f"{int(room):,} tokens" in finding.found


def test_a_model_larger_than_its_gpu_is_told_how_many_it_needs(tmp_path):
    finding = on_gpus(tmp_path, 70_000_000_000)
    assert finding.status == "fail" and "2 GPUs of 85.9 GB" in finding.fix
    assert on_gpus(tmp_path, 69_000_000_000, number=4, tensor_parallel=4).status == "pass"


def test_more_gpus_than_there_are(tmp_path):
    finding = on_gpus(tmp_path, 8_000_000_000, number=2, tensor_parallel=4)
    assert finding.status == "fail" and "there are 2" in finding.found


def test_little_room_for_conversations_is_a_warning(tmp_path):
    finding = on_gpus(tmp_path, 30_000_000_000, max_num_seqs=512)
    assert finding.status == "warn" and "max_num_seqs" in finding.fix


def test_an_engine_over_machines_needs_ray_and_an_address(monkeypatch):
    config = config_of(teacher={"nodes": 2, "rendezvous": "192.0.2.1:1"})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (without,) = machine._spanning(config, "teacher")
    assert without.status == "fail" and "requirements/ray.txt" in without.fix
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    (elsewhere,) = machine._spanning(config, "teacher")
    assert elsewhere.status == "fail" and "do not reach this one as 192.0.2.1" in elsewhere.found


def test_states_of_training_that_do_not_fit(tmp_path):
    folder = fake_model(tmp_path / "m", LLAMA_8B, 8_000_000_000)
    config = config_of()
    student = config.student.model_copy(update={"path": str(folder)})
    config = config.model_copy(update={"student": student})
    finding = found(machine._training(config, Gpus(1, H100)), "training memory")
    assert finding.status == "fail" and "lora" in finding.fix
    assert found(machine._training(config, Gpus(8, H100)), "training memory").status == "pass"


def test_a_model_larger_than_the_memory_of_a_machine_without_gpus(tmp_path):
    folder = fake_model(tmp_path / "m", LLAMA_8B, 5_000_000_000_000)
    config = config_of()
    teacher = config.teacher.model_copy(update={"path": str(folder)})
    config = config.model_copy(update={"teacher": teacher})
    finding = found(machine._serving(config, "teacher", Gpus(0, None)), "teacher memory")
    assert finding.status == "fail" and "of RAM are free" in finding.found


# ---- machine -------------------------------------------------------------------------------


def test_a_disk_too_small_for_the_checkpoints(tmp_path):
    folder = fake_model(tmp_path / "m", LLAMA_8B, 2_000_000_000_000)
    student = config_of().student.model_copy(update={"path": str(folder)})
    config = config_of().model_copy(update={"student": student})
    assert (
        found(machine._disk(config, tmp_path / "runs/new", Gpus(0, None)), "disk").status == "fail"
    )


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({"mix": {"train": 99_999_999}}, "fewer examples"),
        ({"train": {"epochs": 5_000}}, "fewer [train].epochs"),
        ({"train": {"epochs": 1}, "mix": {"train": 10}}, "[train].method = 'lora'"),
    ],
)
def test_what_makes_a_run_fit_on_the_disk_is_the_key_behind_what_takes_most(changed, first):
    small = {"extract": {"seed_examples": 10}} | changed
    assert needed(config_of(**small), Gpus(0, None)).smaller_by().startswith(first)


def test_what_a_run_has_taken_of_the_disk_need_not_be_free(tmp_path, monkeypatch):
    most = needed(config_of(), Gpus(0, None)).most
    (tmp_path / "corpus.duckdb").write_bytes(b"x" * 1_000_000)

    class Usage:
        free = most - 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    told = found(machine._disk(config_of(), tmp_path, Gpus(0, None)), "disk")
    assert told.status == "pass" and "the run has taken 1.0 MB" in told.found
    Usage.free -= 1
    assert found(machine._disk(config_of(), tmp_path, Gpus(0, None)), "disk").status == "fail"


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    finding = found(machine._disk(config_of(), tmp_path / "new", Gpus(0, None)), "disk")
    assert finding.status == "fail" and "cannot be written" in finding.found


def test_a_version_beside_the_locked_one_is_a_warning(monkeypatch):
    monkeypatch.setattr(machine, "_lock", lambda kind: {"duckdb": "0.1"})
    finding = found(machine._versions(Gpus(0, None), {}), "versions")
    assert finding.status == "warn" and "tested with 0.1" in finding.found


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr(machine, "LOCKED", ("no-such-package",))
    finding = found(machine._versions(Gpus(0, None), {}), "versions")
    assert finding.status == "fail" and "no-such-package is not installed" in finding.found


def test_little_room_for_temporary_files_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with tmpfs.mounted(tmp_path, "4m"):
        finding = found(machine._space(), "temporary files")
    assert finding.status == "warn" and "TMPDIR" in finding.fix


def test_the_lock_of_this_repository_is_what_is_installed():
    assert found(machine._versions(Gpus(0, None), {}), "versions").status == "pass"


def test_a_clock_before_the_files_is_a_warning(tmp_path):
    corpus = tmp_path / "corpus.duckdb"
    corpus.touch()
    assert machine._clock(tmp_path).status == "pass"
    later = corpus.stat().st_mtime + 86_400
    os.utime(corpus, (later, later))
    assert machine._clock(tmp_path).status == "warn"


def test_few_open_files_are_a_warning():
    import subprocess

    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))\n"
        "from localism.doctor import machine; print(machine._files_open().status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "warn", done.stderr


def test_a_closed_loopback_fails(monkeypatch):
    def refused(*_, **__):
        raise OSError("Cannot assign requested address")

    monkeypatch.setattr(socket, "create_connection", refused)
    assert machine._port().status == "fail"


def leftovers(tmp_path, monkeypatch, used: int, holders: str) -> findings.Finding:
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\ncase $1 in *compute*) printf '{holders}' ;; esac\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    devices = [Device("0", "GPU-a", H100, used * 2**20), Device("1", "GPU-b", H100, 0)]
    return found(machine._gpu_leftovers(of_devices(devices)), "GPUs")


def test_leftover_processes_on_gpus_are_named(tmp_path, monkeypatch):
    line = "GPU-a, 4000711, 61234, VLLM::EngineCore\\n"
    finding = leftovers(tmp_path, monkeypatch, 62000, line)
    assert finding.status == "warn" and "process 4000711" in finding.found
    assert "VLLM::EngineCore" in finding.found and "61,234 MiB" in finding.found
    assert "GPU 0: 65.0 GB held" in finding.found


def test_memory_that_nobody_is_named_for_is_told(tmp_path, monkeypatch):
    finding = leftovers(tmp_path, monkeypatch, 62000, "")
    assert finding.status == "warn" and "names no process" in finding.found
    assert "fuser" in finding.fix
    other = "GPU-other, 5, 100, x\\n"  # on a GPU that is not ours to see
    assert leftovers(tmp_path, monkeypatch, 500, other).status == "pass"


# ---- the table -----------------------------------------------------------------------------


def test_the_table_keeps_to_the_terminal_and_puts_fixes_below():
    seen = [
        findings.Finding("pass", "teacher", "word " * 40),
        findings.Finding("fail", "disk", "full", "make room " * 20),
    ]
    text = findings.render(seen, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[-1] == "1 check passed, 1 failed"
    assert "fix: make room" in text


def test_a_batch_that_the_machines_cannot_share_is_found_before_anything_is_paid(tmp_path):
    config = config_of(train={"nodes": 2, "batch": 16, "micro_batch": 16})
    every = list(machine.check(look(config), tmp_path))
    (finding,) = [f for f in every if f.check == "training"]
    assert finding.status == "fail" and "can't be divided over 2 devices" in finding.found


def test_a_tensor_parallel_size_that_does_not_divide_the_model_is_found_on_a_cpu_too(tmp_path):
    config = config_of(teacher={"tensor_parallel": 5})
    every = list(machine.check(look(config), tmp_path))
    assert any(f.status == "fail" and "cannot be divided by 5" in f.found for f in every)


def test_endpoints_are_asked_what_they_serve(stub):
    server, gone = stub(), stub()
    gone.go_down()

    def told(*urls: str, **more: str) -> findings.Finding:
        teacher = {"path": "", "endpoints": list(urls), **more}
        return found(checked(config_of(teacher=teacher)), "teacher")

    assert told(server.url).status == "pass" and "stub" in told(server.url).found
    slip = told(server.url, served_name="stab")
    assert slip.status == "fail" and "stub" in slip.fix
    assert told(gone.url).status == "warn"
    both = told(server.url, gone.url)
    assert both.status == "warn" and f"no answer now from {gone.url}" in both.found


DEAD = ("http://127.0.0.1:9/v1", "http://127.0.0.1:19/v1")


def test_every_endpoint_that_does_not_answer_is_named_with_its_reason():
    finding = found(checked(config_of(teacher={"path": "", "endpoints": DEAD})), "teacher")
    assert finding.status == "warn"
    assert all(f"{url} (Connection refused)" in finding.found for url in DEAD)


def doctor_on(folder: Path, urls: list[str]):
    """The command, on the miniature with a teacher at these endpoints."""
    text = MINIATURE.replace('path = "embedded:teacher"', f"endpoints = {json.dumps(urls)}", 1)
    (folder / "models.toml").write_text(text)
    asked = ["doctor", "--json", "--models", str(folder / "models.toml")]
    return CliRunner().invoke(cli, asked, obj={})


def test_dead_endpoints_are_named_beside_one_that_is_no_url(tmp_path):
    done = doctor_on(tmp_path, ["htp:/node1", DEAD[0]])
    every = json.loads(done.output)["findings"]
    (slip,) = [one["found"] for one in every if one["status"] == "fail"]
    assert "'htp:/node1'" in slip and "[teacher].endpoints[0]" in slip
    (away,) = [one for one in every if one["check"] == "teacher"]
    assert away["status"] == "warn" and DEAD[0] in away["found"] and "htp:" not in away["found"]


def test_an_endpoint_that_is_no_such_server_is_exit_3_and_hides_no_other(tmp_path, stub):
    servers = stub(), stub()
    for server in servers:
        server.listing = 404
    done = doctor_on(tmp_path, [server.url for server in servers] + [DEAD[0]])
    seen = [one for one in json.loads(done.output)["findings"] if one["check"] == "teacher"]
    assert done.exit_code == 3
    assert [one["status"] for one in seen] == ["fail", "fail", "warn"]
    assert all(server.url in one["found"] for server, one in zip(servers, seen[:2], strict=True))
