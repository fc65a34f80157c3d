"""How deep stage 1 looks on Astra, by default."""

from __future__ import annotations

from late_interaction.candidates import Scaling

MAX_ANN_ROWS = 1000
"""Rows that one ANN query lists at most."""

# Fitted by benchmarks/astra_recall.py on real documents, pooled and not, so that the recall of the exact top k is at
# least 0.97 for k = 1 … 100.
TOKENS_SCALING = Scaling(
    ann_tokens=(100.0, 6.0, 0.0),
    maxsim_candidates=(60.0, 4.0, 0.0),
    max_ann_tokens=MAX_ANN_ROWS,
    bounded=True,
)


GROWS_FROM, GROWS_TO = 5_000, 60_000
"""Between so many documents it matters how many there are: with more, the lists are as long as they can be."""


def documents_scaling(n_documents: int) -> Scaling:
    """Return the scaling with document vectors, for a collection of about so many documents.

    Fitted by benchmarks/document_vector_growth.py: the exact top 10 are among the candidates in .99 of cases at 5,000
    documents, and in at least .97 up to 100,000. From 43,000 documents on, a search for 10 has the 1,000 that the
    service lists at most. It has 300 at least: with 200 nDCG@10 on Cranfield is .007 below that of exact search, with
    300 .004 (benchmarks/astra_cost.py).
    """
    grown = (min(max(GROWS_FROM, n_documents), GROWS_TO) / GROWS_FROM) ** 0.75
    coefficients = (max(250.0, 150 * grown), 5 * grown, 0.0)
    return Scaling(ann_tokens=coefficients, maxsim_candidates=coefficients, max_ann_tokens=MAX_ANN_ROWS)
