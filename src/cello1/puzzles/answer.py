"""Read a response: either the labels it assigns, or why it cannot be read.

The one parser behind evaluation, rejection sampling and reinforcement learning. It is strict:
after trimming, the whole text is ``<think>..</think>``, one newline, ``<answer>..</answer>``,
and each tag stands there exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_JOINT = "</think>\n<answer>"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response in the exact format.

    Attributes
    ----------
    labels
        What stood between the '|', trimmed; an empty slot is an empty string.
    reasoning
        What stood in the think block, as it was.
    """

    labels: tuple[str, ...]
    reasoning: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A response in any other format, and what is wrong with it."""

    reason: str


def parse_response(text: str) -> Answer | Malformed:
    """Read a response, or say which rule of the format it breaks."""
    text = text.strip()
    joint = text.rfind(_JOINT)
    framed = text.startswith("<think>") and text.endswith("</answer>") and joint >= 0
    # With four '<' in all, the frame holds every one of them, so no tag can stand anywhere else;
    # that spares most texts four searches from end to end.
    if not (framed and text.count("<") == len(TAGS)):
        for tag in TAGS:
            count = text.count(tag)
            if count != 1:
                return Malformed(f"{tag} appears {count} times instead of once")
        if not text.startswith("<think>"):
            return Malformed("there is text before <think>")
        if not text.endswith("</answer>"):
            return Malformed("there is text after </answer>")
        if joint < 0:
            return Malformed("</think> and <answer> are not joined by exactly one newline")
    answer = text[joint + len(_JOINT) : -len("</answer>")]
    labels = tuple([slot.strip() for slot in answer.split("|")])
    return Answer(labels, text[len("<think>") : joint])
