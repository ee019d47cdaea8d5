"""Runs the programs of docs/export.md where this package cannot be imported. Started as a script.

Arguments: a file with a program, and folders. In each folder the program finds its export, `given.npz` with
`audio` and `latents` of its layout, and leaves `answers.npz`.
"""

import os
import pathlib
import sys

import numpy as np


class Refused:
    """Finds nothing, and raises for the names that a fresh machine does not have."""

    names = ("earvae_jax", "torch", "flax")

    def find_spec(self, name, path=None, target=None):
        """Refuses; every other name is for the next finder."""
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is refused here", name=name)


def main(program: str, folders: list[str]) -> None:
    """Runs the program in every folder."""
    sys.meta_path.insert(0, Refused())
    code = compile(pathlib.Path(program).read_text(), program, "exec")
    for folder in folders:
        os.chdir(folder)
        given, namespace = np.load("given.npz"), {}
        exec(code, namespace)
        run = namespace["run"]
        if isinstance(run, dict):  # StableHLO: programs of weights and values
            weights, programs = namespace["weights"], run

            def run(name, values, weights=weights, programs=programs):
                answer = programs[name](weights, values)
                return answer if isinstance(answer, (tuple, list)) else (answer,)

        mean, std = run("encoder", given["audio"])
        latents = given["latents"]
        if "transformer" in namespace.get("sessions", namespace["run"]):
            (latents,) = run("transformer", latents)
        (audio,) = run("decoder", latents)
        np.savez("answers.npz", mean=mean, std=std, audio=audio)
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert loaded.isdisjoint(Refused.names), loaded & set(Refused.names)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
