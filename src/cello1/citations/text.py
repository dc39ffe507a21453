"""Read a reasoning text: which piece speaks of which cell, which words are genes, what is denied.

The rules are simple ones, one regular expression each; how often they err stands in
docs/annotate.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

from cello1.citations.aliases import Aliases

TOKEN = re.compile(r"[A-Za-z0-9][\w.\-]*[A-Za-z0-9]")

# `Cell 3`, `cells 2 and 8`, `cell 6 and cell 5`.
_CELLS = re.compile(
    r"\bcells?\s+(\d+(?:,\s*\d+|\s*(?:&|and|or)\s*(?:cells?\s+)?\d+)*)", re.IGNORECASE
)
_LABEL = re.compile(r"^\W*C(\d+)\b(?=\s*(?::|=|->|is\b|could\b|must\b|has\b|shows\b|expresses\b))")
_BEFORE = re.compile(r"[^,;:()]*\b(?:of|in|for|by)\s+$")
_SENTENCE = re.compile(r"(?<=[.;!?])\s+")
_CLAUSE = re.compile(
    r"[;:()]|[.!?](?=\s|$)|\b(?:but|while|whereas|yet|however|though|because|since|given|plus)\b"
    r"|,\s*(?=(?:and|so|thus|hence|which|as|typical|with)\b)"
    r"|\band\s+(?=(?:presence|has|have|shows?|expresses|lacks?|with|without|is)\b)"
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
# Symbols that are English words, or are used as labels of cells: read only beside other genes.
_WORDS = re.compile(
    "(?:ACE|ARC|BAD|BID|CAMP|CAST|CAT|CLOCK|COIL|FAST|FAT|GAS|GEM|IMPACT|INS|KIT|LARGE|MAX|MET"
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


def parts(reasoning: str, n: int) -> Iterator[tuple[str, list[int]]]:
    """Yield pieces of the text and the cells they speak of.

    A piece reaches from one mention of a cell to the next; what comes before the first, or is tied
    to one by `of` or `in`, belongs to it. A sentence without a mention speaks of the cell before.
    """
    for line in reasoning.split("\n"):
        current: list[int] = []
        for sentence in _SENTENCE.split(line):
            marks = list(_CELLS.finditer(sentence)) or list(_LABEL.finditer(sentence))
            start, pieces = 0, []
            for mark in marks:
                tied = _BEFORE.search(sentence[start : mark.start()])
                cut = start + tied.start() if tied else mark.start()
                pieces.append((sentence[start:cut], current))
                current = [int(number) for number in re.findall(r"\d+", mark.group())]
                pieces.append((sentence[cut : mark.start()], current))
                start = mark.end()
            if marks and len(pieces) > 1:  # what stands before the first mention is about it
                first = [int(number) for number in re.findall(r"\d+", marks[0].group())]
                pieces[0] = (pieces[0][0], first)
            pieces.append((sentence[start:], current))
            for text, cells in pieces:
                valid = [cell for cell in cells if 1 <= cell <= n]
                if valid and text.strip():
                    yield text, valid


def passage(reasoning: str, cell: int) -> str:
    """Return the sentences of a text that speak of one cell (counted from 1), as they stand.

    A sentence that names several cells counts for the one it names first; a sentence that names
    none goes with the one before.
    """
    kept = []
    for line in reasoning.split("\n"):
        current = 0
        for sentence in _SENTENCE.split(line):
            mark = _CELLS.search(sentence) or _LABEL.search(sentence)
            # "Its rival is taken by cell 3, which fits better" still speaks of the cell before.
            if mark and (not current or mark.start() == 0):
                current = int(re.findall(r"\d+", mark.group())[0])
            if current == cell:
                kept.append(sentence.strip())
    return " ".join(kept)


def genes_in(text: str, vocabulary: Set[str], aliases: Aliases) -> Iterator[tuple[str, str, bool]]:
    """Yield (symbol, as spelled, whether it is denied) for the genes of a piece of text."""
    text = _JOINT.sub(lambda match: _expand(match, vocabulary), text)
    for clause in _CLAUSE.split(text):
        genes: list[tuple[str, str, bool]] = []
        marked = _mark(clause, vocabulary, aliases, genes)
        no = _NO.search(marked)
        gone = {
            int(i) for run in _GONE.finditer(marked) for i in re.findall(r"\x00(\d+)\x00", run[0])
        }
        for i, (gene, spelled, negative) in enumerate(genes):
            after = no is not None and no.start() < marked.index(f"\x00{i}\x00")
            yield gene, spelled, negative or after or i in gone


def _mark(
    clause: str, vocabulary: Set[str], aliases: Aliases, genes: list[tuple[str, str, bool]]
) -> str:
    """Put a placeholder for every gene of a clause and append it to `genes`."""

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
            marked += put(gene, before, sign is not None and sign["sign"] in ("negative", "neg"))
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
    """Say whether a list has a gene, or any gene of a family such as ``IGH*``."""
    return has_prefix(gene[:-1], genes) if gene.endswith("*") else gene in genes


def has_prefix(stem: str, genes: Set[str]) -> bool:
    """Say whether any gene begins so."""
    return any(gene.startswith(stem) for gene in genes)
