"""The phrases by which a reasoning rejects a type, weighs it, or ties it to a cell."""

from __future__ import annotations

import re

# Where a line is cut, and where not.
SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=\S)")
ABBREVIATED = re.compile(r"(?:\b(?:e\.g|i\.e|vs|cf|no|approx)\.|^\s*(?:[-+]\s*)?\d{1,2}\.)$", re.I)
# "3. Mast cell", "| 3 | mast cell |": a list item that may stand for a cell.
NUMBERED = re.compile(r"^\s*(?:[-+]\s*)?(?:\|\s*(\d{1,2})\s*\||\(?(\d{1,2})\s*[.):]\s)")
# A list under such a heading is of candidates, not of cells.
OFFERED = re.compile(r"\b(?:candidates?|options?|types? (?:are|on offer)|choices)\b", re.I)

# Right before a type: it is not meant.
REJECTED = re.compile(
    r"\b(?:not|no|n't|cannot|neither|nor|never|rather than|instead of|over|than|unlike|without|"
    r"rules? out|ruled out|ruling out|exclud\w+|against|no longer|as opposed to|versus|vs\.?|"
    r"revise|withdraw|correct\w* from|isn't|aren't|doesn't|lacks?|next comes|runner-up(?: is)?|"
    r"second (?:best|choice)(?: is)?|followed by|rival)"
    r"(?:\s+(?:a|an|the|any|of|be|is|it|been|look|looks|like|really|actually|in|to|typical|true|"
    r"real|on|for|with|another|also))*\s*$",
    re.I,
)
# Right before a cell: it is only what another is set against.
ASIDE = re.compile(
    r"\b(?:not|nor|than|unlike|rather than|instead of|compared (?:with|to)|from|versus|vs\.?|with)"
    r"(?:\s+(?:in|to|on|for|the|that of))*\s*$",
    re.I,
)
# Before a type: it is considered, not given.
POSSIBLE = re.compile(
    r"\b(?:could|might|may|maybe|perhaps|possibly|possible|either|whether|suit|hints? at|"
    r"consider\w*|thinking|confus\w+|reminiscent|in principle|at first glance|candidates?(?: for)?|"
    r"left with|expected?|expect)\b[^.:]*$",
    re.I,
)
# Around a type: the sentence speaks of the type in general, or of its genes.
GENERAL_BEFORE = re.compile(
    r"\b(?:markers? (?:of|for)|genes? (?:of|for)|expressed (?:in|by)|found (?:in|on)|seen in|"
    r"known (?:in|for)|which|no)\s+(?:a |an |the )?$",
    re.I,
)
GENERAL_AFTER = re.compile(
    r"\s*(?:-(?=\w)|(?:cells? )?(?:(?:is|are) (?:a |an )?\w+ )?"
    r"(?:markers?|genes?|profiles?|signatures?|programs?|programmes?|lineages?|hormones?|identity|"
    r"features?|scores?|candidates?|options?|types?|secretes?|expresses|express)\b|"
    r"(?:(?:is|being|seems|would be|fits) )?(?:less |unlikely|close\b|ruled out|excluded)|\?)",
    re.I,
)
# Between a type and the cell after it: the type is given to that cell.
TIED = re.compile(
    r"\s*(?:\([^)]*\)\s*)?(?:therefore |then |thus |clearly |best |surely )?"
    r"(?:->|=|:|is(?: therefore| clearly)?|must be|has to be|should be|would be|belongs to|"
    r"(?:then )?goes to|(?:then )?goes with|stays with|matches|fits|is taken by|taken by|is|to|"
    r"on|for|in|as|I (?:first |initially )?(?:picked|chose|choose|pick|take|took))\s*(?:the )?$",
    re.I,
)
NUMBER_TIED = re.compile(
    r"\s*(?:cells?\s*)?(?:->|=|:)\s*(?:cell\s*)?\#?(\d{1,2})\b(?!\s*[.)]\s*\w)", re.I
)
TO_IT = re.compile(
    r"\b(?:assign|give|put|place|match|move)\w* (?:it|this|that) (?:to|on|with)\s*$", re.I
)
TAKES_IT = re.compile(
    r"\s*(?:then |therefore )?(?:gets|takes|receives|is) (?:it|this|that)\b", re.I
)
IN_ORDER = re.compile(r"\b(?:in order|order|final|answer|summary|result)\b", re.I)
# Two cells take each other's type.
SWAP = re.compile(r"\b(?:swap|switch|exchange|interchange)\b", re.I)
# Between two types: neither is chosen.
OR = re.compile(r"\s*(?:,?\s*or|/|vs\.?|versus)\s+(?:a |an |the )?", re.I)
# What is left of a heading such as "Step 2: Plasma cell." without the type.
NO_MORE_THAN_NAMED = re.compile(
    r"[\W\d]*(?:step|assignment|final|type|answer|prediction)?[\W\d]*", re.I
)
FITS_BETTER = re.compile(r"\s*fits\s*$", re.I)
