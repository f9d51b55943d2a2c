"""Gates refusal and self_talk: a response that declines, or that speaks about itself."""

import re

from localism.curation.candidate import Candidate, Verdict, words
from localism.parsing.fences import outside_fences

_SORRY = (
    r"(?:(?:i(?:'|’)m|i am|we(?:'|’)re|we are)\s+(?:very |really |so |truly )?(?:sorry|afraid)"
    r"|sorry|my apologies|apologies|i apologi[sz]e|unfortunately|regrettably)"
    r"(?:\s+for [^.,]{1,40})?[\s,.;:!-]*(?:but\s+|that\s+)?"
)
_AS_AI = r"as (?:an?|your) (?:ai|artificial intelligence|(?:large )?language model)[^,.]{0,60},?\s*"
# What an assistant declines to do; a person who can't come to a wedding says so otherwise.
_HELP = (
    r"(?:(?:to )?(?:help|assist|aid|comply|fulfil+|answer|respond|engag|participat|support|do that"
    r"|continu|provid|giv|offer|shar|generat|creat|writ|produc|discuss|advis|recommend|process"
    r"|complet|perform|accommodat|proceed|facilitat)(?:e|ing)?)\b"
)
# One a language; each is tried at the very start of the response.
_REFUSALS = (
    rf"(?:{_SORRY})?(?:{_AS_AI})?(?:{_SORRY})?(?:but\s+)?(?:i\s+(?:can(?:'|’)?t|cannot|can not"
    r"|could not|couldn(?:'|’)t|won(?:'|’)t(?: be able)?|will not(?: be able)?|must decline"
    r"|have to decline|(?:do not|don(?:'|’)t) feel comfortable)"
    rf"|i(?: a|'|’)m (?:unable|not able|not comfortable))\s*(?:to\s+)?{_HELP}",
    rf"{_SORRY}(?:this|that|your) (?:request|question|topic|task) (?:is|goes|violates"
    rf"|falls|cannot)",
    rf"(?:{_SORRY})?i must (?:respectfully )?(?:decline|refuse)|(?:{_SORRY})no, i (?:can"
    rf"|wo)n(?:'|’)t",
    r"(?:es tut mir (?:sehr )?leid|tut mir leid|leider"
    r"|entschuldigung)[\s,.;-]*(?:aber\s+)?(?:da(?:bei|mit)"
    r"\s+)?(?:ich )?(?:kann|darf|möchte|bin)(?: ich)?\b[^.]{0,60}\b(?:nicht|keine?n?)\b[^.]{0,80}"
    r"(?:helfen|unterstützen|beantworten|bereitstellen|erfüllen|weiterhelfen|geben|erstellen)",
    r"(?:je suis (?:vraiment )?désolée?|désolée?|malheureusement"
    r"|je regrette)[\s,.;-]*(?:mais\s+)?je ne"
    r"\s+(?:peux|suis|saurais)[^.]{0,30}\s*(?:pas|en mesure)?[^.]{0,60}(?:aider|répondre"
    r"|fournir|assister"
    r"|satisfaire|donner|créer)",
    r"(?:lo siento|lo lamento|disculpa|perdón|desafortunadamente"
    r"|lamentablemente)[\s,.;-]*(?:mucho[, ]+)?"
    r"(?:pero\s+)?no (?:puedo|me es posible|estoy en condiciones)[^.]{0,60}(?:ayudar"
    r"|asistir|proporcionar"
    r"|responder|cumplir|ofrecer|dar|crear)",
    r"(?:mi dispiace|sono spiacente|purtroppo)[\s,.;-]*(?:ma\s+)?non (?:posso"
    r"|sono in grado)[^.]{0,60}"
    r"(?:aiutar|assister|fornire|rispondere|soddisfare|dare|creare)",
    r"(?:desculpe|sinto muito|lamento"
    r"|infelizmente)[\s,.;-]*(?:mas\s+)?(?:eu )?não (?:posso|consigo)"
    r"[^.]{0,60}(?:ajudar|fornecer|responder|atender|oferecer|dar|criar)",
    r"(?:het spijt me|sorry|helaas)[\s,.;-]*(?:maar\s+)?(?:kan ik|ik kan)[^.]{0,60}(?:niet"
    r"|geen)[^.]{0,60}"
    r"(?:helpen|beantwoorden|geven|assisteren)|(?:het spijt me|sorry"
    r"|helaas)[\s,.;-]*(?:maar\s+)?ik kan"
    r"[^.]{0,30}(?:niet|geen)[^.]{0,30}helpen",
    r"(?:很?抱歉|对不起|對不起|非常抱歉)[，,。 ]*(?:但是?)?我?(?:无法|不能|無法|没法|沒辦法)",
    r"(?:申し訳(?:ありません|ございません)|すみません"
    r"|ごめんなさい)[^。]{0,40}(?:できません|できかねます|いたしかねます|お手伝い)",
    r"(?:извините|к сожалению|простите|мне жаль)[\s,.-]*(?:но\s+)?я не (?:могу"
    r"|в состоянии)[^.]{0,40}"
    r"(?:помочь|предоставить|ответить|выполнить|дать)",
    r"(?:죄송합니다|죄송하지만|미안하지만)[^\n]{0,60}(?:없습니다|어렵습니다)",
)
_REFUSAL = re.compile(rf"[\s*_>]*(?:{'|'.join(_REFUSALS)})", re.IGNORECASE)

