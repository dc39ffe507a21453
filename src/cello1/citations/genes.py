"""Which words of a text are genes, which are said to be absent, and which only expected.

"Look for MS4A1", "B cells typically express MS4A1" say what a type would show, "lacks MS4A1" that
the cell does not show it. Each rule is one regular expression; how often they err is in
docs/annotate.md and docs/behaviour.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import NamedTuple

from cello1.citations.aliases import Aliases

TOKEN = re.compile(r"[A-Za-z0-9][\w.\-]*[A-Za-z0-9]")

_CLAUSE = re.compile(
    r"([;:()]|[.!?](?=\s|$)|\b(?:but|while|whereas|yet|however|though|because|since|given|plus)\b"
    r"|,\s*(?=(?:and|so|thus|hence|which|as|typical|with)\b)"
    r"|\band\s+(?=(?:presence|has|have|shows?|expresses|lacks?|with|without|is)\b))"
)
# Types that carry the name of a protein: `CD4+ T cells`, `CD16+ monocyte`, `CD56dim NK`.
TYPE = re.compile(
    r"\bCD\d+[A-Za-z]?(?:\+|-positive|-negative|bright|dim)?(?:[\s,]+(?:CD\d+[+-]?|alpha-beta|naive"
    r"|memory|effector|cytotoxic|central|classical|non-classical|regulatory))*[\s,]+"
    r"(?:T|B|NK|ILC|cDC|DC|monocyte|macrophage|progenitor|dendritic|thymocyte|lymphocyte)s?\b"
)
_JOINT = re.compile(r"\b([A-Z][A-Z0-9-]*?)([A-Z]|\d{1,2})((?:/(?:[A-Z]|\d{1,2}))+)\b(?![A-Za-z])")
_FAMILY = re.compile(r"\b([A-Z][A-Z0-9]*(?:-[A-Z0-9]*)?)(?:\*|\s+(?:genes|family|transcripts)\b)")
_SUFFIX = re.compile(r"[-+]?(?P<sign>negative|positive|neg|pos|high|low|hi|lo)$")
_NO = re.compile(
    r"\b(?:no|not(?!\s+only)|n't|cannot|lacks?|lacking|without|absence|neither|nor|never|misses"
    r"|missing|negative\s+for|rather\s+than|instead\s+of|none\s+of|devoid|loses)\b|n't\b",
    re.IGNORECASE,
)
_GONE = re.compile(
    r"(?:\x00\d+\x00(?:[\s,/&]|and\b|or\b|genes?\b|transcripts?\b|expression\b|both\b)*)+"
    r"(?:(?:(?:is|are|was|were|does|do)\s+)(?:all\s+|both\s+)*not\b(?!\s+only)"
    r"|(?:is|are|was|were|remains?)?\s*(?:all\s+|low\s+or\s+|both\s+|either\s+)*"
    r"(?:absent|missing|nowhere|lacking|undetected|lost)(?!\s+\x00))"
)
# Symbols that are English words, or labels of cells: read only beside other genes.
_WORDS = re.compile(
    "(?:ACE|ARC|BAD|BID|CAMP|CAST|CAT|CLOCK|COIL|FAST|FAT|GAS|GEM|IMPACT|KIT|LARGE|MAX|MET"
    "|MICE|NOV|PIGS|REST|RING|SET|SHE|SON|SPA|STAR|TANK|TEST|TRAP|WAS|WARS|WEE)$"
)
_LABELLIKE = re.compile(r"C\d{1,2}$")
_CUE_BEFORE = re.compile(
    r"(?:\bexpress(?:es|ing)?|\bgenes?|\bcomplement|\bmarkers?|\bcites|\x00\d+\x00\s*(?:,|/|&|and|or)"
    r"|\x00\d+\x00\s*,\s*and)\s*$"
)
_CUE_AFTER = re.compile(
    r"^\s*(?:\+|genes?\b|expression\b|transcripts?\b|(?:,|/|&|and\b|or\b)\s*[A-Z][A-Z0-9-]{2,}\b)"
)


# Stands for a type named in a text while genes are read.
TYPE_NAMED = "\x01"
_PLURAL_VERB = (
    r"(?:(?:also|mainly|mostly|typically|usually|generally|often|all)\s+)?(?:express|secrete|have|show|"
    r"carry|contain|display|lack|make|produce|rarely|do\s+not|don't|will|would|should)\b"
)
_CUE = re.compile(
    r"(?P<expected>\b(?:look|looking|search|searching|check|checking|screen)\s+for\b"
    r"|\b(?:would|should|will|must)\s+(?:\w+\s+){0,2}?(?:be|have|show|express|carry|contain|include|see|"
    r"need|display|appear|expect)\w*"
    r"|\bexpect(?:s|ing)?\b|(?<!the )(?<!of )\bexpected\b(?! (?:of|for|in) )"
    r"|\b(?:typically|usually|often|commonly|generally|normally|classically|frequently)\b"
    r"(?:\s+(?:\w+\s+){0,2}?(?:express|mark|show|see|have|has|contain|display|characteri[sz]|recogni[sz]|"
    r"defin|identif|includ|found|secret|lack)\w*)?(?!\s*(?:of|in|by|associated|linked|seen)\b)"
    r"|\bmarkers?\s+(?:include|are|would\s+be)\b"
    r"|\x01\s*" + _PLURAL_VERB + r"|\b(?!(?:both|these|those|two|three|four|the|all|such|other|"
    r"remaining)\s)[\w+/-]+[ -](?:cells|monocytes|macrophages|fibroblasts|lymphocytes|neurons|"
    r"granulocytes)"
    r"\s+" + _PLURAL_VERB + r")"
    r"|(?P<passive>\b(?:characteri[sz]ed|defined|marked|recogni[sz]ed|identified|distinguished)"
    r"\s+by\b)"
    r"|(?P<shown>\b(?:shows|showing|contains|has|expresses|lists|carries|displays|includes|features|"
    r"(?:we|i)\s+(?:do\s+)?(?:find|see|note|observe)|here)\b)",
    re.IGNORECASE,
)
_AFTER_CELL = re.compile(r"^\s*(?:is|was|'s|being|are)?\s*(?:\w+ly\s+|also\s+|best\s+)*$")
_WANTED = re.compile(
    r"(?:\x00\d+\x00(?:[\s,/&]|and\b|or\b|genes?\b|expression\b|both\b)*)+"
    r"(?:(?:would|should)\s+(?:also\s+)?be\b|(?:is|are)\s+(?:needed|required|expected)\b)"
)
_FOUND = re.compile(
    r"\b(?:and|which|as)\s+(?:it|they|both|all|these)?\s*(?:is|are|does|do)\s+(?:indeed\s+|all\s+|both\s+)*"
    r"(?:there|present|listed|seen|found|so)\b|\b(?:all|both|most) of which\s*$",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(
    r"\b(?:yet|but|though|which)\s+(?:it|they|both|all|these|none)?\s*(?:(?:is|are|does|do|was)\s*)?"
    r"(?:not\b|n't|nowhere|missing|absent|of\s+them\s+(?:is|are))",
    re.IGNORECASE,
)
_EXAMPLES = re.compile(r"\s*(?:e\.?\s?g\b|such as\b|i\.?\s?e\b|including\b|notably\b|like\b)", re.I)
_KIND_OF_GENES = re.compile(
    r"\b(?:markers?|genes?|signatures?|transcripts?|chains?|expression|program\w*|features?|machinery|"
    r"receptors?|hormones?|collagens?|proteins?)\s*$",
    re.IGNORECASE,
)
_STATES = re.compile(r"\b(?:is|are|has|high|instead|present|but|there)\b", re.IGNORECASE)


class Named(NamedTuple):
    """A gene in a text.

    Attributes
    ----------
    gene
        Its symbol, or a family such as ``IGH*``.
    spelled
        As spelled in the text.
    denied
        Said to be absent.
    expected
        Said of a type, or looked for, but not said of a cell.
    """

    gene: str
    spelled: str
    denied: bool
    expected: bool


def genes_in(
    text: str, vocabulary: Set[str], aliases: Aliases, *, of_cell: bool = True
) -> Iterator[Named]:
    """Yield the genes of a piece of text.

    Parameters
    ----------
    text
        Text in which every type is replaced by :data:`TYPE_NAMED`.
    vocabulary, aliases
        What counts as a gene, and other names.
    of_cell
        Whether the text begins right after a cell was named: "(Cell 3) is marked by MS4A1" says
        what the cell shows.
    """
    text = _JOINT.sub(lambda match: _expand(match, vocabulary), text)
    expecting = denying = opened = False
    before = ""
    parts = _CLAUSE.split(text)
    for i, part in enumerate(parts):
        if i % 2:
            if part not in "():":
                expecting = False
            denying = part == "(" and denying
            opened = part == "("
            continue
        genes: list[tuple[str, str, bool]] = []
        marked = _mark(part, vocabulary, aliases, genes)
        inherits = (
            denying
            and opened
            and not _STATES.search(part)
            and bool(_EXAMPLES.match(part) or _KIND_OF_GENES.search(before))
        )
        no = _NO.search(marked)
        gone = _numbers(_GONE, marked)
        wanted = _numbers(_WANTED, marked)
        cues = [c for c in _CUE.finditer(marked) if not (of_cell and not i and _shown(c, marked))]
        for k, (gene, spelled, negative) in enumerate(genes):
            at = marked.index(f"\x00{k}\x00")
            last = next((c for c in reversed(cues) if c.end() <= at), None)
            expected = (last["shown"] is None if last else expecting) or k in wanted
            denied = negative or k in gone or inherits or (no is not None and no.start() < at)
            if expected:
                rest = marked[at:] + "".join(parts[i + 1 :])
                if _FOUND.search(rest):
                    expected = False
                elif _NOT_FOUND.search(rest):
                    expected, denied = False, True
            yield Named(gene, spelled, denied, expected)
        if cues:
            expecting = cues[-1]["shown"] is None
        denying = no is not None and "\x00" not in marked[no.start() :]
        before = part
        opened = False


def _shown(cue: re.Match[str], text: str) -> bool:
    """Return whether a passive cue has the cell itself as its subject."""
    return cue["passive"] is not None and bool(_AFTER_CELL.match(text[: cue.start()]))


def _numbers(pattern: re.Pattern[str], marked: str) -> set[int]:
    """Return the genes within the matches of a pattern."""
    return {
        int(i) for run in pattern.finditer(marked) for i in re.findall(r"\x00(\d+)\x00", run[0])
    }


def _mark(
    clause: str, vocabulary: Set[str], aliases: Aliases, genes: list[tuple[str, str, bool]]
) -> str:
    """Replace every gene of a clause by a placeholder and append it to `genes`."""

    def put(gene: str, spelled: str, negative: bool = False) -> str:
        genes.append((gene, spelled, negative))
        return f"\x00{len(genes) - 1}\x00"

    def family(match: re.Match[str]) -> str:
        stem = match[1]
        if len(stem) < 2 or stem in vocabulary or not has_prefix(stem, vocabulary):
            return match[0]
        return put(f"{stem}*", match[0])

    clause = _FAMILY.sub(family, clause)
    marked, at = "", 0
    for match in TOKEN.finditer(clause):
        if clause[: match.start()].count("\x00") % 2:  # the number of a placeholder
            continue
        marked, before = marked + clause[at : match.start()], match[0]
        at = match.end()
        sign = _SUFFIX.search(before)
        word = before[: sign.start()] if sign and sign.start() > 1 else before
        gene = _resolve(word, vocabulary, aliases)
        if gene is None and word != before:
            word, sign, gene = before, None, _resolve(before, vocabulary, aliases)
        doubtful = _WORDS.match(word) or _LABELLIKE.match(word)
        if gene is None or (
            doubtful and not (_CUE_BEFORE.search(marked) or _CUE_AFTER.search(clause[at:]))
        ):
            marked += before
        else:
            minus = re.match(r"-(?=[\s,;:.)/]|$)", clause[at:])
            absent = sign is not None and sign["sign"] in ("negative", "neg")
            marked += put(gene, before, absent or minus is not None)
    return marked + clause[at:]


def _resolve(word: str, vocabulary: Set[str], aliases: Aliases) -> str | None:
    """Return the symbol a word stands for: itself, or the one symbol it is another name of."""
    if word in vocabulary:
        return word
    meant = [symbol for symbol in aliases.get(word, ()) if symbol in vocabulary]
    return meant[0] if len(meant) == 1 else None


def _expand(match: re.Match[str], vocabulary: Set[str]) -> str:
    """Write `CD3D/E/G` as `CD3D, CD3E, CD3G` where these are genes."""
    stem = match[1]
    genes = [stem + end for end in (match[2], *match[3].split("/")[1:])]
    return ", ".join(genes) if all(gene in vocabulary for gene in genes) else match[0]


def listed(gene: str, genes: Set[str]) -> bool:
    """Return whether a list has a gene, or any gene of a family such as ``IGH*``."""
    return has_prefix(gene[:-1], genes) if gene.endswith("*") else gene in genes


def has_prefix(stem: str, genes: Set[str]) -> bool:
    """Return whether any gene begins with a stem."""
    return any(gene.startswith(stem) for gene in genes)
