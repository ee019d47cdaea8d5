"""The tables of a run in Markdown, for docs/performance.md."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.card.running import DONE, FAILED, Outcome
from tools.card.targets import Results, targets


def page(machine: Mapping[str, Any], outcomes: Sequence[Outcome], *, small: bool = False) -> str:
    """Everything that a run found, and what it did not run."""
    results = {each.name: each.result for each in outcomes if each.status == DONE}
    lines = ["# On a card", "", *_machine(machine), "", *_parts(outcomes), "", "## Targets", ""]
    if small:
        lines += [
            "Narrow models, to try the program: these figures say nothing about the published ones.",
            "",
        ]
    lines += _table(("target", "wanted", "measured", ""), (each.cells for each in targets(results)))
    for title, rows in (
        ("Exactness", _exactness(results)),
        ("Fused residual units", _fused(results)),
        ("Tails of residual units", _tails(results)),
        ("Encode and decode", _benchmarks(results)),
        ("A call of the codec", _calls(results)),
        ("On the card alone", _roofline(results)),
        ("A training step", _training(results)),
        ("A song, and the second start", _song(results)),
    ):
        lines += ["", f"## {title}", "", *(rows or ["Not measured."])]
    return "\n".join(lines) + "\n"


def _machine(about: Mapping[str, Any]) -> list[str]:
    driver = ", ".join(f"{name} {value}" for name, value in about.get("driver", {}).items())
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [f"{about['devices']} × {about['device']}{f' ({driver})' if driver else ''}, {about['system']}."]
    lines.append(f"Processor {about['machine']['processor']}, {about['machine']['cores']} cores. {versions}.")
    if about["without"]:
        lines.append(f"Not installed, so not measured: {', '.join(about['without'])}.")
    return lines


def _parts(outcomes: Iterable[Outcome]) -> list[str]:
    def cells(each: Outcome) -> list[str]:
        status = each.status + (", kept" if each.kept else "")
        if each.status == DONE and "passed" in each.result:
            status += ", holds" if each.result["passed"] else ", DOES NOT HOLD"
        return [each.name, each.title, status, f"{each.seconds:.0f}" if each.seconds else "", each.reason]

    return _table(("part", "what", "outcome", "s", "why"), map(cells, outcomes))


def _exactness(results: Results) -> list[str]:
    rows = []
    for row in results.get("parity", {}).get("rows", ()):
        theirs = f"{row['torch']:.1e}" if "torch" in row else "–"
        shown = [f"{row['relative']:.1e}", theirs, f"{row['bound']:.1e}", _holds(row)]
        rows.append([f"against float64, {row['dtype']}", row["part"], *shown])
    for row in results.get("windows", {}).get("rows", ()):
        shown = [f"{row['largest']:.1e} of the peak", "–", f"{row['bound']:.1e}", _holds(row)]
        rows.append(["windows against the whole file", row["part"], *shown])
    step = results.get("step", {}).get("rows", ())
    terms = [row for row in step if not row["part"].startswith("gradients")]
    for row in [
        *sorted(terms, key=lambda row: row["relative"])[-1:],
        *(row for row in step if row not in terms),
    ]:
        name = row["part"] if row not in terms else f"the furthest of {len(terms)} terms: {row['part']}"
        shown = [f"{row['relative']:.1e}", "–", f"{row['bound']:.1e}", _holds(row)]
        rows.append(["training step against the CPU's", name, *shown])
    return _table(("what", "part", "distance", "torch's", "bound", ""), rows) if rows else []


def _fused(results: Results) -> list[str]:
    found = results.get("fused", {})
    if not found:
        return []
    rows = []
    for row in found["rows"]:
        if "failed" in row:
            rows.append([row["dtype"], row["channels"], "", f"failed: {row['failed']}", "", "", ""])
            continue
        errors = [f"{row['plain']:.1e}", f"{row['fused']:.1e}"]
        times = [
            f"{1000 * row[f'{way}_seconds']:.3f}" if f"{way}_seconds" in row else ""
            for way in ("plain", "fused")
        ]
        rows.append([row["dtype"], row["channels"], *errors, *times, _holds(row)])
    heads = ("numbers", "channels", "distance, modules", "fused", "ms, modules", "fused", "")
    note = ["Interpreted on a CPU: no times.", ""] if found["interpreted"] else []
    return note + _table(heads, rows)


def _tails(results: Results) -> list[str]:
    found = results.get("tails", {})
    rows = []
    for row in found.get("rows", ()):
        about = [row["channels"], row["steps"], row["written"], row["warps"], "yes" if row["used"] else ""]
        if "failed" in row:
            rows.append([*about, f"failed: {row['failed']}", "", ""])
            continue
        shown = f"{1000 * row['seconds']:.3f}" if "seconds" in row else ""
        rows.append([*about, shown, f"{row['relative']:.1e}", _holds(row)])
    return (
        _table(("channels", "steps", "written", "warps", "used", "ms", "distance", ""), rows) if rows else []
    )


def _benchmarks(results: Results) -> list[str]:
    rows, notes = [], []
    for name, result in results.items():
        if not name.startswith(("benchmark-", "diffusers-")):
            continue
        about = [result["model"], result["dtype"], f"{result['audio_seconds']:.0f}"]
        ours = {row["stage"]: row["median"] for row in result["rows"] if row["contender"] == "earvae-jax"}
        for row in result["rows"]:
            memory = result["device_memory"].get(row["contender"])
            rows.append(
                [
                    *about,
                    row["stage"],
                    row["contender"],
                    f"{row['median']:.4f} ({row['fastest']:.4f}–{row['slowest']:.4f})",
                    f"{row['realtime']:.0f}",
                    f"{row['median'] / ours[row['stage']]:.2f}",
                    f"{row['compile_seconds']:.1f}",
                    "" if memory is None else f"{memory / 1e9:.1f}",
                ]
            )
        notes += [f"{name}: {who} is left out: {why}" for who, why in result["left_out"].items()]
    if not rows:
        return []
    heads = ("model", "numbers", "audio s", "stage", "contender", "median s (range)", "× real time")
    return [*_table((*heads, "time / ours", "compile s", "GB"), rows), *([""] if notes else []), *notes]


def _calls(results: Results) -> list[str]:
    found = results.get("calls", {})
    rows = [
        [row["call"], *(f"{1000 * row[key]:.2f}" for key in ("median", "fastest", "slowest"))]
        for row in found.get("rows", ())
    ]
    heads = (f"bfloat16, {found['latents']} latents", "median ms", "fastest", "slowest") if rows else ()
    return _table(heads, rows) if rows else []


def _roofline(results: Results) -> list[str]:
    found = results.get("roofline", {})
    if not found:
        return []
    peaks = ", ".join(f"{dtype} {rate / 1e12:.1f}" for dtype, rate in found["matrix_peak"].items())
    rows = []
    for row in found["rows"]:
        about = [row["dtype"], row["formulation"], row.get("batch", ""), row.get("latents", "")]
        if "failed" in row:
            rows.append([*about, f"failed: {row['failed']}", *[""] * 6])
            continue
        for stage in ("encode", "decode"):
            seconds, moved = row[f"{stage}_seconds"], row[f"{stage}_bytes"]
            flow = (
                ["", ""]
                if moved is None
                else [f"{moved / 1e9:.1f}", f"{moved / seconds / found['bandwidth']:.0%}"]
            )
            rows.append(
                [*about, stage, f"{1000 * seconds:.2f}", f"{row[f'{stage}_of_peak']:.0%}", *flow, "", ""]
            )
        whole = [f"{row['round_trip_of_peak']:.0%}", f"{row['realtime']:.0f}"]
        rows.append([*about, "round trip", "", "", "", "", *whole])
    heads = (
        "numbers",
        "formulation",
        "batch",
        "latents",
        "stage",
        "ms",
        "of the matrix peak",
        "GB",
        "of the bandwidth",
    )
    return [
        f"Matrix peak in TFLOP/s: {peaks}. Bandwidth: {found['bandwidth'] / 1e12:.2f} TB/s.",
        "",
        *_table((*heads, "round trip, of the matrix peak", "× real time"), rows),
    ]


def _training(results: Results) -> list[str]:
    rows = []
    for name, result in results.items():
        if name.startswith("training-"):
            for kind, found in result.items():
                keys = (
                    "jax_seconds",
                    "torch_seconds",
                    "speedup",
                    "jax_crops",
                    "torch_crops",
                    "jax_compile_seconds",
                )
                shown = [f"{found[key]:.3f}" if key in found else "–" for key in keys]
                rows.append([kind, name.removeprefix("training-"), *shown])
    heads = (
        "step",
        "numbers",
        "JAX s",
        "torch s",
        "torch / JAX",
        "JAX crops/s",
        "torch crops/s",
        "compile s",
    )
    return _table(heads, rows) if rows else []


def _song(results: Results) -> list[str]:
    lines = []
    if song := results.get("song"):
        share = song["computing_share"]
        computes = "its trace does not tell how long the card computes"
        if share is not None:
            computes = f"the card computes in {share:.0%} of the time"
        lines.append(
            f"{song['audio_seconds']} s of FLAC to FLAC in {song['dtype']}: {song['first_seconds']:.1f} s at "
            f"a first start, {song['seconds']:.1f} s at the next ({song['realtime']:.0f} × real time); "
            f"{computes}."
        )
    if start := results.get("start"):
        lines.append(
            f"`earvae reconstruct` of {start['audio_seconds']} s: {start['first_seconds']:.1f} s with an "
            f"empty cache, {start['second_seconds']:.1f} s with its {start['programs']} programs there."
        )
    return lines


def _holds(row: Mapping[str, Any]) -> str:
    return "holds" if row["passed"] else "DOES NOT HOLD"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return lines + [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line about all parts."""
    failed = [
        each.name for each in outcomes if each.status == FAILED or (each.status == DONE and not each.good)
    ]
    rest = [each.name for each in outcomes if each.status not in (DONE, FAILED)]
    words = [f"{sum(each.status == DONE for each in outcomes)} of {len(outcomes)} parts done"]
    words += [f"failed: {', '.join(failed)}"] if failed else []
    words += [f"not finished: {', '.join(rest)}"] if rest else []
    return "; ".join(words)
