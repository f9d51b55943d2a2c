"""Gates refusal and self_talk: a response that declines, or that speaks about itself."""

import re

from localism.curation.candidate import Candidate, Verdict, words
from localism.parsing.fences import outside_fences
from localism.tables import number_of

_SORRY = (
    r"(?:(?:i(?:'|’)m|i am|we(?:'|’)re|we are)\s+(?:very |really |so |truly )?(?:sorry|afraid)"
    r"|sorry|my apologies|apologies|i apologi[sz]e|unfortunately|regrettably)"
    r"(?:\s+for [^.,]{1,40})?[\s,.;:!-]*(?:but\s+|that\s+)?"
)
_AS_AI = (
    r"as (?:an?|your) (?:\w+ )?(?:ai|artificial intelligence|assistant|(?:large )?language model)"
    r"[^,.]{0,60},?\s*"
)
# Politeness before the refusal.
_POLITE = (
    r"(?:(?:h+m+|well|oh|ah|hi|hello|sure|okay)\b[,.!… ]+"
    r"|(?:thanks|thank you)\b[^.!\n]{0,80}[.!]\s*"
    r"|i (?:understand|appreciate|see|hear|know|realize|realise)\b[^.!?\n]{0,120}?[,.;]\s*"
    r"(?:but|however),?\s+)"
)
# What an assistant declines to do; a person who can't come to a wedding says so otherwise.
_HELP = (
    r"(?:(?:to )?(?:help(?! but\b| \w+ing\b)|assist|aid|comply|fulfil+|answer|respond"
    r"|engag|participat|support|do that|continu|provid|generat|creat|writ|produc|discuss|process"
    r"|complet|perform|accommodat|proceed|facilitat)(?:e|ing)?\b"
    # 'I can't recommend it enough', 'I can't give you one number': only of advice as such.
    r"|(?:to )?(?:giv|offer|shar|advis|recommend)(?:e|ing)?\b(?: you)?"
    r"(?: (?:on )?(?:that|this|such|any|medical|legal|financial|advice|information|instructions"
    r"|guidance|details)\b| ?[.!])"
    r"|(?:to )?(?:access|brows)(?:e|ing)?\b"
    r"|(?:to )?(?:view|see|open|process)(?:ing)? (?:images?|pictures?|photos?|links?|files?)\b)"
)
# One a language; each is tried at the very start of the response.
_REFUSALS = (
    rf"(?:{_POLITE})?(?:{_SORRY})?(?:{_AS_AI})?(?:{_SORRY})?(?:but\s+)?"
    r"(?:i\s+(?:can(?:'|’)?t|cannot|can not"
    r"|could not|couldn(?:'|’)t|won(?:'|’)t(?: be able)?|will not(?: be able)?|must decline"
    r"|have to decline|(?:do not|don(?:'|’)t) feel comfortable|would rather not|prefer not"
    r"|(?:do not|don(?:'|’)t) have (?:enough|sufficient|the) (?:information|context|details|data))"
    r"|i(?:'|’)d rather not|it(?: is|'s|’s| would be) (?:not appropriate|inappropriate|unethical"
    r"|not ethical|irresponsible) (?:for me )?"
    rf"|i(?: a|'|’)m (?:unable|not able|not comfortable))\s*(?:to\s+)?{_HELP}",
    rf"{_SORRY}(?:this|that|your) (?:request|question|topic|task) (?:is|goes|violates"
    rf"|falls|cannot)",
    rf"(?:{_SORRY})?(?:this|that|your) (?:(?:request|question|topic|task|prompt|content) )?"
    r"(?:violates|goes against|falls outside) (?:my|our|the) ",
    rf"(?:{_SORRY})?i (?:do not|don(?:'|’)t) have access to\b[^.\n]{{0,60}}\b(?:so|and) i (?:cannot"
    r"|can(?:'|’)t)",
    rf"(?:{_SORRY})?i(?: a|'|’)m not going to (?:be able to )?{_HELP}",
    rf"(?:{_SORRY})?(?:that|this)(?: is|'s|’s) (?:not something|something) (?:that )?i (?:can|could"
    rf"|am able to|can(?:'|’)t|cannot|won(?:'|’)t) (?:do|{_HELP})",
    rf"{_SORRY}my (?:knowledge|training)\b",
    rf"(?:{_SORRY})?i(?: a|'|’)m (?:not (?:allowed|permitted)|programmed|designed|trained) to\b",
    rf"(?:{_SORRY})?(?:{_AS_AI})?i must (?:respectfully )?(?:decline|refuse)",
    rf"(?:{_SORRY})no, i (?:can|wo)n(?:'|’)t",
    r"(?:(?:dabei|damit|hierbei|hiermit) kann ich|ich kann)\b[^.]{0,40}\bnicht\b[^.]{0,20}"
    r"(?:helfen|unterstützen|beantworten|weiterhelfen|erfüllen)",
    r"je ne (?:peux|saurais)[^.]{0,20}\bpas\b[^.]{0,30}(?:aider|répondre|assister|satisfaire)",
    r"no puedo [^.]{0,20}(?:ayudar|asistir|responder|proporcionar|cumplir)",
    r"non posso [^.]{0,20}(?:aiutar|assister|rispondere|soddisfare)",
    r"não posso [^.]{0,20}(?:ajudar|responder|atender|fornecer)",
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

# Whoever asks for a text that declines is given one.
_ASKS_TO_DECLINE = re.compile(
    r"\b(?:declin|refus|turn(?:s|ing)? down|say(?:s|ing)? no\b|reject|cancel|can(?:'|’)t|cannot"
    r"|absag|ablehn|rechaz|rifiut|recus|annul)",
    re.IGNORECASE,
)
_ASKS_FOR_TEXT = re.compile(
    r"\b(?:writ|draft|compos|repl|text|note|message|letter|e-?mail|play|act as|word|phrase|script"
    r"|schreib|antwort|escrib|rédig|écri|scriv)",
    re.IGNORECASE,
)

# Queries and prompts are improved in databases, too, and every sum has a final answer.
_AN_EXAMPLE = r"(?:response|answer|example|instruction)"
_REWORKED = r"(?:refined|revised|improved|updated|rewritten)"
_MADE = (
    r"(?:kept|made|shortened|rewrote|expanded|revised|adjusted|tried to|ensured|structured|aimed)"
)
_SHOWN = (
    r"(?:us(?:e|es|ing|ed)|demonstrat\w+|incorporat\w+|combin\w+|appl(?:y|ies|ied|ying)|exhibit\w*"
    r"|show(?:s|n|ing|cas\w+)?|integrat\w+|blend\w*|with)"
)
# Never said to the person who asked.
_SELF_TALK = re.compile(
    r"\bas an? (?:\w+ )?(?:ai|artificial intelligence|ai language model|large language model)\b"
    r"(?: (?:language )?(?:model|assistant))?,? i\b"
    r"|\bas (?:a|an ai|a large) language model\b"
    r"|\bmy (?:knowledge|training) (?:cut-?off|data)\b"
    r"|\bi hope (?:this|the|my|that the) (?:response|answer|example) (?:meets|satisf|fulfil|shows"
    r"|demonstrates|captures|aligns)"
    r"|\b(?:in|while|when) (?:crafting|writing|creating|preparing|composing|developing) (?:this|the"
    r"|my) (?:response|answer|example|instruction)\b"
    r"|\bthis response (?:aims|is (?:designed|intended|meant)|meets|fulfil)"
    r"|\bi(?:(?:'|’)ve| have) \w+ [^.\n]{3,80}\bin (?:this|the above|my) (?:response|answer)\b"
    rf"|\bi(?:(?:'|’)ve| have)? {_MADE}\b[^.\n]{{0,40}}\b(?:the|this|my) (?:response|answer)\b"
    r"|\b(?:this|the above|my|the (?:refined|revised|improved)) response (?:also |now |now also )?"
    r"(?:demonstrates|incorporates|integrates|showcases|combines|exhibits|addresses"
    r"|applies|blends|uses)\b"
    r"|\b(?:i|we)(?:(?:'|’)ve| have)? (?:incorporated|integrated|combined|applied"
    r"|demonstrated|used|woven"
    r"|included|blended|shown) (?:both|all|the|these|all of the|all the|the two|the three"
    r"|the required"
    r"|the given|the requested|the specified) (?:\w+ )?skills\b"
    rf"|\b{_SHOWN} (?:both |all )?(?:of )?the"
    r" (?:required|requested|given|specified|listed) skills\b"
    r"|\bboth of the skills\b|\bthe instruction and (?:the )?response\b"
    rf"|\b(?:this|the) (?:refined|improved) {_AN_EXAMPLE}\b"
    r"|\b(?:the|this) query type\b|\bthe critique\b[^.\n]{0,40}\b(?:above|points|suggest|mention)",
    re.IGNORECASE | re.MULTILINE,
)
# Right where somebody's answer is looked at, and where skills are the subject.
_ANSWER_TALK = re.compile(
    r"\b(?:this|the above|my) answer (?:also |now |now also )?"
    r"(?:demonstrates|incorporates|integrates|showcases|combines|exhibits|addresses|applies|blends"
    r"|uses)\b",
    re.IGNORECASE,
)
_SKILL_LIST = re.compile(
    r"^\W{0,4}skills? (?:demonstrated|used|shown|exhibited|applied|covered|integrated)\b"
    rf"|\b{_SHOWN} both skills\b",
    re.IGNORECASE | re.MULTILINE,
)
_ASKS_ABOUT_SKILLS = re.compile(r"\bskill|\bcv\b|\br[ée]sum[ée]\b|\bjob\b", re.IGNORECASE)
_ASKS_ABOUT_ANSWERS = re.compile(r"\b(?:answer|respon|repl|feedback|interview|exam)", re.IGNORECASE)
# Right in an answer that hands back somebody's text, wrong in any other.
_REVISION = re.compile(
    rf"\bin (?:this|the|my) (?:final|{_REWORKED}) (?:version|draft|{_AN_EXAMPLE})\b(?! of\b)"
    rf"|\bhere(?:'|’)?s?(?: is)? (?:the|a|my|an) (?:final|{_REWORKED})"
    r" (?:version|response|instruction)\b"
    rf"|\bhere(?:'|’)?s?(?: is)? (?:the|a|my|an) {_REWORKED} {_AN_EXAMPLE}\b"
    rf"|\b(?:this|the) {_REWORKED} {_AN_EXAMPLE}\b"
    r"|^\W{0,4}(?:key )?(?:changes|improvements|revisions|modifications) (?:i )?made\W*$",
    re.IGNORECASE | re.MULTILINE,
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
    A quoted refusal does not open with one, and one that was asked for is an answer.
    """
    response = candidate.parts[1]
    instruction = candidate.parts[0]
    is_asked_for = _ASKS_TO_DECLINE.search(instruction) and _ASKS_FOR_TEXT.search(instruction)
    if is_asked_for or not _REFUSAL.match(response):
        return Verdict(True)
    length = len(words(response))
    if length <= most_words:
        return Verdict(False, f"declines to answer: in {number_of(length, 'word')}", length)
    return Verdict(True, value=length)


def self_talk(candidate: Candidate) -> Verdict:
    """Neither part speaks of itself as an exercise, of its own writing, or as a language model.

    What stands in quotes or code is somebody's words; a request that is about models, answers or
    skills, or that asks for a text to be revised, may be answered in these words.
    """
    instruction, response = (_QUOTED.sub(" ", outside_fences(part)) for part in candidate.parts)
    for talk, subject, parts in (
        (_SELF_TALK, _ASKS_ABOUT_MODELS, (instruction, response)),
        (_ANSWER_TALK, _ASKS_ABOUT_ANSWERS, (response,)),
        (_SKILL_LIST, _ASKS_ABOUT_SKILLS, (response,)),
        (_REVISION, _ASKS_FOR_REVISION, (response,)),
    ):
        found = next(filter(None, map(talk.search, parts)), None)
        if found and not subject.search(instruction):
            return Verdict(False, f"speaks about itself: {_one_line(found[0])}")
    return Verdict(True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
