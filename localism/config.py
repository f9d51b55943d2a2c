"""Every key of models.toml with its type, default and meaning: one frozen Config.

Everything a run depends on is in here and nowhere else; the stages read no environment, TOML or
command line. models_toml.py reads and checks it.
"""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from localism.paths import EMBEDDED
from localism.records import stable_id
from localism.speed_keys import without_speed

# Strict: "3" is no number and true is not 1.
Number = Annotated[float, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
# What every library behind takes: numpy no number below 0, scikit-learn none above.
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
Count = Annotated[Whole, Field(ge=1, lt=2**31)]


def _host_and_port(text: str) -> str:
    host, colon, port = text.partition(":")
    is_port = not colon or (port.isdecimal() and 0 < int(port) < 2**16)
    if text and not (re.fullmatch(r"[\w.-]+", host) and is_port):
        raise ValueError("write a host name or IPv4 address, or HOST:PORT: node1:29400")
    return text


Meeting = Annotated[str, AfterValidator(_host_and_port)]


class Section(BaseModel):
    """A table of models.toml: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_a_path(cls, value: Any) -> Any:
        texts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ValueError("a zero character is in no name and no path")
        return value


class Served(Section):
    """A model that answers requests: served here by vLLM, or by servers that run already."""

    path: str = ""
    """Folder with config.json, tokenizer and safetensors; or embedded:teacher, embedded:student."""
    endpoints: tuple[str, ...] = ()
    """Base URLs of servers that run already, for instance http://node1:8000/v1."""
    served_name: str = ""
    """Model name at the endpoints; empty takes the first that they list."""
    api_key_file: str = ""
    """File that holds the endpoints' API key."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Weights in the engine."""
    max_model_len: Count | None = None
    """Longest conversation in tokens; the model's own maximum when absent."""
    max_num_seqs: Count = 256
    """Sequences that the engine decodes at once."""
    tensor_parallel: Count | None = None
    """GPUs that share one copy of the weights; when absent, found from their memory."""
    data_parallel: Count | None = None
    """Copies of the model; when absent, as many as the other GPUs hold and the work fills."""
    nodes: Count = 1
    """Machines that one engine spans, alike in GPUs, by Ray: Slurm starts the others; without it
    each of them runs localism worker."""
    pipeline_parallel: Count | None = None
    """Groups of GPUs that a copy's layers are spread over, one behind the other; when absent one a
    machine, where no data_parallel is given."""
    rendezvous: Meeting = ""
    """With nodes: this machine as the others reach it, HOST or HOST:PORT; when empty its name, and
    a free port."""
    gpu_memory_utilization: Annotated[Number, Field(gt=0, le=1)] = 0.9
    """Share of each GPU that vLLM may take."""
    trust_remote_code: Flag = False
    """Run Python code that lies in the model folder."""
    start_timeout_seconds: Count = 900
    """How long the server may take until it is healthy, and how long endpoints may all be away."""
    engine_arguments: tuple[str, ...] = ()
    """Further vLLM command-line arguments."""


class Teacher(Served):
    """Writes skills and data."""


class Judge(Served):
    """Compares two answers."""

    kind: Literal["letter", "likelihood"] = "letter"
    """letter: it names the better of two shown answers. likelihood: the answer that it finds more
    probable, a token, wins; for judges too small to compare. The report says which."""
    same_as: Literal["", "teacher"] = ""
    """'teacher' lets the teacher judge; the report then warns of self-preference."""


class Embedder(Section):
    """Turns skill names and instructions into vectors."""

    path: str = f"{EMBEDDED}minilm"
    """sentence-transformers folder; embedded:minilm is all-MiniLM-L6-v2."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; auto takes a GPU where there is one. On a GPU it has a process of its own."""
    batch_size: Count | None = None
    """Texts a batch; chosen from the device when absent."""


class Student(Served):
    """The base model that is fine-tuned, and how it answers."""

    temperature: Annotated[Number, Field(ge=0)] = 0.9
    """Of the answers that are judged."""
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Of the answers that are judged."""
    max_tokens: Count = 2048
    """Longest answer, in tokens."""


class Prompts(Section):
    """Which prompts are used."""

    pack: str = "paper"
    """A folder under prompts/, or a path."""


class SeedSource(Section):
    """Seed data: a file or folder, how much of it, and which columns. A bare path will do."""

    path: str
    """JSONL, JSON, Parquet or CSV file, or a Hugging Face dataset folder."""
    sample: Count | None = None
    """Examples drawn, seeded; [extract].seed_examples when absent."""
    split: str = ""
    """Of a dataset folder with several splits; empty is train, or the only one."""
    instruction: str = ""
    """Column with the instruction; found by itself in Alpaca, messages and prompt-completion."""
    input: str = ""
    """Column that is put behind the instruction."""
    response: str = ""
    """Column with the response."""

    @model_validator(mode="before")
    @classmethod
    def _bare_path(cls, value: Any) -> Any:
        if not isinstance(value, str | dict | SeedSource):
            raise ValueError('write a path in quotes, or a table: { path = "...", sample = 100 }')
        return {"path": value} if isinstance(value, str) else value


class Extract(Section):
    """Stage extract: what the teacher is asked for."""

    method: Literal["sda", "sdd", "both"] = "sda"
    """sda asks the model itself; sdd labels seed examples; both merges the two."""
    domain: str = ""
    """Keep to this domain, for instance "safety"; empty is everything that people ask about."""
    taxonomy: str = ""
    """File of topics, one a line, or of fields > subjects > topics (JSON or TOML); the teacher is
    then asked for skills alone, or for the topics that its subjects lack."""
    topics: Count = 150
    """Topics wanted; with subjects in the taxonomy, of each subject."""
    skills_per_topic: Count = 8
    """Skills wanted from each topic."""
    query_types: Count = 18
    """Query types wanted; 1 to 18 in the paper."""
    list_length: Count = 20
    """Items asked for in one prompt."""
    samples: Count = 4
    """Replies sampled from each prompt."""
    max_rounds: Count = 12
    """Most rounds of prompts until the wanted number is reached."""
    least_yield: Fraction = 0.05
    """A round is dry when less than this share of its items is new; two dry rounds end a list."""
    retries: Annotated[Whole, Field(ge=0)] = 2
    """How often a reply without a usable item is asked for again."""
    seeds: tuple[SeedSource, ...] = ()
    """Seed data for sdd: paths (JSONL, JSON, Parquet, CSV, or a Hugging Face dataset folder;
    embedded:seeds.jsonl ships), or tables of path, sample and columns."""
    seed_examples: Count = 5200
    """How many examples of each source are labelled, unless it says how many itself."""


class Cluster(Section):
    """Stage cluster: which labels are the same skill, and which skills belong together."""

    merge_cosine: Fraction = 0.90
    """Names at least this alike are one skill (complete linkage)."""
    method: Literal["auto", "hdbscan", "fast", "cuml"] = "auto"
    """hdbscan compares every pair; fast is HDBSCAN over the graph of nearest neighbours, for 100k
    names and more; cuml is HDBSCAN on the GPU, where installed; auto is hdbscan up to 3,000 skills,
    then fast."""
    min_cluster_size: Annotated[Whole, Field(ge=2)] = 2
    """Of HDBSCAN; 3 or 5 give coarser themes and more noise."""
    min_samples: Count = 1
    """Of HDBSCAN; above 1 most skill names become noise."""
    selection: Literal["leaf", "eom"] = "leaf"
    """Of HDBSCAN; eom may collapse into one giant cluster."""
    noise: Literal["rare", "absorb", "assign-all"] = "rare"
    """What HDBSCAN leaves alone: rare keeps each as a cluster of one; absorb gives it to the
    nearest centroid within absorb_cosine; assign-all to the nearest one, as the paper does."""
    absorb_cosine: Fraction = 0.60
    """See noise."""
    names: Literal["medoid", "teacher"] = "medoid"
    """A cluster is named after its most central skill, or by the teacher from its members; in
    prompts its central skill stands for it in either case."""
    relabel: Literal["labels", "teacher"] = "labels"
    """The cluster of a seed example: that of its own labels, or the teacher chooses among the
    nearest (metacognition paper)."""


class MixSection(Section):
    """Stage mix: how many k-tuples of skills."""

    k: Annotated[Whole, Field(ge=1, le=20)] = 2
    """Skills in one example."""
    unit: Literal["auto", "skill", "cluster"] = "auto"
    """Draw single skills, or clusters of them, each named by its most central skill. auto takes
    clusters where all skills come from seed data (sdd), as the paper does, and skills elsewhere."""
    design: Literal["balanced", "random"] = "balanced"
    """balanced uses every skill equally often and no set twice; random draws as the paper does."""
    apart: Flag = True
    """Prefer skills of different clusters in one mix (balanced)."""
    seed: Seed | None = None
    """Of the plan; the run's own when absent."""
    train: Count = 4000
    """Examples planned for training."""
    dev: Annotated[Whole, Field(ge=2)] = 100
    """Held out to pick the checkpoint."""
    test: Annotated[Whole, Field(ge=2)] = 200
    """Held out to measure the picked checkpoint."""


class Generate(Section):
    """Stage generate: the teacher's conversations."""

    requests_in_flight: Count | None = None
    """Conversations at once. When absent, a quarter more than max_num_seqs at first, and then what
    the server's own load calls for."""


Gate = Literal[
    "parsed",
    "complete",
    "length",
    "markers",
    "repetition",
    "refusal",
    "self_talk",
    "language",
    "personal_data",
    "overlap",
    "skills",
    "shirker",
    "duplicate",
]
Language = Literal[
    "ar", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "id",
    "it", "ja", "ko", "nl", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh",
]  # fmt: skip


class Curate(Section):
    """Stage curate: the gates and their thresholds; docs/curation.md has the measured errors."""

    gates: tuple[Gate, ...] = get_args(Gate)
    """Which gates run, in this order; a gate that is left out is off. parsed comes first. Cheap
    ones belong before skills, and duplicate last: it compares with what passed all before it."""
    skills: Literal["judge", "words"] = "judge"
    """All skills present: asked of the judge, or looked up as words."""
    duplicates_by: Literal["words", "meaning", "both"] = "both"
    """How near duplicates of instructions are found: by word 3-grams (near_duplicate), by the
    embedder (near_cosine), or either. The same words are found in any case."""
    near_duplicate: Fraction = 0.85
    """Instructions whose word 3-gram sets overlap (Jaccard) at least this much are duplicates."""
    near_cosine: Fraction = 0.99
    """Instructions whose vectors have at least this cosine are duplicates; measured for MiniLM."""
    min_instruction_tokens: Count = 5
    """Of the student's tokenizer; shorter instructions are rejected."""
    max_instruction_tokens: Count = 2048
    """Of the student's tokenizer; longer instructions are rejected."""
    min_response_tokens: Count = 12
    """Of the student's tokenizer; shorter responses are rejected."""
    max_response_tokens: Count = 4096
    """Of the student's tokenizer; longer responses are rejected."""
    max_repeated: Fraction = 0.45
    """Share of a response's words (in 8-grams) or lines that may repeat earlier ones."""
    min_compression: Fraction = 0.12
    """A response that zlib makes smaller than this share of its bytes is rejected."""
    max_refusal_words: Count = 80
    """A response that opens with a refusal is one up to this length; longer ones help after all."""
    languages: tuple[Language, ...] = ()
    """Languages that examples may be in, da for Norwegian too; any, but the same in both parts,
    when empty."""
    max_personal_data: Annotated[Whole, Field(ge=0)] = 0
    """E-mail addresses, phone and account numbers, and the like, that an example may hold."""
    benchmarks: tuple[str, ...] = ()
    """Files of benchmark prompts (JSONL, or text with a prompt a line) that no instruction may
    overlap."""
    shirker_calibration: Annotated[Whole, Field(ge=20)] = 100
    """Instructions that the teacher also answers badly, so that the gate learns what that is."""
    shirker_false_alarms: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """Share of real answers that the gate for shirkers may lose."""
    overlap_words: Annotated[Whole, Field(ge=8)] = 13
    """So many words in a row shared with a benchmark prompt are an overlap."""
    overlap_share: Fraction = 0.5
    """More of the shorter text's word 8-grams than this shared with the other are an overlap."""
    overlap_cosine: Fraction = 0.85
    """Vectors of instruction and benchmark prompt with at least this cosine are an overlap;
    measured for MiniLM. 1 leaves it to the words."""

    @field_validator("gates")
    @classmethod
    def _in_order(cls, gates: tuple[Gate, ...]) -> tuple[Gate, ...]:
        if gates[:1] != ("parsed",):
            raise ValueError("parsed must come first, for the others read what it lets through")
        twice = sorted({gate for gate in gates if gates.count(gate) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return gates


class Train(Section):
    """Stage train: TRL's SFTTrainer."""

    epochs: Count | None = None
    """Passes over the data; one checkpoint each. When absent 15, or 3 from 20,000 examples on."""
    learning_rate: Annotated[Number, Field(gt=0)] | None = None
    """Peak; cosine to zero. When absent that of the paper's table 9 for the model's family (2e-5
    for others), and ten times that for lora."""
    batch: Count = 64
    """Examples a step over all devices; packed rows with packing."""
    micro_batch: Count | None = None
    """Examples a device and forward pass; batch must be a multiple of devices x micro_batch. When
    absent, found from the GPU's memory, and up to 8 on a CPU."""
    packing: Flag = False
    """Fill rows of max_length with several examples, none of which sees another. Worth it with
    flash attention."""
    method: Literal["full", "lora"] = "full"
    """full moves every weight; lora trains small matrices beside them, which each checkpoint has
    merged into its weights."""
    lora_rank: Count = 16
    """Inner size of those matrices."""
    lora_alpha: Annotated[Number, Field(gt=0)] = 32.0
    """Their product counts lora_alpha / lora_rank."""
    lora_targets: tuple[str, ...] = ()
    """Names of the layers that get them; empty is every linear layer but the last."""
    warmup: Fraction = 0.03
    """Share of the steps."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    """AdamW's."""
    max_length: Count = 4096
    """Tokens of prompt and response together; longer examples are cut and counted."""
    gradient_checkpointing: Flag = True
    """Less memory, more time."""
    threads: Count | None = None
    """CPU threads; only where there is no GPU."""
    nodes: Count | None = None
    """Machines that train together, alike in GPUs; when absent all of a Slurm job, and 1 elsewhere.
    Slurm starts the others; without it each of them runs localism worker."""
    rendezvous: Meeting = ""
    """This machine as the others reach it, HOST or HOST:PORT; when empty its name, and a free
    port."""
    join_timeout_seconds: Count = 600
    """How long the other machines may take to come."""
    silence_seconds: Annotated[Whole, Field(ge=10, lt=2**31)] = 180
    """How long a machine may give no sign of life before the training ends."""
    keep: Literal["best", "tied", "all"] = "all"
    """Checkpoints whose weights stay once one is picked: that one, its tie set too, or all."""


class Pick(Section):
    """Stage pick: which checkpoint is best on dev."""

    both_orders: Flag = True
    """Judge every pair in both orders and average; off imitates AlpacaEval's single order."""
    bootstrap: Annotated[Whole, Field(ge=100)] = 1000
    """Resamples behind every interval."""
    beside: Literal["auto", "yes", "no"] = "auto"
    """Judge while the student still answers, benchmarks too. auto: where the judge has endpoints,
    or the GPUs hold a copy of each; yes: on a CPU too."""
    calibration: Annotated[Whole, Field(ge=0)] = 40
    """References that the teacher rewrites longer and shorter, to measure the judge's taste for
    length; 0 is off, and so are prompt packs without the two templates."""


class Licences(Section):
    """Licences that the folders do not name, for cards and exports: docs/export.md."""

    teacher: str = ""
    """As a model card names it, for instance llama3.3; counts before what is found."""
    judge: str = ""
    """Of the judge's weights."""
    student: str = ""
    """Of the base model's weights."""
    embedder: str = ""
    """Of the embedder's weights."""
    seeds: str = ""
    """Of all seed data, for instance cc-by-4.0."""


class Evaluate(Section):
    """Stage evaluate: benchmarks beside the run's own test prompts."""

    suites: tuple[str, ...] = ()
    """Benchmarks that follow the test verdict: alpacaeval, mt-bench, wildbench, flask, skill-mix,
    lm-eval, or files of prompts with answers; none when empty."""
    staged: str = "suites"
    """Folder of the benchmarks that `localism evaluate stage` brought in; as runs/, relative to the
    working folder."""
    judge_prompts: str = "judges"
    """The judge's prompts of these benchmarks: a folder under prompts/, or a path."""
    structured: Flag = True
    """Ask the judge for written verdicts as JSON under vLLM's structured outputs; off reads them as
    the benchmark's own code does."""
    verdict_tokens: Count = 1024
    """Longest written verdict."""


class Config(Section):
    """A whole models.toml."""

    seed: Seed = 0
    """Of everything that is drawn."""
    teacher: Teacher
    judge: Judge
    embedder: Embedder = Embedder()
    student: Student
    prompts: Prompts = Prompts()
    extract: Extract = Extract()
    cluster: Cluster = Cluster()
    mix: MixSection = MixSection()
    generate: Generate = Generate()
    curate: Curate = Curate()
    train: Train = Train()
    pick: Pick = Pick()
    evaluate: Evaluate = Evaluate()
    licences: Licences = Licences()

    def served(self, role: str) -> Served:
        """The section that says how this role is served; the judge may be the teacher."""
        if role == "judge" and self.judge.same_as:
            return self.teacher
        served: Served = getattr(self, role)
        return served

    def both_orders(self) -> bool:
        """Whether each pair is judged twice; likelihoods have no order."""
        return self.pick.both_orders and self.judge.kind == "letter"

    def recipe(self) -> dict[str, Any]:
        """What the outcome depends on: everything but speed_keys.SPEED_ONLY."""
        return without_speed(self.model_dump(mode="json"))

    def recipe_hash(self) -> str:
        """Stable id of the recipe."""
        return stable_id(self.recipe())

    def is_rehearsal(self) -> bool:
        """Whether a model of the miniature takes part."""
        return any(
            self.served(role).path.startswith(EMBEDDED) for role in ("teacher", "judge", "student")
        )
