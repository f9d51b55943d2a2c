"""Where licences are read, what they demand, and what follows for data and model."""

import json
from pathlib import Path

import pytest
from engines import embedded_config

from localism.licence_terms import TERMS, by_id
from localism.licences import Licence, find, front_matter, of_run, together

APACHE = "Apache License\n   Version 2.0, January 2004\n"
LLAMA = "LLAMA 3.3 COMMUNITY LICENSE AGREEMENT\nLlama 3.3 Version Release Date: December 6, 2024\n"


def folder(path: Path, **files: str) -> Path:
    """A model folder of these files; README and config stand for README.md and config.json."""
    path.mkdir(parents=True)
    names = {"README": "README.md", "config": "config.json", "LICENSE_txt": "LICENSE.txt"}
    for name, text in files.items():
        (path / names.get(name, name)).write_text(text)
    return path


def card(**head: str) -> str:
    lines = "".join(f"{key}: {value}\n" for key, value in head.items())
    return f"---\n{lines}---\n# A model\nlicense: mit\n"


def test_nothing_said_is_unknown_and_not_free(tmp_path: Path) -> None:
    found = find(folder(tmp_path / "m", config='{"model_type": "llama"}'), "teacher")
    assert (found.name, found.restricts, found.demands) == ("unknown", None, ())


def test_a_name_alone_frees_nothing_and_may_restrict(tmp_path: Path) -> None:
    """Qwen3 is published under Apache 2.0, but this folder does not say so."""
    free = find(folder(tmp_path / "Qwen3-32B", config='{"model_type": "qwen3"}'), "teacher")
    bound = find(folder(tmp_path / "Llama-3.3-70B-Instruct", config="{}"), "teacher")
    assert free.restricts is None
    assert bound.name == "Llama 3.3 Community License" and bound.prefix == "Llama"
    assert bound.source == "the folder's name: Llama-3.3-70B-Instruct"


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("Meta-Llama-3-8B-Instruct", "Llama 3 Community License"),
        ("Llama-3.1-405B", "Llama 3.1 Community License"),
        ("Llama-3.2-3B", "Llama 3.2 Community License"),
        ("Llama-4-Scout-17B-16E", "Llama 4 Community License"),
        ("CodeLlama-7b-hf", "Llama 2 Community License"),
        ("TinyLlama-1.1B", None),
        ("open_llama_3b_v2", None),
        ("llama-30b", None),
        ("Qwen2.5-72B-Instruct", "Qwen License"),
        ("Qwen2.5-3B", "Qwen Research License"),
        ("Qwen2.5-32B-Instruct", None),
        ("Qwen1.5-72B-Chat", "Tongyi Qianwen License"),
        ("gemma-2-9b-it", "Gemma Terms of Use"),
        ("gemma3_text", "Gemma Terms of Use"),
        ("gemma-4-31b-it", None),
        ("Mistral-7B-v0.3", None),
    ],
)
def test_names_are_told_apart(name: str, terms: str | None) -> None:
    assert next((one.name for one in TERMS if one.hinted(name)), None) == terms


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (APACHE, "Apache License 2.0"),
        (LLAMA, "Llama 3.3 Community License"),
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT", "Llama 3 Community License"),
        ("Qwen LICENSE AGREEMENT", "Qwen License"),
        ("Qwen RESEARCH LICENSE AGREEMENT", "Qwen Research License"),
        ("Tongyi Qianwen LICENSE AGREEMENT", "Tongyi Qianwen License"),
        ("MIT License\n\nPermission is hereby granted, free of charge, to any", "MIT License"),
        ("Gemma Terms of Use\nLast modified", "Gemma Terms of Use"),
        (
            "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International",
            "Creative Commons, not for commercial use",
        ),
        ("Creative Commons Attribution 4.0 International", "Creative Commons Attribution"),
        ("All rights reserved, ask us.", "unknown"),
    ],
)
def test_a_licence_file_is_read(tmp_path: Path, text: str, name: str) -> None:
    found = find(folder(tmp_path / "m", LICENSE_txt=text), "teacher")
    assert (found.name, found.source) == (name, "LICENSE.txt")


def test_a_card_names_a_licence_and_its_own_one_under_other(tmp_path: Path) -> None:
    own = card(license="other", license_name="qwen-research")
    found = find(folder(tmp_path / "m", README=own), "teacher")
    assert found.name == "Qwen Research License" and found.forbids == "commercial use"
    assert found.source == "README.md: license: qwen-research"
    strange = find(folder(tmp_path / "n", README=card(license="acme-1.0")), "teacher")
    assert (strange.name, strange.restricts) == ("acme-1.0", None)


def test_a_licence_file_beside_a_data_file_is_not_taken_for_the_datas(tmp_path: Path) -> None:
    """It may be that of the code around it; a card with a head is the data's."""
    project = folder(tmp_path / "project", LICENSE_txt=APACHE, README="# Our code\n")
    (project / "seeds.jsonl").touch()
    assert find(project / "seeds.jsonl", "seeds").restricts is None
    (project / "README.md").write_text(card(license="cc-by-sa-4.0"))
    assert find(project / "seeds.jsonl", "seeds").name == "Creative Commons, share alike"


