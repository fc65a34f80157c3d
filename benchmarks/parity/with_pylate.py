"""Make token matrices with PyLate, in an environment of its own: `with_pylate.py JOB OUT`. See make_golden.py."""

import json
import sys
from importlib.metadata import version

import numpy as np
from pylate import models


def main(job: str, out: str) -> None:
    with open(job) as file:  # noqa: PTH123
        work = json.load(file)
    arrays = {"versions": np.array([f"{name} {version(name)}" for name in work["packages"]])}
    for name, folder in work["folders"].items():
        model = models.ColBERT(folder, device="cpu")
        for role in ("query", "document"):
            # One text at a time: nothing here depends on a batch.
            for i, text in enumerate(work[role]):
                (matrix,) = model.encode([text], is_query=role == "query", show_progress_bar=False)
                arrays[f"{name}/{role}/{i}"] = np.asarray(matrix, np.float32)
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
