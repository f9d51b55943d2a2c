"""Gate language: which language a text is written in, by its script and its commonest words.

No library and no model: the gate must only notice that a teacher has slipped into another language,
and it holds its tongue (None, which passes) for short, mixed or unknown texts.
"""

import re
from collections import Counter
from collections.abc import Sequence

from localism.curation.candidate import Candidate, Verdict
from localism.parsing.fences import outside_fences

# The commonest words that few of the other languages share.
_COMMON = {
    "en": "the and of to is that it for you with on as are this be have from your not or by if will"
    " can at what they we was how do my an but their which when more there so a who he she his her"
    " were has had i'm don't it's",
    "de": "der die und das ist nicht ein eine zu mit sich auf für den dem im von auch wie sie wir"
    " ich es als werden oder sind bei nach wenn aus noch kann einen einem zum zur haben wird",
    "fr": "le les des est et une du dans pour que qui pas vous sur ce il avec plus sont au ne je"
    " nous aux cette mais par ou votre se elle être d'un c'est il leur si comme",
    "es": "el los las una del que es y en por con para se lo su más como pero no al está son este"
    " si cuando muy sin sobre también hay ser tu desde puede esta",
    "it": "il che di è per una non con sono del della più gli nel ma anche si lo dei alla come le"
    " questo se ed ha delle essere da al puoi nella tra molto",
    "pt": "que não uma os as é do da em para com por mais se dos como mas ao das você na no são"
    " seu sua também ou isso pode quando muito está nos um ele",
    "nl": "de het een van en is dat niet op te zijn voor met die je aan ook er maar om als dan"
    " naar bij nog wordt deze door wat kan heeft ik uit worden",
    "sv": "och att det som en är på för av inte den till med har ett om du kan så jag från men"
    " eller var vid sig ska när de också",
    "pl": "w nie na się że z jest jak co po za od ale dla są przez lub oraz być które"
    " tak jego czy może już jeśli",
    "tr": "ve bir bu için da de ile çok daha en olarak olan gibi ne kadar sonra her ya değil"
    " veya var ise ama ben sen",
    "cs": "se na že jako pro ale jsou nebo podle které jsem si už také být tak když než jeho je ho"
    " ve kde protože jen bude",
    "id": "yang dan di untuk dengan ini dari itu tidak pada adalah ke dalam akan anda juga atau"
    " bisa saya karena lebih seperti sudah agar",
    "da": "og det er en at på ikke til med den der de som for af av et har jeg kan du fra om men så"
    " også når blev ble være hvordan hvad hva dig deg mig meg noget noe meget mye efter etter å",
    "ro": "și în cu pe nu este care din sau mai pentru sunt să că dar când după apoi fi prin foarte"
    " această acest singură îl îți",
    "hu": "az és hogy nem is egy meg van ez azt ha csak mint már vagy után még lesz volt majd mert"
    " minden nagyon lehet kell utána ezt",
    "fi": "ja on ei se että hän oli niin kun mutta tai ovat ole myös jos kuin sen sitten tämä voi"
    " sitä mitä hyvin kanssa joka jotka älä",
    "vi": "là và của có cho không được một các với trong để này những người khi bạn đã thì"
    " hoặc cũng từ nhiều như",
}
_PROFILES = {language: frozenset(text.split()) for language, text in _COMMON.items()}
_SCRIPTS = {
    "latin": re.compile(r"[A-Za-zÀ-ɏẠ-ỹ]"),
    "han": re.compile(r"[\u3400-\u9fff]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "hangul": re.compile(r"[\uac00-\ud7af\u1100-\u11ff]"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "greek": re.compile(r"[\u0370-\u03ff]"),
    "arabic": re.compile(r"[\u0600-\u06ff]"),
    "hebrew": re.compile(r"[\u0590-\u05ff]"),
    "devanagari": re.compile(r"[\u0900-\u097f]"),
    "thai": re.compile(r"[\u0e00-\u0e7f]"),
}
_LANGUAGE_OF_SCRIPT = {
    "hangul": "ko", "greek": "el", "hebrew": "he", "devanagari": "hi", "thai": "th",
}  # fmt: skip
# A character of a script without spaces says about as much as two letters of the others.
_DENSE = ("han", "kana", "hangul")
_LEAST_LETTERS = 40
_LEAST_WORDS = 12
_LEAST_SHARE = 0.15
_MARGIN = 1.5
# How a language is called in the others, in part: enough to see that an instruction asks for it.
_NAMES = {
    "en": "english|englisch|anglais|inglés|inglese|inglês|engels|engelska|angielsk"
    "|английск|英语|英文|英語|영어",
    "de": "german|deutsch|allemand|alemán|tedesco|alemão|duits|niemieck|немецк|德语|德文"
    "|ドイツ語|독일어",
    "fr": "french|französisch|français|francés|francese|francês|frans|francusk|французск"
    "|法语|法文|フランス語|프랑스어",
    "es": "spanish|spanisch|espagnol|español|castellano|spagnolo|espanhol|spaans|испанск"
    "|西班牙|スペイン語|스페인어",
    "it": "italian|italien|italiano|итальянск|意大利|イタリア語|이탈리아어",
    "pt": "portugu|portugies|portugais|portoghese|португальск|葡萄牙|ポルトガル語"
    "|포르투갈어|brazil",
    "nl": "dutch|niederländ|holländ|néerlandais|neerland|holand|olandese|nederlands"
    "|голландск|荷兰|オランダ語",
    "sv": "swedish|schwedisch|suédois|sueco|svedese|svenska|шведск|瑞典|スウェーデン語",
    "pl": "polish|polnisch|polonais|polaco|polacco|polsk|польск|波兰|ポーランド語",
    "tr": "turkish|türkisch|turc|turco|türkçe|турецк|土耳其|トルコ語",
    "cs": "czech|tschechisch|tchèque|checo|ceco|česk|чешск|捷克|チェコ語",
    "id": "indonesia|bahasa|印尼|インドネシア語",
    "vi": "vietnam|tiếng việt|越南|ベトナム語",
    "ru": "russia|russisch|russe|ruso|russo|русск|俄语|俄文|ロシア語|러시아어",
    "uk": "ukrain|україн|украинск|乌克兰",
    "zh": "chinese|mandarin|cantonese|chinesisch|chinois|chino|cinese|chinês|китайск|中文"
    "|汉语|漢語|中国語|중국어",
    "ja": "japan|giappon|日本|日语|японск|일본어|kanji|hiragana|haiku",
    "ko": "korea|coré|coreano|koreanisch|한국|韩语|韓国語|корейск|hangul",
    "da": "danish|dänisch|danois|danés|danese|dansk|norweg|norsk|norvég|norueg|датск|норвеж"
    "|丹麦|挪威",
    "ro": "romanian|rumän|roumain|rumano|rumeno|român|румынск|罗马尼亚",
    "hu": "hungar|ungarisch|hongrois|húngar|ungherese|magyar|венгерск|匈牙利",
    "fi": "finnish|finnisch|finnois|finlandés|finlandese|suom|финск|芬兰",
    "el": "greek|griechisch|grec|griego|greco|grego|ελλην",
    "he": "hebrew|hebräisch|hébreu|hebreo|ebraico|עברית",
    "hi": "hindi|sanskrit|devanagari|हिन्दी|हिंदी",
    "th": "thai|ไทย",
    "ar": "arab|عرب",
    "fa": "persian|farsi|persisch|persan|فارسی",
}  # fmt: skip
_TRANSLATES = re.compile(
    r"translat|übersetz|tradui|traduc|traduz|tradurre|traduzione|vertaal|översätt|tłumacz"
    r"|перев[еo]д"
    r"|翻译|翻譯|翻訳|訳して|번역|bilingual|zweisprachig|language learn|foreign language"
    r"|vocabulary",
    re.IGNORECASE,
)
_NOT_PROSE = re.compile(
    r"`[^`\n]*`|https?://\S+|\S*@\S+|\b[\w-]+(?:\.[a-z]\w+)+\b|^\s*>.*$|^\s*\|.*$", re.M
)
# Letters that a Latin text has no use for, unless they are its subject; Greek is mathematics.
_FOREIGN = {
    "han": ("zh", "ja"), "kana": ("ja",), "hangul": ("ko",), "cyrillic": ("ru", "uk"),
    "arabic": ("ar", "fa"), "hebrew": ("he",), "devanagari": ("hi",), "thai": ("th",),
}  # fmt: skip
_IN_BRACKETS = re.compile(r"[(\[（「『\"“«][^()\n]{0,80}?[)\]）」』\"”»]")
_ABOUT_WORDS = re.compile(
    r"\b(?:alphabet|script|letters?|words?|language|unicode|etymolog|character|name[sd]?|spell)",
    re.IGNORECASE,
)
_LEAST_STRAYS = 2
LANGUAGES = (*_COMMON, "ru", "uk", "zh", "ja", "ar", "fa", *_LANGUAGE_OF_SCRIPT.values())


def language(candidate: Candidate, wanted: Sequence[str]) -> Verdict:
    """The response speaks the instruction's language, and both one of wanted where it is given.

    An instruction that asks for another language, names it or holds a sentence in it, may have it.
    """
    asked, answered = (language_of(part) for part in candidate.parts)
    for name, found in (("instruction", asked), ("response", answered)):
        if wanted and found and found not in wanted:
            return Verdict(False, f"{name} in another language: {found}")
    if asked and answered and asked != answered and not _asks_for(answered, candidate.parts[0]):
        return Verdict(False, f"instruction and response differ in language: {asked}, {answered}")
    if strays := _strays(*candidate.parts):
        return Verdict(False, f"stray letters of another script: {', '.join(strays)}")
    return Verdict(True)


def _strays(instruction: str, response: str) -> list[str]:
    """Runs of letters of another script in Latin prose, where nobody asked for them.

    Some teachers slip into the language that they know best for a word or two.
    """
    if _TRANSLATES.search(instruction) or _ABOUT_WORDS.search(instruction):
        return []
    prose = _IN_BRACKETS.sub(" ", _NOT_PROSE.sub(" ", outside_fences(response)))
    if 2 * len(_SCRIPTS["latin"].findall(prose)) < len(re.findall(r"[^\W\d_]", prose)):
        return []
    found: list[str] = []
    for script, languages in _FOREIGN.items():
        letters = _SCRIPTS[script]
        is_asked = any(re.search(_NAMES[name], instruction, re.IGNORECASE) for name in languages)
        if not is_asked and not letters.search(instruction):
            found += re.findall(f"{letters.pattern}+", prose)
    return found if len(found) >= _LEAST_STRAYS else []


def _asks_for(wanted: str, instruction: str) -> bool:
    if _TRANSLATES.search(instruction) or re.search(_NAMES[wanted], instruction, re.IGNORECASE):
        return True
    parts = re.split(r"\n+|(?<=[.!?:。！？])\s+|[\"“”«»„]", instruction)
    return any(language_of(part, _LEAST_WORDS // 2) == wanted for part in parts)


def language_of(text: str, least_words: int = _LEAST_WORDS) -> str | None:
    """Two-letter code of the language of a text's prose, or None where it is not plain."""
    prose = _NOT_PROSE.sub(" ", outside_fences(text))
    letters = Counter({name: len(pattern.findall(prose)) for name, pattern in _SCRIPTS.items()})
    for script in _DENSE:
        letters[script] *= 2
    total, (script, most) = sum(letters.values()), letters.most_common(1)[0]
    if script == "han" and letters["kana"] * 5 > letters["han"]:
        script, most = "kana", most + letters["kana"]
    elif script == "kana":
        most += letters["han"]
    if total < _LEAST_LETTERS * least_words / _LEAST_WORDS or most < 0.6 * total:
        return None
    if script == "latin":
        return _latin(prose, least_words)
    if script == "cyrillic":
        return _cyrillic(prose)
    if script == "arabic":
        return "fa" if len(re.findall("[پچژگ]", prose)) * 50 > most else "ar"
    return {"han": "zh", "kana": "ja", **_LANGUAGE_OF_SCRIPT}[script]


def _latin(prose: str, least_words: int) -> str | None:
    found = re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", prose.casefold())
    if len(found) < least_words:
        return None
    counts = Counter(found)
    hits = Counter(
        {name: sum(counts[word] for word in common) for name, common in _PROFILES.items()}
    )
    (best, most), (_, second) = hits.most_common(2)
    is_plain = most >= _LEAST_SHARE * len(found) and most >= _MARGIN * second and most >= 3
    return best if is_plain else None


def _cyrillic(prose: str) -> str | None:
    ukrainian = len(re.findall("[іїєґ]", prose.casefold()))
    russian = len(re.findall("[ыэъё]", prose.casefold()))
    if ukrainian == russian:
        return None
    return "uk" if ukrainian > russian else "ru"