def test_of_several_the_most_restrictive_counts(tmp_path: Path) -> None:
    """A fine-tune that calls itself Apache stays what its base made it."""
    config = json.dumps({"_name_or_path": "meta-llama/Llama-3.1-8B"})
    tuned = folder(tmp_path / "tuned", README=card(license="apache-2.0"), config=config)
    assert find(tuned, "student").name == "Llama 3.1 Community License"
    strange = folder(tmp_path / "Llama-3.1-8B-tuned", LICENSE_txt="Ask us.")
    found = find(strange, "teacher")
    assert (found.name, found.prefix) == ("unknown", "Llama") and found.demands
    cards = card(license="mit", base_model="google/gemma-2-9b")
    assert find(folder(tmp_path / "g", README=cards), "student").name == "Gemma Terms of Use"


def test_a_hub_cache_names_the_model_two_folders_up(tmp_path: Path) -> None:
    cached = tmp_path / "models--meta-llama--Llama-3.2-1B" / "snapshots" / "0e9e39f2"
    found = find(folder(cached, config="{}"), "student")
    assert found.name == "Llama 3.2 Community License"
    assert any('"Llama 3.2 is licensed under' in demand for demand in found.demands)


def test_what_the_user_states_counts_and_is_said_to_be_stated(tmp_path: Path) -> None:
    distilled = folder(tmp_path / "R1-Llama-3.1-8B", config="{}")
    found = find(distilled, "teacher", "mit")
    assert (found.name, found.restricts) == ("MIT License", False)
    assert found.source == "models.toml: [licences] mit"


def test_heads_of_cards_are_read_as_their_hosts_write_them(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(
        "---\nlicense: 'gemma' # by Google\nbase_model:\n- a/b\n- c/d\ntags: [x, y]\n---\n"
    )
    assert front_matter(path) == {"license": ["gemma"], "base_model": ["a/b", "c/d"],
                                  "tags": ["x", "y"]}  # fmt: skip
    path.write_text("---\nlicense: mit\n")
    assert front_matter(path) == {}


def test_every_licence_that_forbids_something_also_restricts_and_ids_are_unique() -> None:
    ids = [name for terms in TERMS for name in terms.ids]
    assert len(ids) == len(set(ids))
    assert all(terms.restricts for terms in TERMS if terms.forbids or terms.prefix or terms.hint)
    assert by_id("Apache-2.0") is not None and by_id("acme") is None


# ---- together ------------------------------------------------------------------------------


def licence(name: str, restricts: bool | None, **more: object) -> Licence:
    return Licence(name, "", (f"do as {name} says",) if restricts else (), restricts, **more)


def test_unknown_stands_above_demands_and_below_what_forbids() -> None:
    free, bound = licence("free", False), licence("bound", True)
    unknown, forbidding = licence("unknown", None), licence("nc", True, forbids="commercial use")
    assert together([free, bound]).name == "bound"
    mixed = together([free, bound, unknown])
    assert (mixed.name, mixed.restricts) == ("unknown", None)
    assert mixed.demands == ("do as bound says",)  # what is known is not lost beside it
    assert together([unknown, forbidding]).name == "nc"
    assert together([bound, licence("other", True)]).name == "bound and other"


def test_the_embedded_run_is_free() -> None:
    found = of_run(embedded_config(extract={"method": "both", "seeds": ["embedded:seeds.jsonl"]}))
    assert set(found.roles) == {
        "teacher", "judge", "student", "embedder", "seeds embedded:seeds.jsonl",
    }  # fmt: skip
    assert (found.data.restricts, found.model.restricts, found.conflicts) == (False, False, ())


def test_a_teachers_licence_passes_to_data_and_model_and_the_bases_to_the_model(
    tmp_path: Path,
) -> None:
    llama = folder(tmp_path / "t", LICENSE_txt=LLAMA)
    qwen = folder(tmp_path / "s", README=card(license="other", license_name="qwen"))
    config = embedded_config(teacher={"path": str(llama)}, student={"path": str(qwen)})
    found = of_run(config)
    assert (found.data.card_id, found.model.card_id) == ("llama3.3", "llama3.3 and qwen")
    assert found.model.prefix == "Llama"
    assert not any("Qwen" in demand for demand in found.data.demands)
    assert any("Improved using Qwen" in demand for demand in found.model.demands)


def test_what_a_licence_forbids_is_a_conflict_unless_it_stays_in_the_family(
    tmp_path: Path,
) -> None:
    old = folder(tmp_path / "old", LICENSE_txt="META LLAMA 3 COMMUNITY LICENSE AGREEMENT")
    base = folder(tmp_path / "base", LICENSE_txt="META LLAMA 3 COMMUNITY LICENSE AGREEMENT")
    other = of_run(embedded_config(teacher={"path": str(old)}))
    same = of_run(embedded_config(teacher={"path": str(old)}, student={"path": str(base)}))
    assert other.conflicts == (
        "teacher and judge (Llama 3 Community License) forbids improving other models than Llama 3",
    )
    assert same.conflicts == ()


def test_a_served_model_is_unknown_until_somebody_says_what_it_is(tmp_path: Path) -> None:
    served = {"path": "", "endpoints": ["http://node1:8000/v1"]}
    assert of_run(embedded_config(teacher=served)).data.restricts is None
    stated = of_run(embedded_config(teacher=served, licences={"teacher": "gemma"}))
    assert stated.data.name == "Gemma Terms of Use"


def test_stating_a_licence_changes_no_recipe() -> None:
    plain, stated = embedded_config(), embedded_config(licences={"teacher": "mit"})
    assert plain.recipe_hash() == stated.recipe_hash()
