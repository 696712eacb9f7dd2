"""Read a .mat with scipy and write its arrays as .npz: run as a script, in a process of its own.

Damaged files can end the process and take any amount of memory and time within scipy's compiled
code. It imports nothing of the package, so it starts fast. Arguments: the .mat, the .npz, the
limit of the address space in bytes and of the time in seconds. What scipy finds wrong is the last
line on standard error.
"""

import resource
import sys


def main(path: str, out: str, memory: str, seconds: str) -> None:
    """Read ``path`` and write ``out``: ``names``, and their arrays as ``a0``, ``a1`` and so on.

    Names of variables are no names of the .npz, since numpy takes none called ``file``. Those of
    cells, structures and objects end with ``!``.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    import numpy as np
    from scipy.io import loadmat

    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    found = {}
    for name, array in loadmat(path, spmatrix=False).items():
        if name.startswith("__"):
            continue
        if hasattr(array, "todense"):
            array = array.todense()
        if getattr(array, "dtype", np.dtype(object)).kind in "biufUS":
            found[name] = np.asarray(array)
        else:
            found[f"{name}!"] = np.zeros(0)
    with open(out, "wb") as file:
        arrays = {f"a{k}": array for k, array in enumerate(found.values())}
        np.savez(file, names=np.array(list(found), np.str_), **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