_AN_EXAMPLE = r"(?:response|answer|example|instruction|query|prompt)"
_REWORKED = r"(?:refined|revised|improved|updated|rewritten|final)"
# Never said to the person who asked.
_SELF_TALK = re.compile(
    r"\bas an? (?:ai|artificial intelligence|ai language model|large language model)\b"
    r"(?: (?:language )?(?:model|assistant))?,? i\b"
    r"|\bas (?:a|an ai|a large) language model\b"
    r"|\b(?:this|the above|my|the (?:refined|revised|improved)) (?:response"
    r"|answer) (?:also |now |now also )?"
    r"(?:demonstrates|incorporates|integrates|showcases|combines|exhibits|addresses"
    r"|applies|blends|uses)\b"
    r"|\b(?:i|we)(?:(?:'|’)ve| have)? (?:incorporated|integrated|combined|applied"
    r"|demonstrated|used|woven"
    r"|included|blended|shown) (?:both|all|the|these|all of the|all the|the two|the three"
    r"|the required"
    r"|the given|the requested|the specified) (?:\w+ )?skills\b"
    r"|\bthe (?:required|requested|given|specified|listed) skills\b|\bboth of the skills\b"
    rf"|\bthe (?:instruction|query) and (?:the )?response\b"
    rf"|\b(?:this|the) (?:refined|improved) {_AN_EXAMPLE}\b"
    r"|\b(?:the|this) query type\b|\bthe critique\b[^.\n]{0,40}\b(?:above|points|suggest|mention)",
    re.IGNORECASE,
)
# Right in an answer that hands back somebody's text, wrong in any other.
_REVISION = re.compile(
    rf"\bin (?:this|the|my) {_REWORKED} (?:version|draft|{_AN_EXAMPLE})\b"
    rf"|\bhere(?:'|’)?s?(?: is)? (?:the|a|my|an) {_REWORKED} (?:version|{_AN_EXAMPLE})\b"
    rf"|\b(?:this|the) {_REWORKED} {_AN_EXAMPLE}\b",
    re.IGNORECASE,
)
_ASKS_FOR_REVISION = re.compile(
    r"\b(?:rewrit|re-writ|revis|improv|edit|shorten|rephras|reword|polish|proofread"
    r"|correct|fix|tone"
    r"|draft|version|feedback|redraft|tighten|better|critique|review|summar|update)",
    re.IGNORECASE,
)
_ASKS_ABOUT_MODELS = re.compile(
    r"\b(?:ai|a\.i\.|artificial intelligence|chat ?bots?|language models?|llms?|chatgpt|prompts?"
    r"|assistants?)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"\n]{1,400}\"|“[^”\n]{1,400}”|«[^»\n]{1,400}»|^\s*>.*$|`[^`\n]+`", re.M)


def refusal(candidate: Candidate, most_words: int) -> Verdict:
    """The response is more than a refusal; the value is its length in words when it opens as one.

    A response that opens with a refusal and goes on for more than most_words helps with something.
    A quoted refusal does not open with one.
    """
    response = candidate.parts[1]
    if not _REFUSAL.match(response):
        return Verdict(True)
    length = len(words(response))
    if length <= most_words:
        return Verdict(False, "declines to answer", float(length))
    return Verdict(True, value=float(length))


def self_talk(candidate: Candidate) -> Verdict:
    """Neither part speaks of itself as an exercise, of its own writing, or as a language model.

    What stands in quotes or code is somebody's words; a request that is about models, or that asks
    for a text to be revised, may be answered in these words.
    """
    instruction, response = (_QUOTED.sub(" ", outside_fences(part)) for part in candidate.parts)
    is_about_models = bool(_ASKS_ABOUT_MODELS.search(instruction))
    asks_for_revision = bool(_ASKS_FOR_REVISION.search(instruction))
    for part in (instruction, response):
        if not is_about_models and (found := _SELF_TALK.search(part)):
            return Verdict(False, f"speaks about itself: {_one_line(found[0])}")
    if not asks_for_revision and (found := _REVISION.search(response)):
        return Verdict(False, f"speaks about itself: {_one_line(found[0])}")
    return Verdict(True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
