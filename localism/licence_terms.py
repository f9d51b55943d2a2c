"""What the licences of open weights and of seed data demand, as far as this pipeline meets them.

An engineering map and not legal advice: it says what to look at before something is published.
Read from the licence texts and from what their makers wrote about them, September 2026.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """One licence, or a family of them that demands the same."""

    name: str
    """As people say it."""
    ids: tuple[str, ...]
    """What model and dataset cards call it under license or license_name, in lower case."""
    text: str = ""
    """Regular expression that finds it in a licence file; empty is none."""
    hint: str = ""
    """Regular expression over a model's name or type. Only for licences that demand something: a
    name may make us careful, and never careless."""
    outputs: tuple[str, ...] = ()
    """What it demands of data that the model wrote, and of a model trained on them."""
    weights: tuple[str, ...] = ()
    """What it demands of a model that contains the weights, beside that."""
    forbids: str = ""
    """What may not be done with data or model, in a few words; such an export wants a yes."""
    prefix: str = ""
    """What the name of a model that was made with it must begin with."""
    is_on_hub: bool = True
    """Whether the hub's cards know its id; otherwise they say `other` and give it as a name."""

    @property
    def restricts(self) -> bool:
        """Whether it asks something of data and models that were made with the model."""
        return bool(self.outputs or self.forbids)

    def matches(self, text: str) -> bool:
        """Whether a licence file is this one."""
        return bool(self.text) and re.search(self.text, text, re.I) is not None

    def hinted(self, name: str) -> bool:
        """Whether the name of a model suggests it."""
        return bool(self.hint) and re.search(self.hint, name, re.I) is not None


NON_COMMERCIAL = "commercial use"
KEEP = "keep its licence text and notices beside the weights"
BUILT_WITH_QWEN = (
    'show "Built with Qwen" or "Improved using Qwen" in the documentation of a published model'
)
PASS_ON = "pass its terms and prohibited uses on to whoever gets the model"


def _llama(version: str, *ids: str) -> Terms:
    """Llama 3.1 and later: outputs may train any model, whose name then says so."""
    major, _, minor = version.partition(".")
    number = rf"{major}[._-]{minor}(?!\d)" if minor else rf"{major}(?!\d|[._-]\d(?!\d*b))"
    return Terms(
        f"Llama {version} Community License",
        ids,
        text=rf"llama {re.escape(version)} (version|community license)",
        hint=rf"(?<![a-z])llama[-_ ]?{number}",
        outputs=(
            'the name of a published model must begin with "Llama"',
            'show "Built with Llama" where it is published: a must for weights of Llama, the '
            "careful reading for a model that was trained on its outputs",
            "above 700 million monthly users a licence from Meta is needed",
        ),
        weights=(
            f'give the licence along, and a file Notice: "Llama {version} is licensed under the '
            f'Llama {version} Community License, Copyright © Meta Platforms, Inc. All Rights '
            'Reserved."',
        ),
        prefix="Llama",
    )  # fmt: skip


def _early_llama(version: str, *, prefix: str, built_with: tuple[str, ...], hint: str) -> Terms:
    """Llama 2 and 3: outputs may improve no other language model."""
    return Terms(
        f"Llama {version} Community License",
        (f"llama{version}",),
        text=rf"llama {version} (version|community license)",
        hint=hint,
        outputs=(f"improve no language model with it but Llama {version} and what is made of it",),
        weights=(*built_with, "give the licence and its file Notice along"),
        forbids=f"improving other models than Llama {version}",
        prefix=prefix,
    )


