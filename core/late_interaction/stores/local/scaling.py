"""How deep stage 1 looks in a folder, by default."""

from __future__ import annotations

import math

from late_interaction.candidates import Scaling

GROWS_FROM, GROWS_TO = 5_000, 100_000
"""Between so many documents it matters how many there are. More than the second were not measured, and are searched
as deep as those."""


def folder_scaling(n_documents: int) -> Scaling:
    """Return the scaling for a folder of about so many documents.

    Up to 5,000 it is what `benchmarks/local.py --fit` began from, so that recall is at least 0.97 for k = 1 … 100.
    Beyond, the candidates and the tokens looked at grow with the square root of the number of documents. Measured for
    k = 10, with 40 queries, documents pooled by 2 and made of 5,000 real ones (docs/quality.md): recall is .975 at
    20,000 and .985 at 100,000, where it is .973 and .945 if nothing grows.
    """
    grown = math.sqrt(min(max(GROWS_FROM, n_documents), GROWS_TO) / GROWS_FROM)
    first = math.sqrt(grown)
    return Scaling(
        ann_tokens=(6000.0 * grown, 0.0, 0.0),
        maxsim_candidates=(290.0 * grown, 28.0 * grown, -3.0 * grown),
        first_candidates=(100.0 * first, 3.0 * first, 0.0),
    )
