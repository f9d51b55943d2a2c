"""Tensor and data parallel sizes of published models, from config.json and headers of weights."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from engines import NewContext, embedded_config
from hypothesis import given
from hypothesis import strategies as some

from localism.config import Teacher
from localism.errors import ConfigError, LocalismError, MachineError
from localism.gpus import Device, Gpus, of_devices
from localism.serving import engine
from localism.serving.memory import Layers, Needed, needed
from localism.serving.placement import Placement, Room, place, stands_against

GIB = 2**30
HEAD = {"max_position_embeddings": 131072, "dtype": "bfloat16"}


def gpus(number: int, gib: float = 80) -> Gpus:
    return of_devices([Device(str(n), f"GPU-{n}", int(gib * GIB), 0) for n in range(number)])


def model(folder: Path, config: dict[str, Any], parameters: int, dtype: str = "BF16") -> Path:
    """A folder whose weight file has a header for so many parameters, and a hole for content."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**HEAD, **config}))
    size = parameters * (2 if dtype == "BF16" else 1)
    tensor = {"dtype": dtype, "shape": [parameters], "data_offsets": [0, size]}
    header = json.dumps({"w": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    return folder


def shape(
    layers: int, hidden: int, heads: int, kv: int, inner: int, words: int, **more: Any
) -> Any:
    return {
        "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
        "num_key_value_heads": kv, "intermediate_size": inner, "vocab_size": words, **more,
    }  # fmt: skip


LLAMA_8B = shape(32, 4096, 32, 8, 14336, 128256, max_position_embeddings=8192)
LLAMA_70B = shape(80, 8192, 64, 8, 28672, 128256)
MIXTRAL = shape(32, 4096, 32, 8, 14336, 32000, num_local_experts=8, max_position_embeddings=32768)
QWEN_32B = shape(64, 5120, 40, 8, 27648, 152064, max_position_embeddings=32768)
QWEN_HALF_B = shape(24, 896, 14, 2, 4864, 151936, max_position_embeddings=32768)
FP8 = {"quantization_config": {"quant_method": "fbgemm_fp8"}}
MODELS = {
    "Llama-3-8B": (LLAMA_8B, 8_030_261_248, "BF16"),
    "Llama-3.1-70B": (LLAMA_70B, 70_553_706_496, "BF16"),
    "Llama-3.1-70B-FP8": ({**LLAMA_70B, **FP8}, 70_553_706_496, "F8_E4M3"),
    "Mixtral-8x7B": (MIXTRAL, 46_702_792_704, "BF16"),
    "Qwen2.5-32B": (QWEN_32B, 32_763_876_352, "BF16"),
    "Qwen2.5-0.5B": (QWEN_HALF_B, 494_032_768, "BF16"),
}


def need_of(tmp_path: Path, name: str, section: Teacher) -> Needed:
    config, parameters, dtype = MODELS[name]
    return needed(model(tmp_path / name, config, parameters, dtype), section)


@pytest.mark.parametrize(
    ("name", "expected", "reason"),
    [
        # 16 GB of weights leave 58 GB for the cache of a GPU.
        ("Llama-3-8B", {1: (1, 1), 2: (1, 2), 4: (1, 4), 8: (1, 8)}, "one GPU has room"),
        # 141 GB: two GPUs hold it with 21,000 tokens of cache, four with 475,000.
        ("Llama-3.1-70B", {2: (2, 1), 4: (4, 1), 8: (4, 2)}, "42 usual conversations at once"),
        ("Llama-3.1-70B-FP8", {1: (1, 1), 2: (2, 1), 4: (2, 2), 8: (2, 4)}, "usual conversations"),
        # 93 GB: all eight experts are held, though a token passes two.
        ("Mixtral-8x7B", {2: (2, 1), 4: (2, 2), 8: (2, 4)}, "weights do not fit on 1 GPU"),
        ("Qwen2.5-32B", {1: (1, 1), 2: (2, 1), 4: (2, 2), 8: (2, 4)}, "usual conversations"),
        ("Qwen2.5-0.5B", {1: (1, 1), 2: (1, 2), 4: (1, 4), 8: (1, 8)}, "one GPU has room"),
    ],
)
def test_published_models_on_h100s(
    tmp_path: Path, name: str, expected: dict[int, tuple[int, int]], reason: str
) -> None:
    section = Teacher(max_model_len=8192)
    need = need_of(tmp_path, name, section)
    found = {}
    for number in (1, 2, 4, 8):
        try:
            found[number] = place(need, section, gpus(number), "teacher")
        except MachineError as small:
            assert "the weights do not fit" in small.problem
    assert {number: (one.tensor, one.data) for number, one in found.items()} == expected
    assert reason in found[8].why
    assert f"weights {need.weights / found[8].tensor / 1e9:.1f} GB of the 74.1 GB usable" in (
        found[8].why
    )


def test_what_does_not_fit_is_told_how_many_gpus_would_hold_it(tmp_path: Path) -> None:
    section = Teacher(max_model_len=16384)
    need = need_of(tmp_path, "Llama-3.1-70B", section)
    with pytest.raises(MachineError) as small:
        place(need, section, gpus(1), "teacher")
    assert small.value.fix.startswith("2 GPUs of 85.9 GB")
    with pytest.raises(MachineError, match="longest conversation does not fit") as long:
        place(
            need_of(tmp_path / "..", "Llama-3.1-70B-FP8", Teacher()), Teacher(), gpus(1), "teacher"
        )
    assert "[teacher].max_model_len = 10" in long.value.fix


def test_a_small_share_of_the_gpus_is_named_as_the_cause(tmp_path: Path) -> None:
    section = Teacher(max_model_len=8192, gpu_memory_utilization=0.02)
    with pytest.raises(MachineError) as small:
        place(need_of(tmp_path, "Llama-3-8B", section), section, gpus(1), "judge")
    assert "gpu_memory_utilization = 0.02" in small.value.where
    assert small.value.fix.startswith("a higher [judge].gpu_memory_utilization; or larger GPUs")


def test_few_conversations_need_few_copies(tmp_path: Path) -> None:
    section = Teacher()
    need = need_of(tmp_path, "Qwen2.5-0.5B", section)
    copies = {n: place(need, section, gpus(8), "student", n).data for n in (1, 256, 257, 600, 9999)}
    assert copies == {1: 1, 256: 1, 257: 2, 600: 3, 9999: 8}
    assert "100 conversations fill no more" in place(need, section, gpus(8), "student", 100).why


# ---- given sizes ---------------------------------------------------------------------------


def test_a_given_size_is_taken_as_given(tmp_path: Path) -> None:
    section = Teacher(tensor_parallel=8, max_model_len=8192)
    need = need_of(tmp_path, "Llama-3.1-70B", section)
    assert place(need, section, gpus(8), "teacher")[:3] == (8, 1, 1)
    two = section.model_copy(update={"tensor_parallel": None, "data_parallel": 2})
    assert place(need, two, gpus(8), "teacher")[:3] == (4, 1, 2)
    one = section.model_copy(update={"tensor_parallel": 2, "data_parallel": 1})
    assert place(need, one, gpus(8), "teacher")[:3] == (2, 1, 1)


@pytest.mark.parametrize(
    ("sizes", "kind", "problem", "fix"),
    [
        ({"tensor_parallel": 3}, ConfigError, "64 attention heads cannot", "tensor_parallel = 2"),
        ({"tensor_parallel": 1}, MachineError, "do not fit on 1 GPU", "tensor_parallel = 2"),
        ({"tensor_parallel": 16}, MachineError, "16 GPUs, and there are 8", "leave them away"),
        ({"data_parallel": 9}, MachineError, "9 GPUs, and there are 8", "leave them away"),
        (
            {"tensor_parallel": 4, "data_parallel": 4},
            MachineError, "16 GPUs, and there are 8", "leave them away",
        ),
        ({"data_parallel": 8}, MachineError, "weights do not fit on 1 GPU", "2 GPUs of 85.9 GB"),
    ],
)  # fmt: skip
def test_a_given_size_that_cannot_work_is_refused_with_one_that_can(
    tmp_path: Path, sizes: dict[str, int], kind: type[LocalismError], problem: str, fix: str
) -> None:
    section = Teacher(max_model_len=8192, **sizes)
    with pytest.raises(kind, match=problem) as refused:
        place(need_of(tmp_path, "Llama-3.1-70B", section), section, gpus(8), "teacher")
    assert "[teacher]" in refused.value.where
    assert fix in refused.value.fix


def test_further_arguments_may_make_a_model_smaller_so_it_is_not_refused(tmp_path: Path) -> None:
    section = Teacher(max_model_len=8192, engine_arguments=("--quantization", "fp8"))
    need = need_of(tmp_path, "Llama-3.1-70B", section)
    assert place(need, section, gpus(1), "teacher")[:3] == (1, 1, 1)


def test_the_smallest_of_unequal_gpus_counts(tmp_path: Path) -> None:
    section = Teacher(max_model_len=8192)
    need = need_of(tmp_path, "Qwen2.5-32B", section)
    unequal = of_devices([*gpus(1).devices, *gpus(3, 40).devices])
    assert place(need, section, unequal, "teacher")[:3] == (4, 1, 1)


def test_without_figures_the_engine_is_left_to_find_out(tmp_path: Path) -> None:
    section = Teacher()
    need = need_of(tmp_path, "Llama-3-8B", section)
    assert place(need, section, Gpus(0, None), "teacher")[:3] == (1, 1, 1)
    given = section.model_copy(update={"tensor_parallel": 2})
    assert place(need, given, Gpus(0, None), "teacher")[:3] == (2, 1, 1)
    unknown = of_devices([Device(str(n), f"GPU-{n}", None, None) for n in range(2)])
    assert place(need, section, unknown, "teacher")[:3] == (2, 1, 1)


# ---- what divides --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "possible"),
    [
        (LLAMA_70B, [1, 2, 4, 8]),
        # 28 heads over 4 for keys and values: 7 divides the ones and not the others.
        (shape(28, 3584, 28, 4, 18944, 152064), [1, 2, 4]),
        (QWEN_HALF_B, [1, 2]),
        # 72B as GPTQ with groups of 128 was first published with this width: never divisible.
        (
            shape(80, 8192, 64, 8, 29568, 152064)
            | {"quantization_config": {"quant_method": "gptq", "group_size": 128}},
            [1],
        ),
        (
            shape(80, 8192, 64, 8, 29696, 152064)
            | {"quantization_config": {"quant_method": "gptq", "group_size": 128}},
            [1, 2, 4, 8],
        ),
        # Qwen3-30B-A3B in FP8 blocks: experts of 768 are 6 blocks, so 4 GPUs cannot share them.
        (
            shape(48, 2048, 32, 4, 6144, 151936, head_dim=128, num_experts=128)
            | {"moe_intermediate_size": 768}
            | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            [1, 2],
        ),
        # DeepSeek-V3 keeps one vector a layer for all heads.
        (
            shape(61, 7168, 128, 128, 18432, 129280, kv_lora_rank=512, qk_rope_head_dim=64)
            | {"v_head_dim": 128, "n_routed_experts": 256, "moe_intermediate_size": 2048}
            | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            [1, 2, 4, 8],
        ),
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_sizes_that_vllm_would_refuse_are_known_before(
    tmp_path: Path, config: dict[str, Any], possible: list[int]
) -> None:
    need = needed(model(tmp_path / "m", config, 1_000_000), Teacher())
    assert [size for size in range(1, 9) if not stands_against(need, size)] == possible


def test_experts_are_divided_over_the_gpus_of_all_copies(tmp_path: Path) -> None:
    config = shape(48, 2048, 32, 4, 6144, 151936, head_dim=128, num_experts=128) | {
        "moe_intermediate_size": 768,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }
    need = needed(model(tmp_path / "m", config, 30_000_000_000, "F8_E4M3"), Teacher())
    # 8 copies would cut experts of 768 into 96, and 6 are the most that leave whole blocks.
    assert place(need, Teacher(), gpus(8), "teacher")[:3] == (1, 1, 6)
    with pytest.raises(ConfigError, match="experts cannot be divided over 4 copies"):
        place(need, Teacher(data_parallel=4), gpus(8), "teacher")


def test_compressed_attention_is_kept_whole_on_every_gpu(tmp_path: Path) -> None:
    config = shape(61, 7168, 128, 128, 18432, 129280, kv_lora_rank=512, qk_rope_head_dim=64)
    need = needed(model(tmp_path / "m", config, 100_000_000_000, "F8_E4M3"), Teacher())
    four, eight = (Room(need, Teacher(), gpus(8)).tokens(size) for size in (4, 8))
    assert four is not None and eight is not None
    left = [0.9 * 80 * GIB - 3 * GIB - need.weights / size for size in (4, 8)]
    assert eight / four == pytest.approx(left[1] / left[0], rel=1e-4)


# ---- whatever the model --------------------------------------------------------------------


@some.composite
def needs(draw: Any) -> Needed:
    kv_heads = draw(some.integers(1, 16))
    layers = Layers(
        heads=kv_heads * draw(some.integers(1, 12)),
        kv_heads=kv_heads,
        head_size=draw(some.sampled_from([64, 80, 128])),
        widths=(draw(some.integers(1, 400)) * 64,),
        expert_width=draw(some.sampled_from([0, 0, 768, 1408, 14336])),
        vocabulary=draw(some.integers(1000, 260_000)),
        group=draw(some.sampled_from([0, 0, 32, 128])),
    )
    weights = draw(some.integers(1, 400)) * 10**9
    a_token = 4 * draw(some.integers(1, 128)) * kv_heads * layers.head_size
    return Needed(weights // 2, weights, a_token, draw(some.integers(512, 131072)), layers)


@given(needs(), some.integers(1, 16), some.sampled_from([24, 40, 80, 141]), some.integers(1, 5000))
def test_a_derived_placement_divides_the_model_and_fits(
    need: Needed, number: int, gib: int, conversations: int
) -> None:
    section, found = Teacher(), None
    try:
        found = place(need, section, gpus(number, gib), "teacher", conversations)
    except MachineError:
        assert not any(Room(need, section, gpus(number, gib)).fits(n) for n in range(1, number + 1)
                       if not stands_against(need, n))  # fmt: skip
        return
    assert need.layers.heads % found.tensor == 0
    assert found.gpus == found.tensor * found.data <= number
    assert need.weights / found.tensor <= 0.9 * gib * GIB - 3 * GIB
    room = Room(need, section, gpus(number, gib))
    assert (room.tokens(found.tensor) or 0) >= need.longest
    # Nothing smaller would have done: it lacks room, or leaves GPUs idle with as many copies.
    for size in room.sizes(found.tensor - 1):
        assert not room.is_ample(size) or number // size == number // found.tensor


@given(needs(), some.integers(1, 8))
def test_more_gpus_never_mean_less_room_for_a_copy(need: Needed, number: int) -> None:
    room = Room(need, Teacher(), gpus(8))
    sizes = room.sizes(8)
    tokens = [room.tokens(size) or 0 for size in sizes]
    assert tokens == sorted(tokens)


# ---- the engine ----------------------------------------------------------------------------


def test_an_engine_sees_the_gpus_of_its_placement_alone(
    new_context: NewContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "engine_kind", lambda table: "gpu")
    context = new_context(embedded_config(student={"tensor_parallel": 2, "data_parallel": 1}))
    free = of_devices([Device(name, f"GPU-{name}", 80 * GIB, 0) for name in "76543"]).part(1, 4)
    made = engine.Engine(context, "student", "pick", gpus=free)
    assert made.placement[:3] == (2, 1, 1)
    environment, command = made.environment(), made.command()
    assert environment["CUDA_VISIBLE_DEVICES"] == "6,5"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert command[command.index("--tensor-parallel-size") + 1] == "2"
    assert "--data-parallel-size" not in command


def test_on_a_cpu_the_sizes_are_one_unless_given(new_context: NewContext) -> None:
    assert engine.Engine(new_context(), "teacher", "generate").placement == Placement()
    context = new_context(embedded_config(teacher={"data_parallel": 2}), "two")
    made = engine.Engine(context, "teacher", "generate")
    assert made.placement == Placement(data=2) and made.gpus.number == 0
    assert "uni" in made.command() and "VLLM_CPU_OMP_THREADS_BIND" not in made.environment()
    shared = new_context(embedded_config(teacher={"tensor_parallel": 2}), "shared")
    made = engine.Engine(shared, "teacher", "generate")
    assert made.placement == Placement(tensor=2)
    assert "uni" not in made.command(), "two processes share the copy"
    assert made.environment()["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


def test_a_derived_size_is_no_part_of_recipe_or_fingerprint(new_context: NewContext) -> None:
    plain, given_sizes = embedded_config(), embedded_config(teacher={"tensor_parallel": 2})
    assert plain.recipe_hash() == given_sizes.recipe_hash()
    folder = Path(engine.__file__).parents[1] / "embedded/teacher"
    one, two = (
        engine.Engine(new_context(config, name), "teacher", "generate").fingerprint(folder)
        for name, config in (("one", plain), ("two", given_sizes))
    )
    assert one == two