# Of several that fit a text, the first: the longer name comes before the one that it contains.
TERMS = (
    _llama("3.1", "llama3.1"),
    _llama("3.2", "llama3.2"),
    _llama("3.3", "llama3.3"),
    _llama("4", "llama4"),
    _early_llama(
        "3",
        prefix="Llama 3",
        built_with=('show "Built with Meta Llama 3" where it is published',),
        hint=r"(?<![a-z])llama[-_ ]?3(?!\d|b|[._-][1-3](?!\d*b))",
    ),
    _early_llama(
        "2",
        prefix="",
        built_with=(),
        hint=r"(?<![a-z])llama[-_ ]?2(?!\d|b)|code-?llama",
    ),
    Terms(
        "Tongyi Qianwen Research License",
        ("tongyi-qianwen-research",),
        text=r"tongyi qianwen research license",
        outputs=("research and evaluation only",),
        forbids=NON_COMMERCIAL,
        is_on_hub=False,
    ),
    Terms(
        "Tongyi Qianwen License",
        ("tongyi-qianwen",),
        text=r"tongyi qianwen license",
        hint=r"(?<![a-z])qwen(1\.5)?[-_]\d+(\.\d+)?b",
        outputs=("improve no other large language model with it or its outputs",),
        weights=(KEEP, "above 100 million monthly users a licence from Alibaba Cloud is needed"),
        forbids="improving other models than Qwen",
        is_on_hub=False,
    ),
    Terms(
        "Qwen Research License",
        ("qwen-research", "qwen-research-license"),
        text=r"qwen research license",
        hint=r"qwen2\.5(-coder)?-3b",
        outputs=("research and evaluation only", BUILT_WITH_QWEN),
        weights=(KEEP,),
        forbids=NON_COMMERCIAL,
        is_on_hub=False,
    ),
    Terms(
        "Qwen License",
        ("qwen",),
        text=r"qwen license agreement",
        hint=r"qwen2(\.5)?(-math|-vl)?-72b",
        outputs=(
            BUILT_WITH_QWEN,
            "above 100 million monthly users a licence from Alibaba Cloud is needed",
        ),
        weights=(KEEP,),
        is_on_hub=False,
    ),
    Terms(
        "Gemma Terms of Use",
        ("gemma",),
        text=r"gemma terms of use",
        hint=r"gemma-?[123]|gemma-\d+b|^gemma$",
        outputs=(
            "a model trained on its outputs counts as made of Gemma: give the Gemma Terms of Use "
            "and a notice along, and pass on the prohibited uses",
        ),
    ),
    Terms(
        "Tencent Hunyuan Community License",
        ("tencent-hunyuan-community", "tencent-hunyuan"),
        text=r"tencent hunyuan",
        hint=r"hunyuan",
        outputs=("improve no other large language model with it", "only within its territory"),
        forbids="improving other models than Hunyuan",
        is_on_hub=False,
    ),
    Terms(
        "Mistral research or non-production licence",
        ("mrl", "mnpl", "mistral-ai-research-licence", "mistral-ai-research-license"),
        text=r"mistral ai (research|non-production) licen[sc]e",
        outputs=("research and tests only",),
        forbids=NON_COMMERCIAL,
        is_on_hub=False,
    ),
    Terms(
        "DeepSeek License",
        ("deepseek", "deepseek-license"),
        text=r"deepseek license agreement",
        outputs=(PASS_ON,),
        is_on_hub=False,
    ),
    Terms(
        "OpenRAIL",
        ("openrail", "openrail++", "bigscience-openrail-m", "bigcode-openrail-m",
         "bigscience-bloom-rail-1.0", "creativeml-openrail-m"),
        text=r"open ?rail|responsible ai license",
        outputs=(PASS_ON,),
    ),
    Terms(
        "Creative Commons, not for commercial use",
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
         "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-nd-3.0"),
        text=r"creative commons (attribution|by)[- ]?non-?commercial",
        outputs=("name the source",),
        forbids=NON_COMMERCIAL,
    ),
    Terms(
        "Creative Commons, share alike",
        ("cc-by-sa-4.0", "cc-by-sa-3.0"),
        text=r"creative commons (attribution|by)[- ]?share-?alike",
        outputs=("name the source", "publish what is made of it under the same licence"),
    ),
    Terms(
        "Creative Commons Attribution",
        ("cc-by-4.0", "cc-by-3.0", "cc-by-2.0", "odc-by"),
        text=r"creative commons attribution (\d|international|public)",
        outputs=("name the source",),
    ),
    Terms(
        "GNU General Public License",
        ("gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-2.1", "lgpl-3.0"),
        text=r"gnu (affero |lesser )?general public license",
        outputs=("publish what is made of it under the same licence",),
    ),
    Terms(
        "Apache License 2.0",
        ("apache-2.0",),
        r"apache license,?\s+version 2\.0",
        weights=(KEEP,),
    ),
    Terms(
        "MIT License", ("mit",), r"permission is hereby granted, free of charge", weights=(KEEP,)
    ),
    Terms(
        "BSD License",
        ("bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear"),
        r"redistribution and use in source and binary forms",
        weights=(KEEP,),
    ),
    Terms("Public domain", ("cc0-1.0", "unlicense", "pddl", "wtfpl"), r"cc0 1\.0 universal"),
)  # fmt: skip


IDS = tuple(name for terms in TERMS for name in terms.ids)
"""What cards call the licences that we know."""


def by_id(name: str) -> Terms | None:
    """The terms behind what a card or models.toml calls a licence; None where we know none."""
    wanted = name.strip().lower().replace(" ", "-")
    return next((terms for terms in TERMS if wanted in terms.ids), None)
