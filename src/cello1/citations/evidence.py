"""Whether the genes that reasons cite are present, and speak for the type named.

:mod:`cello1.citations.citations` reads what is cited; here it is checked against the lists, the
expression in the clusters at hand, and what is known of the type.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from cello1.citations.aliases import Aliases
from cello1.citations.citations import Citation, citations, gene_vocabulary
from cello1.citations.genes import listed
from cello1.puzzles.answer import Answer, parse_response
from cello1.puzzles.puzzle import Puzzle
from cello1.scoring.evaluate import donors_of
from cello1.scoring.statistics import Interval, clustered_interval


@dataclass(frozen=True, slots=True)
class Support:
    """The evidence for one gene that reasons cite for one cluster.

    Attributes
    ----------
    gene
        Its symbol, or a family such as ``IGH*``.
    cited, listed
        How often it was cited for a cell of the cluster, and how often it was in its list.
    inside, outside
        Share of the cells of the cluster, and of all other cells, that express it; None where it
        is not among the genes measured.
    marker
        A table of markers has it for the type named; None when the table lacks the type.
    """

    gene: str
    cited: int
    listed: int
    inside: float | None
    outside: float | None
    marker: bool | None


@dataclass(frozen=True, slots=True)
class CitedShare:
    """How far the citations of a run can be trusted.

    Attributes
    ----------
    share
        Cited genes that are in the list of their cell; mean over responses that cite any.
    cited, true
        Number of citations, and of those that are true.
    silent
        Responses that cite no gene.
    expected
        Genes only said to be expected of a type, or looked for; they do not count as evidence.
    """

    share: Interval
    cited: int
    true: int
    silent: int
    expected: int = 0


def support(
    cited: Iterable[Citation],
    inside: Mapping[str, float],
    outside: Mapping[str, float],
    markers: Set[str] | None,
) -> list[Support]:
    """Summarize the citations for one cluster, best supported first.

    Parameters
    ----------
    cited
        Citations for its cells, without denied ones.
    inside, outside
        Gene -> share of cells that express it, in the cluster and elsewhere. A family has the
        highest share of its genes.
    markers
        Markers of the type named, from a marker table; None if it has none.
    """
    times, true = Counter[str](), Counter[str]()
    for citation in cited:
        times[citation.gene] += 1
        true[citation.gene] += citation.true
    found = [
        Support(
            gene,
            count,
            true[gene],
            _share(gene, inside),
            _share(gene, outside),
            None if markers is None else listed(gene, markers),
        )
        for gene, count in times.items()
    ]
    return sorted(found, key=lambda s: (-s.listed, -_gap(s), s.gene))


def strike(text: str, cited: Iterable[Citation]) -> str:
    """Strike through (`~~GENE~~`) the genes of a text that are not in the list of their cell."""
    wrong = sorted(
        {c.text for c in cited if not c.true and not c.denied}, key=lambda t: (-len(t), t)
    )
    for spelled in wrong:
        text = re.sub(rf"(?<![\w~-]){re.escape(spelled)}(?![\w~-])", f"~~{spelled}~~", text)
    return text


def cited_share(
    puzzles: Sequence[Puzzle],
    texts: Mapping[str, str],
    aliases: Aliases | None = None,
    *,
    seed: int = 0,
) -> CitedShare | None:
    """Return the fraction of genes cited in a run that are in the lists; None if none is cited.

    Parameters
    ----------
    puzzles, texts
        What was asked, and puzzle id -> response.
    aliases
        Other names of genes.
    seed
        Seed of the bootstrap over donors.
    """
    vocabulary = gene_vocabulary(puzzles)
    shares, owners, cited, true, silent, expected = [], [], 0, 0, 0, 0
    for puzzle in puzzles:
        response = parse_response(texts.get(puzzle.id, ""))
        if not isinstance(response, Answer):
            continue
        read = citations(puzzle, response.reasoning, vocabulary, aliases, expected=True)
        found = [c for c in read if not c.expected]
        expected += len({c.mention for c in read if c.expected})
        if not found:
            silent += 1
            continue
        right = sum(c.true for c in found)
        cited, true = cited + len(found), true + right
        shares.append(right / len(found))
        owners.append(puzzle)
    if not shares:
        return None
    interval = clustered_interval(shares, donors_of(owners), seed=seed)
    return CitedShare(interval, cited, true, silent, expected)


def _share(gene: str, shares: Mapping[str, float]) -> float | None:
    if gene.endswith("*"):
        return max((s for g, s in shares.items() if g.startswith(gene[:-1])), default=None)
    return shares.get(gene)


def _gap(found: Support) -> float:
    return (found.inside or 0.0) - (found.outside or 0.0)
