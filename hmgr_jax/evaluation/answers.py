"""What a system answered: ``answers.json`` as VQA's servers take it."""

from __future__ import annotations

from pathlib import Path

from hmgr_jax.data.split import Split
from hmgr_jax.data.vqa.questions import ANSWER, QUESTION
from hmgr_jax.distributed import hosts
from hmgr_jax.evaluation.evaluate import More, Scored
from hmgr_jax.files.workdir import write_json_atomic
from hmgr_jax.metrics.vqa import chosen

NAME = "answers"


def reporter(workdir: Path, split: Split, suffix: str = "") -> More:
    """``more`` of `Evaluator.metrics`: writes the answers of questions, adds no number.

    The file is a list of {"question_id", "answer"}, in the order of the split; ids that are whole
    numbers are written as such. Only by the first process, and of questions alone.
    """

    def more(scored: Scored) -> dict[str, float]:
        if scored.modalities == (QUESTION, ANSWER) and hosts.first():
            answers, ids = split.ids[ANSWER], split.ids[QUESTION]
            given = [
                {"question_id": int(name) if name.isdigit() else name, "answer": answers[best]}
                for name, best in zip(ids, chosen(scored.scores).tolist(), strict=True)
            ]
            write_json_atomic(workdir / f"{NAME}{suffix}.json", given)
        return {}

    return more
