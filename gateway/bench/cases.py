"""The figures of a plan as a case, beside those of other loads."""

from __future__ import annotations

from gateway.bench.figures import Figures
from gateway.bench.plan import describe
from gateway.bench.record import Case, Counts, Memory


def case_of(figures: Figures, name: str) -> Case:
    """One case of it."""
    server, plan = figures.server, figures.plan
    counts = _counts(figures)
    wrong = what_is_wrong(counts, figures.refusal, duplicates_allowed=plan.misfits > 0)
    latency = {"confirm": figures.confirm, "delivery": figures.delivery}
    return Case(
        name=name,
        load=describe(plan),
        wrong=wrong or ("" if figures.complete else "not everything came in time"),
        units=figures.published,
        elapsed_s=figures.elapsed_s,
        per_s=figures.published_per_s if figures.published else None,
        cpu_us=server.cpu_us_per_message,
        server_cpu_share=server.cpu_share if figures.published else None,
        load_cpu_share=figures.load_cpu_share if figures.published else None,
        latency={each: found for each, found in latency.items() if found is not None},
        memory=Memory(anon=server.anon_bytes, file=server.file_bytes, peak=server.resident_peak_bytes),
        gc_pause_max_ms=server.gc_pause_max_ms,
        counts=counts,
        detail=figures,
    )


def _counts(figures: Figures) -> Counts:
    return Counts(
        published=figures.published,
        refused=figures.refused,
        delivered=figures.received,
        lost=figures.lost,
        duplicates=figures.duplicates,
        invented=figures.invented,
    )


def what_is_wrong(counts: Counts, refusal: str = "", *, duplicates_allowed: bool = True) -> str:
    """In one line; empty where it adds up. Something has to explain a second delivery (design §1.1)."""
    found = []
    if counts.refused:
        found.append(f"{counts.refused:,} refused: {refusal}".rstrip(": "))
    if counts.lost:
        found.append(f"{counts.lost:,} lost")
    if counts.invented:
        found.append(f"{counts.invented:,} invented")
    if counts.duplicates and not duplicates_allowed:
        found.append(f"{counts.duplicates:,} delivered twice")
    return ", ".join(found)
