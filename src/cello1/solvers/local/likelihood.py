"""Joint decoding without sampling, by the likelihood of each type for each cell.

For every cell i and candidate c the model rates the continuation ``<think>Cell i is c`` of the
puzzle's prompt. The prompt is read once; all continuations follow in one pass, side by side
after the shared prefix, each blind to the others. Scores are means per token, so that long labels
are not penalized, minus the same scores for a puzzle with empty cells ("N/A"), so that labels that
the model prefers anyway are not favoured (contextual calibration, arXiv 2102.09690).

A model of `cello1 base` is trained for this: its scores are the probabilities of its choices among
the tokens with which a candidate can continue, and it names the genes that speak for its choice.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cello1.puzzles.prompt import response_text, without_evidence
from cello1.puzzles.puzzle import Puzzle
from cello1.solvers.assign import assign_jointly, probabilities
from cello1.solvers.base import Floats, OnDone, Response
from cello1.solvers.local.generate import bytes_per_token
from cello1.solvers.local.language import LanguageModel, too_long
from cello1.solvers.local.spelling import spelling_tree

# Tokens of continuations per pass: the attention mask of a pass has this number times the whole
# length entries.
_PASS_TOKENS = 2_048
_SILENT = ("N/A",)
_CITED = 3  # genes named for a cell
_MOST_ROWS = 64


class LikelihoodSolver:
    """Assigns by likelihood; needs a model, but no generation.

    Parameters
    ----------
    language
        The model.
    """

    def __init__(self, language: LanguageModel) -> None:
        self.language = language
        self.name = f"{language.name} (assign)"
        self.settings: dict[str, Any] = {**language.identity, "decode": "assign"}

    def solve(self, puzzles: Sequence[Puzzle], on_done: OnDone) -> None:
        """Answer puzzles one after the other."""
        for puzzle in puzzles:
            start = time.perf_counter()
            length = len(self.language.prompt(puzzle)[0])
            longest = max(len(_header(self.language, 1)) + len(t) for t in self._labels(puzzle))
            if length + longest > self.language.context:
                on_done(puzzle.id, too_long(puzzle, length + longest, self.language.context))
                continue
            scores = self.scores(puzzle)
            shares, method = probabilities(scores)
            chosen = assign_jointly(scores).tolist()
            pairs = [(j, _rival(row, j)) for j, row in zip(chosen, shares, strict=True)]
            genes = self.cited(puzzle, chosen) if rates_candidates(self.language) else None
            text = response_text(
                _reasoning(puzzle, pairs, shares, genes),
                tuple(puzzle.candidates[j] for j in chosen),
            )
            on_done(
                puzzle.id,
                Response(
                    text,
                    seconds=time.perf_counter() - start,
                    prompt_tokens=length,
                    completion_tokens=0,
                    scores=scores,
                    probabilities=shares,
                    probability_method=method,
                ),
            )

    def scores(self, puzzle: Puzzle) -> Floats:
        """Return log-scores, shape (N, M).

        For a model trained to rate, log-probabilities among the candidates on offer; for any
        other, prior-corrected log-likelihoods per token.
        """
        if rates_candidates(self.language):
            return self.choices(puzzle)
        cells = (_SILENT,) * len(puzzle.cells)
        silent = replace(without_evidence(puzzle), cells=cells, answer=None)
        return self.likelihoods(puzzle) - self.likelihoods(silent)

    def choices(self, puzzle: Puzzle) -> Floats:
        """Return the log-probability of every candidate among those on offer, shape (N, M).

        One question per cell and per prefix of labels that can continue in several ways, each
        after the prompt and blind to the others, as in training.
        """
        tree = spelling_tree(self._labels(puzzle), self.language.vocabulary.encode(".")[0])
        starts = sorted(tree.choices, key=lambda start: (len(start), start))
        numbers = range(1, len(puzzle.cells) + 1)
        asked = [[*_header(self.language, i), *start] for i in numbers for start in starts]
        logits = self._ask(puzzle, asked)
        scores = np.zeros((len(puzzle.cells), len(tree.labels)))
        for k, start in enumerate(starts):
            options = tree.choices[start]
            logs = torch.log_softmax(logits[k :: len(starts), options], dim=-1).cpu().numpy()
            for j, label in enumerate(tree.labels):
                if label[: len(start)] == start:
                    scores[:, j] += logs[:, options.index(label[len(start)])]
        return scores

    def cited(self, puzzle: Puzzle, chosen: Sequence[int]) -> list[list[str]]:
        """Return the genes of each cell that the model would cite for its type.

        Parameters
        ----------
        puzzle
            The puzzle.
        chosen
            For each cell, the index of its type.
        """
        encode, labels = self.language.vocabulary.encode, self._labels(puzzle)
        colon = encode(": ")
        logits = self._ask(
            puzzle,
            [
                [*_header(self.language, i), *labels[j], *colon]
                for i, j in enumerate(chosen, start=1)
            ],
        )
        found = []
        for row, cell in zip(logits, puzzle.cells, strict=True):
            tokens = {gene: encode(f"{gene}, ") for gene in cell}
            single = [gene for gene, ids in tokens.items() if len(ids) == 1]
            order = torch.argsort(row[[tokens[gene][0] for gene in single]], descending=True)
            found.append([single[k] for k in order[:_CITED].tolist()])
        return found

    @torch.inference_mode()
    def _ask(self, puzzle: Puzzle, questions: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the logits after each question; all follow the prompt, blind to each other."""
        prompt, opened = self.language.prompt(puzzle)
        if not opened:
            prompt = prompt + self.language.vocabulary.encode("<think>")
        model = self.language.model
        tokens, position = list(prompt), list(range(len(prompt)))
        block, ends = [0] * len(prompt), list[int]()
        for number, question in enumerate(questions, start=1):
            tokens += question
            position += range(len(prompt), len(prompt) + len(question))
            block += [number] * len(question)
            ends.append(len(tokens) - 1)
        blocks = torch.tensor(block, device=model.device)
        visible = (blocks[:, None] == blocks[None]) | (blocks == 0)[None]
        mask = torch.zeros(visible.shape, dtype=model.dtype, device=model.device)
        mask.masked_fill_(~visible.tril(), torch.finfo(model.dtype).min)
        states = model.base_model(
            input_ids=torch.tensor([tokens], device=model.device),
            attention_mask=mask[None, None],
            position_ids=torch.tensor([position], device=model.device),
            use_cache=False,
        ).last_hidden_state[0, ends]
        logits: torch.Tensor = model.get_output_embeddings()(states)  # type: ignore[no-untyped-call]
        return logits.float()

    @torch.inference_mode()
    def likelihoods(self, puzzle: Puzzle) -> Floats:
        """Return the mean log-likelihood per token of every label for every cell, shape (N, M)."""
        prompt, opened = self.language.prompt(puzzle)
        if not opened:
            prompt = prompt + self.language.vocabulary.encode("<think>")
        model, labels = self.language.model, self._labels(puzzle)
        cache = DynamicCache(config=model.config)
        ids = torch.tensor([prompt], device=model.device)
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        if not all(type(layer) is DynamicLayer for layer in cache.layers):
            return self._rate_apart(cache, len(prompt), len(puzzle.cells), labels)
        per_cell = len(_header(self.language, 99)) + sum(len(label) - 1 for label in labels)
        step = max(1, _PASS_TOKENS // max(1, per_cell))
        numbers = range(1, len(puzzle.cells) + 1)
        blocks = [
            self._rate(cache, len(prompt), numbers[at : at + step], labels)
            for at in range(0, len(numbers), step)
        ]
        return np.vstack(blocks)

    def _rate_apart(
        self, cache: DynamicCache, past: int, n_cells: int, labels: list[list[int]]
    ) -> Floats:
        """Rate every label for every cell in a row of its own after a copy of the prefix.

        For models with other caches, such as sliding windows, where the model itself decides what
        a token attends to.
        """
        model, language = self.language.model, self.language
        starts = [_header(language, number + 1) for number in range(n_cells)]
        pairs = [(i, j) for i in range(n_cells) for j in range(len(labels))]
        scores = np.zeros((n_cells, len(labels)))
        step = max(1, min(_MOST_ROWS, language.cache_bytes() // (bytes_per_token(model) * past)))
        for at in range(0, len(pairs), step):
            some = pairs[at : at + step]
            rows = [[*starts[i], *labels[j][:-1]] for i, j in some]
            width = max(map(len, rows))
            own = copy.deepcopy(cache)
            own.batch_repeat_interleave(len(rows))
            # Padded on the right, where nothing is read.
            ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
            position = torch.arange(past, past + width).expand(len(rows), -1)
            logits = model(
                input_ids=ids.to(model.device),
                position_ids=position.to(model.device),
                past_key_values=own,
                use_cache=True,
            ).logits
            for k, (i, j) in enumerate(some):
                first = len(starts[i]) - 1
                logs = torch.log_softmax(logits[k, first : first + len(labels[j])].float(), dim=-1)
                right = torch.tensor(labels[j], device=model.device)[:, None]
                scores[i, j] = float(logs.gather(1, right).mean())
        return scores

    def _labels(self, puzzle: Puzzle) -> list[list[int]]:
        return [self.language.vocabulary.encode(f" {label}") for label in puzzle.candidates]

    def _rate(
        self, cache: DynamicCache, past: int, numbers: Sequence[int], labels: list[list[int]]
    ) -> Floats:
        """Rate all labels for some cells in one pass after the prefix in the cache."""
        tokens: list[int] = []
        position: list[int] = []
        sees: list[list[int]] = []  # packed tokens that each one attends to, itself included
        ends: list[list[list[int]]] = []  # positions of the logits of each label's tokens
        for number in numbers:
            header = _header(self.language, number)
            start = len(tokens)
            for k, token in enumerate(header):
                tokens.append(token)
                position.append(past + k)
                sees.append([*range(start, start + k + 1)])
            before = [*range(start, len(tokens))]
            places = []
            for label in labels:
                own = [before[-1]]
                for k, token in enumerate(label[:-1]):  # nothing follows the last token
                    sees.append([*before, *own[1:], len(tokens)])
                    own.append(len(tokens))
                    tokens.append(token)
                    position.append(past + len(header) + k)
                places.append(own)
            ends.append(places)
        model = self.language.model
        mask = torch.full((len(tokens), past + len(tokens)), torch.finfo(model.dtype).min)
        mask[:, :past] = 0
        for row, columns in enumerate(sees):
            mask[row, [past + c for c in columns]] = 0
        logits = model(
            input_ids=torch.tensor([tokens], device=model.device),
            attention_mask=mask.to(model.device, model.dtype)[None, None],
            position_ids=torch.tensor([position], device=model.device),
            past_key_values=cache,
            use_cache=True,
        ).logits[0]
        cache.crop(-len(tokens))
        logs = torch.log_softmax(logits.float(), dim=-1)
        return np.array(
            [
                [float(logs[at, label].mean()) for at, label in zip(places, labels, strict=True)]
                for places in ends
            ]
        )


def _header(language: LanguageModel, number: int) -> list[int]:
    return language.vocabulary.encode(f"Cell {number} is")


def rates_candidates(language: LanguageModel) -> bool:
    """Return whether a model was trained to rate the candidates on offer, as `cello1 base` does."""
    return bool(getattr(language.config, "rates_candidates", False))


def _rival(shares: Floats, chosen: int) -> int:
    """Return the second-best type of a cell."""
    return max((j for j in range(len(shares)) if j != chosen), key=lambda j: (shares[j], -j))


def _reasoning(
    puzzle: Puzzle,
    pairs: Sequence[tuple[int, int]],
    shares: Floats,
    genes: Sequence[Sequence[str]] | None,
) -> str:
    """Write how likely each choice is, surest first, the genes for it, and the second-best."""
    order = sorted(range(len(pairs)), key=lambda i: (-shares[i, pairs[i][0]], i))
    lines = ["Each type was rated for each cell by its likelihood; surest cells first."]
    for i in order:
        chosen, rival = pairs[i]
        why = f": {', '.join(genes[i])} in its list speak for it" if genes and genes[i] else ""
        lines.append(
            f"Cell {i + 1} is {puzzle.candidates[chosen]} (probability "
            f"{shares[i, chosen]:.2f}){why}; next comes {puzzle.candidates[rival]} "
            f"({shares[i, rival]:.2f})."
        )
    return "\n".join(lines)
