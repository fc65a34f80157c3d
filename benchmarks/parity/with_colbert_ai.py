"""Make token matrices with colbert-ai, in its own environment: `with_colbert_ai.py JOB OUT`. See make_golden.py."""

import json
import sys
from importlib.metadata import version

import numpy as np
from colbert.infra import ColBERTConfig
from colbert.modeling.checkpoint import Checkpoint
from colbert.modeling.colbert import ColBERT

# Or it compiles a C++ extension, which it only scores with.
ColBERT.loaded_extensions = True


def main(job: str, out: str) -> None:
    with open(job) as file:  # noqa: PTH123
        work = json.load(file)
    arrays = {"versions": np.array([f"{name} {version(name)}" for name in work["packages"]])}
    for name, folder in work["folders"].items():
        model = Checkpoint(folder, colbert_config=ColBERTConfig(checkpoint=folder), verbose=0)
        if not model.colbert_config.mask_punctuation:
            model.skiplist = {}  # without a skiplist to make it sets none, and then asks for it
        # One text at a time: nothing here depends on a batch.
        for i, text in enumerate(work["query"]):
            arrays[f"{name}/query/{i}"] = model.queryFromText([text])[0].numpy()
        for i, text in enumerate(work["document"]):
            (matrix,) = model.docFromText([text], keep_dims=False)
            arrays[f"{name}/document/{i}"] = matrix.numpy()
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
