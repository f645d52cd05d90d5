"""The right vectors of several models at once: an answer is judged by the model that it names.

While models change, instances of both answer. An answer that names the one and holds a vector of
the other, from a cache or from a worker, is wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from bench.faults.answer_key import AnswerKey
from bench.faults.question import Question


class ReversedKey(AnswerKey):
    """What `reversed_model` makes of the right vectors of another key."""

    def __init__(self, key: AnswerKey) -> None:
        super().__init__()
        self._right = {name: vector[::-1] for name, vector in key._right.items()}


class ModelKey(AnswerKey):
    """Name of a model → its own key. Takes answers in JSON only, as only those name the model."""

    def __init__(self, keys: Mapping[str, AnswerKey]) -> None:
        super().__init__()
        self._keys = keys
        self.answers: Counter[str] = Counter()  # by model

    def right(self, question: Question, content_type: str, body: bytes) -> bool:
        """Whether an answer holds the right vectors of the model it names."""
        name = str(json.loads(body)["model"])
        self.answers[name] += 1
        return name in self._keys and self._keys[name].right(question, content_type, body)
