"""Make the golden token matrices of tests/unit/test_parity.py with the libraries that the formats come from.

    python benchmarks/parity/make_golden.py

Writes the tiny checkpoints of tests/support/parity.py to a temporary folder, has PyLate and colbert-ai encode the same
texts in environments of their own (they need other releases of transformers than we do; uv makes them), and keeps the
matrices in tests/support/golden/parity.npz, with the hash of the weights that they belong to. Prints how far ours are
from them. Nothing is downloaded from the Hugging Face Hub.

colbert-ai 0.2.22 names no release of transformers, and does not load under transformers 5: it gets the last release
before that reads the tokenizer files. Its scoring extension in C++ is not compiled: only encoding is compared.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from late_interaction import ColBERTModel
from tests.support import parity

ENVIRONMENTS = {
    "pylate": ["pylate==1.6.0", "sentence-transformers==5.3.0", "transformers==5.3.0", "torch==2.11.0"],
    "colbert-ai": ["colbert-ai==0.2.22", "faiss-cpu", "transformers==4.49.0", "torch==2.11.0"],
}


def encode(reference: str, folders: dict[str, Path], scratch: Path) -> dict[str, np.ndarray]:
    """Encode all texts with a library in its own environment; return the matrices and the versions of its packages."""
    packages = [requirement.partition("==")[0] for requirement in ENVIRONMENTS[reference]]
    job, out = scratch / f"{reference}.json", scratch / f"{reference}.npz"
    paths = {name: str(folder) for name, folder in folders.items()}
    texts = {"query": parity.QUERIES, "document": parity.DOCUMENTS}
    job.write_text(json.dumps({"packages": packages, "folders": paths, **texts}))
    requirements = [part for requirement in ENVIRONMENTS[reference] for part in ("--with", requirement)]
    script = Path(__file__).with_name(f"with_{reference.replace('-', '_')}.py")
    command = ["uv", "run", "--isolated", "--no-project", "--python", "3.11", *requirements, "python", script]
    subprocess.run([*map(str, command), str(job), str(out)], check=True, cwd=scratch)
    with np.load(out, allow_pickle=False) as arrays:
        return dict(arrays)


def main() -> None:
    golden: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        folders = {
            name: case.build(scratch / f"case-{i}") for i, (name, case) in enumerate(parity.CASES.items())
        }
        for name, checkpoint in folders.items():
            golden[f"{name}/weights"] = np.array(parity.weights_hash(checkpoint))
        for reference in ENVIRONMENTS:
            asked = {
                name: path for name, path in folders.items() if reference in parity.CASES[name].references
            }
            found = encode(reference, asked, scratch)
            golden[f"{reference}/versions"] = found.pop("versions")
            print(reference, golden[f"{reference}/versions"].tolist())
            for name in asked:
                model = ColBERTModel(folders[name], device="cpu", long_documents="truncate")
                for role, texts, ours in (
                    ("query", parity.QUERIES, model.encode_queries(parity.QUERIES)),
                    ("document", parity.DOCUMENTS, model.encode_documents(parity.DOCUMENTS)),
                ):
                    theirs = [found[f"{name}/{role}/{i}"] for i in range(len(texts))]
                    golden |= {f"{name}/{reference}/{role}/{i}": matrix for i, matrix in enumerate(theirs)}
                    print(f"  {name}, {role}: {difference(ours, theirs)}")
    np.savez_compressed(parity.GOLDEN, **golden)
    print(f"{parity.GOLDEN}: {parity.GOLDEN.stat().st_size / 1024:.0f} KB")


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> str:
    """Return the largest absolute difference, and the texts that have another number of vectors."""
    pairs = list(zip(ours, theirs, strict=True))
    other = [i for i, (one, two) in enumerate(pairs) if one.shape != two.shape]
    largest = max(np.abs(one - two).max() for one, two in pairs if one.shape == two.shape)
    return f"{largest:.1e}" + (f", other shapes: texts {other}" if other else "")


if __name__ == "__main__":
    main()
